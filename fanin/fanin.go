package fanin

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"
)

// Defaults for the zero values of [Config].
const (
	DefaultBuffer = 1024
	DefaultGrace  = 5 * time.Second
)

// maxErrors bounds the errors that Serve keeps until it returns.
const maxErrors = 16

// Emit hands one value to the stream, as [Merger.Emit] does.
type Emit[T any] = func(ctx context.Context, v T) error

// Source emits values until it has no more, fails, or ctx ends; then it should
// return soon. It may call emit from several goroutines if it waits for them
// before it returns. An error that only says that ctx has ended is not counted
// as a failure.
type Source[T any] func(ctx context.Context, emit Emit[T]) error

// Config says how a Merger works. The zero value is usable.
type Config[T any] struct {
	// Buffer is how many values may wait for the reader, rounded up to a power
	// of two. 0 means DefaultBuffer.
	Buffer int

	// Grace is how long, after the merger was told to stop, emitted values can
	// still be read. 0 means DefaultGrace; a negative duration means none.
	Grace time.Duration

	// Undelivered, if set, gets the emitted values that nobody read, in order,
	// by the goroutine that runs Serve. If it is nil and there are any, Serve's
	// error holds them, as an *UndeliveredError.
	Undelivered func([]T)

	// OnEnd, if set, is told that a source has returned, by the source's
	// goroutine. err is nil, or a *SourceError.
	OnEnd func(name string, err error)
}

// Merger merges sources into one stream. Its methods may be called by any
// goroutine.
type Merger[T any] struct {
	cfg     Config[T]
	buffer  *buffer[T]
	changed chan struct{} // tells Serve to look; has room for one token
	sources sync.WaitGroup

	mu      sync.Mutex // protects all below; never held while waiting or calling
	ctx     context.Context
	cancel  context.CancelCauseFunc
	waiting []*Input[T] // added before Serve
	live    int         // sources that have not returned
	sealed  bool        // no source is added any more
	stop    bool        // Stop was called
	served  bool
	errs    []error
}

// New returns a Merger without sources.
func New[T any](cfg Config[T]) *Merger[T] {
	if cfg.Buffer <= 0 {
		cfg.Buffer = DefaultBuffer
	}
	if cfg.Grace == 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.OnEnd == nil {
		cfg.OnEnd = func(string, error) {}
	}
	m := &Merger[T]{cfg: cfg, changed: make(chan struct{}, 1)}
	m.buffer = newBuffer[T](cfg.Buffer, m.look)
	return m
}

// Add adds a source. It is started at once, or by Serve if that is not running
// yet. Add returns ErrClosed after Close, after Stop, and when Serve is ending.
func (m *Merger[T]) Add(name string, src Source[T]) (*Input[T], error) {
	in := &Input[T]{name: name, source: src, merger: m, done: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sealed || m.stop {
		return nil, ErrClosed
	}
	m.live++
	if m.ctx == nil {
		m.waiting = append(m.waiting, in)
		return in, nil
	}
	m.start(in)
	return in, nil
}

// Close says that no more sources will be added: the stream ends when those that
// there are have returned and everything was read.
func (m *Merger[T]) Close() {
	m.mu.Lock()
	m.sealed = true
	m.mu.Unlock()
	m.look()
}

// Stop tells the merger to stop, as the end of Serve's context does, and returns
// at once; Serve returns nil if nothing else was wrong.
func (m *Merger[T]) Stop() {
	m.mu.Lock()
	m.stop = true
	m.mu.Unlock()
	m.look()
}

// Emit hands one value to the stream, waiting for room. It returns nil when the
// value is in: it will be read or count as undelivered. Else it is not:
// ErrClosed is returned when the stream has ended, the cause of ctx when that
// ended first. A context counts only for waiting: where there is room, a source
// can emit after it was told to stop.
func (m *Merger[T]) Emit(ctx context.Context, v T) error { return m.buffer.put(ctx, v) }

// Recv returns the next value. It returns ErrClosed at the end of the stream,
// and the cause of ctx if that ends first; a value that is there is preferred.
func (m *Merger[T]) Recv(ctx context.Context) (v T, err error) {
	var one [1]T
	_, err = m.buffer.take(ctx, one[:])
	return one[0], err
}

// RecvBatch waits for at least one value, moves what is there into buf, up to
// its length, and returns how many. Its errors are those of Recv. An empty buf
// is filled at once.
func (m *Merger[T]) RecvBatch(ctx context.Context, buf []T) (n int, err error) {
	if len(buf) == 0 {
		return 0, nil
	}
	return m.buffer.take(ctx, buf)
}

// All returns the stream as an iterator, which ends with the stream or with ctx.
// Leaving it early loses no value, and stops nothing.
func (m *Merger[T]) All(ctx context.Context) iter.Seq[T] {
	return func(yield func(T) bool) {
		for ctx.Err() == nil {
			v, err := m.Recv(ctx)
			if err != nil || !yield(v) {
				return
			}
		}
	}
}

// Len returns how many values wait for the reader.
func (m *Merger[T]) Len() int { return m.buffer.len() }

// Sources returns how many sources have not returned yet.
func (m *Merger[T]) Sources() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.live
}

// Serve runs the sources. It returns when every one of them has returned and the
// stream has ended: after Close, when everything was read; after ctx has ended
// or Stop was called, when everything was read or the grace is over. It may be
// called once; then it returns ErrServed.
//
// The error joins the cause of ctx, if that has ended; a *SourceError for each
// of the first 16 sources that failed; an *UndeliveredError.
func (m *Merger[T]) Serve(ctx context.Context) error {
	if !m.begin(ctx) {
		return ErrServed
	}
	defer m.cancel(nil)
	stopped := m.untilEnd(ctx)

	m.mu.Lock()
	m.sealed = true
	m.mu.Unlock()
	rest := m.buffer.close()
	m.sources.Wait()

	var errs []error
	if stopped && ctx.Err() != nil {
		errs = append(errs, context.Cause(ctx))
	}
	m.mu.Lock()
	errs = append(errs, m.errs...)
	m.mu.Unlock()
	if len(rest) > 0 {
		if m.cfg.Undelivered == nil {
			errs = append(errs, &UndeliveredError[T]{Values: rest})
		} else {
			m.cfg.Undelivered(rest)
		}
	}
	return errors.Join(errs...)
}

func (m *Merger[T]) begin(ctx context.Context) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.served {
		return false
	}
	m.served = true
	m.ctx, m.cancel = context.WithCancelCause(ctx)
	for _, in := range m.waiting {
		m.start(in)
	}
	m.waiting = nil
	return true
}

// untilEnd waits until the stream is to end, and reports whether it was told to
// stop.
func (m *Merger[T]) untilEnd(ctx context.Context) (stopped bool) {
	told := ctx.Done()
	var over <-chan time.Time
	for {
		ended, stop := m.state()
		if stop && !stopped {
			stopped, told = true, nil
			m.cancel(ErrStopped)
			timer := time.NewTimer(m.cfg.Grace)
			defer timer.Stop()
			over = timer.C
		}
		if ended && m.buffer.drain() {
			return stopped
		}
		select {
		case <-m.changed:
		case <-told:
			m.Stop()
		case <-over:
			return stopped
		}
	}
}

// state reports whether no source is left, or will ever come, and whether the
// merger is told to stop.
func (m *Merger[T]) state() (ended, stop bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sealed = m.sealed || m.stop
	return m.sealed && m.live == 0, m.stop
}

// look makes Serve look at what has changed.
func (m *Merger[T]) look() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}
