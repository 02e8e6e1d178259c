package worker

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/replica"
	"github.com/millrace/millrace/supervise"
)

// outcome is how an attempt at a task ended; it goes from the replica to the
// publisher.
type outcome struct {
	item   *item
	value  []byte
	reply  millrace.Headers // what the handler wants in the result
	failed *failure         // nil when there is a value
}

// runner is what one generation of a replica needs to run tasks: a task and a
// context that are used again for each, so that running one allocates nothing.
type runner struct {
	worker *Worker
	base   context.Context // of the generation
	pulse  *supervise.Pulse
	number int
	task   Task

	mu      sync.Mutex // protects all below; never held while waiting or calling
	running *item
	overdue time.Time       // when a task that was told to stop should have ended at the latest
	why     error           // what it was told
	ctx     context.Context // ends with base, or when the running task must stop
	cancel  context.CancelCauseFunc
}

// handle is the replicas' handler: it runs one task and emits the outcome. An error
// says that the task is to be given back: see failed.
func (w *Worker) handle(ctx context.Context, it *item) error {
	if w.pause.on.Load() {
		return errPaused
	}
	out := w.runnerOf(ctx).attempt(it)
	if out.failed != nil && out.failed.noFault(ctx, it) {
		return out.failed.err
	}
	w.flow.finished()
	err := replica.Emit(ctx, out, w.merger.Emit)
	if err != nil {
		w.flow.settled(1, 0)
	}
	return err
}

// failed gives back a task whose attempt does not count.
func (w *Worker) failed(it *item, err error) {
	var redeliver *redeliverError
	if errors.As(err, &redeliver) {
		w.giveBack(w.cfg.backoff(int(it.delivery.Attempt)), it)
		w.lost(it, err)
		return
	}
	w.giveBack(0, it)
}

// attempt runs a task, unless it must not be run.
func (r *runner) attempt(it *item) outcome {
	if it.unfit != nil {
		return outcome{item: it, failed: &failure{err: it.unfit}}
	}
	w := r.worker
	timeout := it.timeout
	if timeout < 0 {
		timeout = w.cfg.Timeout
	}
	ctx := r.begin(it, timeout)
	if it.leaseLost.Load() || w.cancelled.has(it.id) || w.clients.isGone(it.replyTo) {
		_ = r.end()
		return outcome{item: it, failed: &failure{err: ErrCancelled, cause: ErrCancelled}}
	}
	out := outcome{item: it}
	out.value, out.reply, out.failed = r.run(ctx, it, timeout)
	switch cause := r.end(); {
	case errors.Is(cause, ErrCancelled):
		// Also a value: a client that is gone has taken its reply topic with it, and
		// publishing would make another one that nobody ever reads.
		return outcome{item: it, failed: &failure{err: ErrCancelled, cause: ErrCancelled}}
	case cause != nil && out.failed != nil && out.failed.cause == nil:
		out.failed.cause = cause
	}
	return out
}

// run calls the handler.
func (r *runner) run(ctx context.Context, it *item, timeout time.Duration) (value []byte, reply millrace.Headers, failed *failure) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, ErrTimeout)
		defer cancel()
	}
	defer func() {
		if v := recover(); v != nil {
			failed = &failure{err: &supervise.PanicError{Value: v, Stack: debug.Stack()}}
		}
	}()
	t := &r.task
	*t = Task{
		ID: it.id, Queue: r.worker.queue, Payload: it.delivery.Body, Headers: it.delivery.Headers,
		Attempt: it.attempt(), Replica: r.number, Timeout: timeout,
	}
	value, err := r.worker.handler.Handle(ctx, t)
	if err != nil {
		return nil, t.Reply, &failure{err: err, cause: context.Cause(ctx)}
	}
	return value, t.Reply, nil
}

// begin says which task runs from now on, and returns its context.
func (r *runner) begin(it *item, timeout time.Duration) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = it
	if timeout > 0 {
		r.overdue, r.why = time.Now().Add(timeout+r.worker.cfg.Grace), ErrTimeout
	}
	return r.ctx
}

// end says that no task runs, and returns the cause if its context had ended. Then
// the next task gets another one.
func (r *runner) end() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running, r.overdue = nil, time.Time{}
	if r.ctx.Err() == nil {
		return nil
	}
	cause := context.Cause(r.ctx)
	r.renew()
	return cause
}

func (r *runner) renew() { r.ctx, r.cancel = context.WithCancelCause(r.base) }

// interrupt ends the context of the running task, if match says so.
func (r *runner) interrupt(cause error, match func(*item) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running == nil || !match(r.running) {
		return
	}
	r.cancel(cause) // waits for nobody; a handler's AfterFunc has its own goroutine
	if last := time.Now().Add(r.worker.cfg.Grace); r.overdue.IsZero() || last.Before(r.overdue) {
		r.overdue, r.why = last, cause
	}
}

// giveUpStuck abandons the replica if its handler should have ended by now: it ignores
// its context. The task is then lost, see Worker.taskLost.
func (r *runner) giveUpStuck(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running != nil && !r.overdue.IsZero() && now.After(r.overdue) {
		r.pulse.GiveUp(&stuckError{r.why})
	}
}

// stuckError is why a replica was given up whose handler ignores its context.
type stuckError struct{ told error }

func (e *stuckError) Error() string { return e.told.Error() + "; its handler ignores its context" }
func (e *stuckError) Unwrap() error { return e.told }
