package fanin

import (
	"context"
	"errors"
	"runtime/debug"
)

// Input is a source that was added to a Merger.
type Input[T any] struct {
	name   string
	source Source[T]
	merger *Merger[T]
	ctx    context.Context // set by start, with cancel
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the source has returned
	early  bool          // removed before it was started; protected by merger.mu
}

// Remove tells the source to stop, and returns nil when it has returned. What it
// emitted stays in the stream. If ctx ends first, Remove returns its cause; the
// source is told all the same.
func (in *Input[T]) Remove(ctx context.Context) error {
	in.merger.mu.Lock()
	cancel := in.cancel
	in.early = cancel == nil
	in.merger.mu.Unlock()
	if cancel != nil {
		cancel(ErrRemoved)
	}
	select {
	case <-in.done:
		return nil
	default:
	}
	select {
	case <-in.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Done is closed when the source has returned.
func (in *Input[T]) Done() <-chan struct{} { return in.done }

// start starts the source. It is called with m.mu held.
func (m *Merger[T]) start(in *Input[T]) {
	in.ctx, in.cancel = context.WithCancelCause(m.ctx)
	if in.early {
		in.cancel(ErrRemoved)
	}
	m.sources.Go(in.run)
}

// run is the source's goroutine.
func (in *Input[T]) run() {
	m := in.merger
	err := ErrGoexit // stays, if the source unwinds this goroutine
	defer func() {
		if err != nil && in.ctx.Err() != nil && isStop(in.ctx, err) {
			err = nil
		}
		if err != nil {
			err = &SourceError{Name: in.name, Err: err}
		}
		in.cancel(nil)
		m.cfg.OnEnd(in.name, err)
		m.mu.Lock()
		if err != nil && len(m.errs) < maxErrors {
			m.errs = append(m.errs, err)
		}
		m.live--
		m.mu.Unlock()
		close(in.done)
		m.look()
	}()
	err = call(in.ctx, in.source, m.Emit)
}

// isStop reports whether err says no more than that ctx has ended.
func isStop(ctx context.Context, err error) bool {
	return errors.Is(err, context.Cause(ctx)) || errors.Is(err, ctx.Err()) || errors.Is(err, ErrClosed)
}

// call calls the source and turns a panic into an error.
func call[T any](ctx context.Context, src Source[T], emit Emit[T]) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return src(ctx, emit)
}
