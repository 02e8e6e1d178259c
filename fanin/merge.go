package fanin

import (
	"context"
	"errors"
	"iter"
	"strconv"
	"sync"
)

// FromChan returns a source of what is received from ch, until it is closed. A
// value that was received before the source was told to stop waits for room
// until the stream ends; only then is it lost, for a channel takes nothing back.
func FromChan[T any](ch <-chan T) Source[T] {
	return func(ctx context.Context, emit Emit[T]) error {
		for {
			select {
			case v, ok := <-ch:
				if !ok {
					return nil
				}
				if err := emit(context.WithoutCancel(ctx), v); err != nil {
					return err
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// FromSeq returns a source of what seq yields. It can be told to stop only when
// it yields.
func FromSeq[T any](seq iter.Seq[T]) Source[T] {
	return func(ctx context.Context, emit Emit[T]) error {
		for v := range seq {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := emit(ctx, v); err != nil {
				return err
			}
		}
		return nil
	}
}

// Merge returns a channel of what is received from all of chans. It is closed
// once, when all of them are closed or ctx has ended and every goroutine has
// left. Whoever stops reading must end ctx; then one value of each channel may
// be lost.
func Merge[T any](ctx context.Context, chans ...<-chan T) <-chan T {
	out := make(chan T)
	var forwarders sync.WaitGroup
	for _, ch := range chans {
		forwarders.Go(func() { forward(ctx, out, ch) })
	}
	go func() {
		forwarders.Wait()
		close(out)
	}()
	return out
}

func forward[T any](ctx context.Context, out chan<- T, in <-chan T) {
	for {
		select {
		case v, ok := <-in:
			if !ok {
				return
			}
			select {
			case out <- v:
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// MergeSeq returns an iterator over what all of seqs yield, which run
// concurrently. It ends when they have, or with ctx. Leaving it early stops
// them, each when it next yields; no goroutine is left when the loop has ended.
// A panic in one of them is raised again in the loop, as a
// *PanicError.
func MergeSeq[T any](ctx context.Context, seqs ...iter.Seq[T]) iter.Seq[T] {
	return func(yield func(T) bool) {
		m := New[T](Config[T]{Grace: -1, Undelivered: func([]T) {}})
		for i, seq := range seqs {
			if _, err := m.Add(strconv.Itoa(i), FromSeq(seq)); err != nil {
				panic(err) // not closed yet
			}
		}
		m.Close()
		served := make(chan error, 1)
		go func() { served <- m.Serve(ctx) }()
		defer func() {
			m.Stop()
			var p *PanicError
			if errors.As(<-served, &p) {
				panic(p)
			}
		}()
		for v := range m.All(ctx) {
			if !yield(v) {
				return
			}
		}
	}
}
