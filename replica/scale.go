package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// What to ask those for.
const (
	stay  = false
	leave = true
)

// errDeadline is the cause of the handlers' contexts when Shutdown's context
// ended before they had finished.
var errDeadline = errors.New("replica: shutdown deadline")

// Scale makes the set have n replicas, and returns when the new ones are ready
// for messages, or when those that are too many have left, each after the
// message it is on. With 0, messages wait in the queue. Idle replicas leave
// first. If Serve is not running yet, Scale waits for it.
//
// It returns the cause of ctx if that ends first, and what was begun goes on;
// ErrStopped if the set is shutting down or has ended. When several calls
// overlap, the size is that of the last to begin.
func (s *Set[T]) Scale(ctx context.Context, n int) error {
	if n < 0 {
		return fmt.Errorf("replica: cannot scale to %d replicas", n)
	}
	if err := s.running(ctx); err != nil {
		return err
	}
	fresh, leaving, err := s.resize(n)
	if err != nil {
		return err
	}
	for _, sl := range fresh {
		select {
		case <-sl.ready:
		case <-sl.gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return wait(ctx, leaving)
}

// resize starts replicas, or tells them to leave. It returns those to wait for:
// also those that an earlier call told to leave and did not wait for.
func (s *Set[T]) resize(n int) (fresh, leaving []*slot[T], err error) {
	s.mu.Lock()
	if s.ending {
		s.mu.Unlock()
		return nil, nil, ErrStopped
	}
	staying := s.those(stay)
	for range n - len(staying) {
		fresh = append(fresh, s.start())
	}
	chosen := choose(staying, len(staying)-n)
	if len(fresh) == 0 {
		leaving = s.those(leave)
	}
	s.mu.Unlock()
	for _, sl := range chosen {
		sl.leave()
	}
	return fresh, leaving, nil
}

// Retire makes one replica leave after the message it is on, without replacing
// it, and returns when it has left. An idle replica is preferred. It returns
// ErrNoReplica if there is none, and otherwise the errors of Scale.
func (s *Set[T]) Retire(ctx context.Context) error {
	if err := s.running(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	if s.ending {
		s.mu.Unlock()
		return ErrStopped
	}
	leaving := choose(s.those(stay), 1)
	s.mu.Unlock()
	if len(leaving) == 0 {
		return ErrNoReplica
	}
	leaving[0].leave()
	return wait(ctx, leaving)
}

// RetireReplica makes one certain replica leave after the message it is on, without
// replacing it: the one with that number, if it is still that with the serial (see
// Status). It does not wait until the replica has left. It returns ErrNoReplica if that
// one is not there, or is leaving already, so that each success is another replica;
// ErrStopped if the set is shutting down, has ended or does not serve yet.
func (s *Set[T]) RetireReplica(number int, serial uint64) error {
	s.mu.Lock()
	if s.ending || !s.serving {
		s.mu.Unlock()
		return ErrStopped
	}
	i := slices.IndexFunc(s.slots, func(sl *slot[T]) bool { return sl.number == number && sl.serial == serial })
	if i < 0 || !s.slots[i].leaving.CompareAndSwap(false, true) {
		s.mu.Unlock()
		return ErrNoReplica
	}
	leaving := s.slots[i]
	s.mu.Unlock()
	leaving.leave()
	return nil
}

// Shutdown lets every replica finish the message it is on and leave, and returns
// when Serve is about to; the rest stays in the queue. If ctx ends first, the
// contexts of the handlers end, with the cause of ctx; messages whose handler does
// not finish then are failed or lost as usual, and Shutdown returns that cause.
func (s *Set[T]) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.ending = true
	serving := s.serving
	leaving := s.those(stay)
	for _, sl := range leaving {
		sl.leaving.Store(true)
	}
	s.mu.Unlock()
	if !serving {
		return nil
	}
	for _, sl := range leaving {
		sl.leave()
	}
	s.look()
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	s.cancel(fmt.Errorf("%w: %w", errDeadline, context.Cause(ctx)))
	<-s.done
	return context.Cause(ctx)
}

// running waits until Serve runs.
func (s *Set[T]) running(ctx context.Context) error {
	s.mu.Lock()
	ending := s.ending
	s.mu.Unlock()
	if ending {
		return ErrStopped
	}
	select {
	case <-s.started:
		return nil
	default:
	}
	select {
	case <-s.started:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// those returns the replicas that are leaving, or those that are not. It is
// called with s.mu held.
func (s *Set[T]) those(leaving bool) []*slot[T] {
	var all []*slot[T]
	for _, sl := range s.slots {
		if sl.leaving.Load() == leaving {
			all = append(all, sl)
		}
	}
	return all
}

// choose marks n replicas as leaving and returns them: idle ones first, then
// those with the highest numbers.
func choose[T any](from []*slot[T], n int) []*slot[T] {
	var chosen []*slot[T]
	for _, evenBusy := range []bool{false, true} {
		for i := len(from) - 1; i >= 0 && len(chosen) < n; i-- {
			sl := from[i]
			if busy, _ := sl.busy(); (evenBusy || !busy) && sl.leaving.CompareAndSwap(false, true) {
				chosen = append(chosen, sl)
			}
		}
	}
	return chosen
}

// wait waits until all of the replicas have left.
func wait[T any](ctx context.Context, leaving []*slot[T]) error {
	for _, sl := range leaving {
		select {
		case <-sl.gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
