package gather

import (
	"context"
	"errors"
)

// Call sends one request and waits for its result. The error is a *TaskError when the
// task failed, the broker's, ErrClosed, or the cause of ctx; then the task is
// cancelled.
func Call[O, I any](ctx context.Context, c *Client, input I) (O, error) {
	p, err := Submit[O](ctx, c, input)
	if err != nil {
		var zero O
		return zero, err
	}
	output, err := p.Wait(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		p.Cancel()
	}
	return output, err
}

// Submit sends one request and returns what its result can be waited for with. It
// waits itself only while too many requests of the client are under way. Returns an
// error when the input cannot be encoded, the broker's, ErrClosed, or the cause of ctx.
func Submit[O, I any](ctx context.Context, c *Client, input I) (*Pending[O], error) {
	payload, err := encoderFor[I]()(nil, input)
	if err != nil {
		return nil, err
	}
	j, err := c.callJob()
	if err != nil {
		return nil, err
	}
	p := &Pending[O]{job: j, call: newCall()}
	if err := j.admit(ctx, payload, p.call); err != nil {
		return nil, err
	}
	return p, nil
}

// Pending is a request that was submitted. Its methods may be called by any
// goroutine.
type Pending[O any] struct {
	job  *job
	call *call
}

// ID returns the request id, which is also in the workers' logs and dead letters.
func (p *Pending[O]) ID() string { return requestID(p.job.id, p.call.index) }

// Wait returns the result. The error is a *TaskError when the task failed,
// ErrCancelled after Cancel, the broker's, ErrClosed, or the cause of ctx: then the
// task goes on, and Wait can be called again.
func (p *Pending[O]) Wait(ctx context.Context) (O, error) {
	a, err := p.call.wait(ctx)
	if err != nil {
		var zero O
		return zero, err
	}
	result, err := resultOf(p.job, &a, decoderFor[O]())
	return result.Value, err
}

// Cancel says that nobody wants the result any more: the task's context ends where it
// runs, and it is not begun where it waits. It does nothing when the result is there.
func (p *Pending[O]) Cancel() {
	if p.job.withdraw(p.call.index, ErrCancelled) {
		p.job.client.cancelTasks(p.ID())
	}
}
