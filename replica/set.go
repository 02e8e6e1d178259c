package replica

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"

	"github.com/millrace/millrace/mpmc"
	"github.com/millrace/millrace/supervise"
)

// Set is a set of replicas over one queue. Its methods may be called by any
// goroutine.
type Set[T any] struct {
	queue   *mpmc.Chan[T]
	handler Handler[T]
	cfg     Config[T]
	front   front[T] // lost messages, ahead of the queue

	started chan struct{} // closed when Serve has begun
	done    chan struct{} // closed when Serve has ended
	changed chan struct{} // tells Serve to look; has room for one token
	group   sync.WaitGroup

	mu      sync.Mutex // protects all below; never held while waiting or calling out
	serving bool
	ctx     context.Context // of Serve, with cancel
	cancel  context.CancelCauseFunc
	slots   []*slot[T] // by number, with those that are leaving
	serial  uint64     // of the replica that was started last
	gone    Counts     // of the replicas that have left
	ending  bool       // no replica is started any more
	drained bool       // the queue was found closed and empty
	failure error      // why the set gives up
	stuck   []stuck    // abandoned and not returned
}

type stuck struct {
	*hand
	supervise.Stuck
}

// New returns a Set that handles the messages of queue. Nothing runs until Serve
// is called.
func New[T any](queue *mpmc.Chan[T], handler Handler[T], cfg Config[T]) *Set[T] {
	cfg.Supervise = cfg.Supervise.WithDefaults()
	cfg.Supervise.Restart = supervise.Transient // nil means that a replica has retired
	if cfg.Supervise.Name == "" {
		cfg.Supervise.Name = "replica"
	}
	if cfg.Failed == nil {
		cfg.Failed = func(T, error) {}
	}
	s := &Set[T]{
		queue: queue, handler: handler, cfg: cfg,
		started: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}, 1),
	}
	if cfg.Lost == nil {
		s.cfg.Lost = s.again
	}
	return s
}

// Serve runs the replicas until ctx ends, Shutdown is called, or the queue is
// closed and empty and every replica has left. It returns when all of their
// goroutines have, but for those that are counted as abandoned. It may be called
// once; then it returns ErrServed. When ctx ends the replicas stop at once, by
// the end of their contexts; Shutdown lets them finish.
//
// It returns nil after Shutdown and at the end of the queue; context.Cause(ctx)
// when ctx has ended; a *supervise.IntensityError when a replica was restarted
// too often; a *supervise.AbandonedError, wrapping these, when goroutines are left
// behind or there are too many of them. An *UnhandledError is joined to it.
func (s *Set[T]) Serve(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer close(s.done)
	told := s.ctx.Done()
	for !s.over() {
		select {
		case <-s.changed:
		case <-told:
			told = nil
			s.end()
		}
	}
	s.group.Wait()
	err := s.result()
	s.cancel(nil)
	if rest := s.front.takeAll(); len(rest) > 0 {
		err = errors.Join(err, &UnhandledError[T]{Messages: rest})
	}
	return err
}

func (s *Set[T]) begin(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving {
		return ErrServed
	}
	s.serving = true
	if s.ending {
		ctx = context.WithoutCancel(ctx) // shut down before it began: that is all
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	for range s.cfg.Replicas {
		if !s.ending {
			s.start()
		}
	}
	close(s.started)
	return nil
}

// over reports whether Serve has nothing more to wait for, and stops everything
// if the set has failed.
func (s *Set[T]) over() bool {
	s.mu.Lock()
	failure := s.failure
	over := (s.ending || s.drained) && len(s.slots) == 0
	if over {
		s.ending = true // or a replica might start that nobody waits for
	}
	s.mu.Unlock()
	if failure != nil {
		s.cancel(failure)
	}
	return over
}

// end says that no replica is started any more.
func (s *Set[T]) end() {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	s.look()
}

func (s *Set[T]) result() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.failure
	if err == nil && s.ctx.Err() != nil {
		err = context.Cause(s.ctx)
	}
	if errors.Is(err, errDeadline) {
		err = nil // Shutdown tells it to who called it
	}
	var tooMany *supervise.AbandonedError
	if len(s.stuck) > 0 && !errors.As(err, &tooMany) {
		err = s.abandoned(err)
	}
	return err
}

// abandoned returns the error that tells of the abandoned goroutines. It is
// called with s.mu held.
func (s *Set[T]) abandoned(cause error) error {
	e := &supervise.AbandonedError{Name: s.cfg.Supervise.Name, Cause: cause}
	for _, one := range s.stuck {
		e.Stuck = append(e.Stuck, one.Stuck)
	}
	return e
}

// start starts one replica. It is called with s.mu held.
func (s *Set[T]) start() *slot[T] {
	number := 1
	for number <= len(s.slots) && s.slots[number-1].number == number {
		number++
	}
	sl := newSlot(s, number)
	s.slots = slices.Insert(s.slots, number-1, sl)
	s.group.Go(sl.serve)
	return sl
}

// left takes a replica that has left out of the set. If err is not nil, the
// whole set gives up.
func (s *Set[T]) left(sl *slot[T], err error) {
	s.mu.Lock()
	s.slots = slices.DeleteFunc(s.slots, func(one *slot[T]) bool { return one == sl })
	s.gone.add(sl.counts())
	if err != nil && s.failure == nil {
		s.failure = err
		s.ending = true
	}
	s.mu.Unlock()
	close(sl.gone)
	s.look()
}

// Queue returns the queue whose messages the set handles.
func (s *Set[T]) Queue() *mpmc.Chan[T] { return s.queue }

// Size returns how many replicas there are, without those that are leaving.
func (s *Set[T]) Size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.those(stay))
}

// Busy returns how many replicas have a message in hand.
func (s *Set[T]) Busy() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, sl := range s.slots {
		if busy, _ := sl.busy(); busy {
			n++
		}
	}
	return n
}

// Counts returns how many messages came to which end since the set was made.
func (s *Set[T]) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := s.gone
	for _, sl := range s.slots {
		total.add(sl.counts())
	}
	return total
}

// Replicas returns the replicas by number, with those that are leaving.
func (s *Set[T]) Replicas() []Status {
	s.mu.Lock()
	slots := slices.Clone(s.slots)
	s.mu.Unlock()
	all := make([]Status, len(slots))
	for i, sl := range slots {
		all[i] = sl.status()
	}
	return all
}

// Abandoned returns the goroutines that the set has abandoned and that have not
// returned, those of replicas that have left among them.
func (s *Set[T]) Abandoned() []supervise.Stuck {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]supervise.Stuck, len(s.stuck))
	for i, one := range s.stuck {
		all[i] = one.Stuck
	}
	return all
}

// again gives a lost message to the next free replica.
func (s *Set[T]) again(msg T, _ error) {
	s.front.push(msg)
	s.mu.Lock()
	slots := slices.Clone(s.slots)
	s.mu.Unlock()
	for _, sl := range slots {
		sl.interrupt()
	}
}

// abandon counts a goroutine as abandoned, and gives up when there are too many.
func (s *Set[T]) abandon(h *hand, one supervise.Stuck, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.gone {
		return // it has returned just now
	}
	s.stuck = append(s.stuck, stuck{h, one})
	if s.failure == nil && len(s.stuck) > max(0, s.cfg.Supervise.MaxAbandoned) {
		s.failure = s.abandoned(cause)
		s.ending = true
		s.look()
	}
}

// backFrom records that a goroutine has returned, abandoned or not.
func (s *Set[T]) backFrom(h *hand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.gone = true
	s.stuck = slices.DeleteFunc(s.stuck, func(one stuck) bool { return one.hand == h })
}

// drain records that the queue was found closed and empty.
func (s *Set[T]) drain() {
	s.mu.Lock()
	s.drained = true
	s.mu.Unlock()
	s.look()
}

func (s *Set[T]) look() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (c *Counts) add(d Counts) {
	c.Handled += d.Handled
	c.Failed += d.Failed
	c.Lost += d.Lost
}

// unlimited is the MaxAbandoned of one replica: the set counts for all of them.
const unlimited = math.MaxInt
