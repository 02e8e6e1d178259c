package replica

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/mpmc"
	"github.com/millrace/millrace/supervise"
)

var (
	// errInterrupted ends the wait of an idle replica, so that it looks around.
	errInterrupted = errors.New("replica: interrupted")
	// errLeft ends the supervision of a replica that is to leave and has no
	// generation that could do so by itself.
	errLeft = errors.New("replica: left")
)

// slot is one replica: a number, a supervisor, and the generation that is there
// at the time.
type slot[T any] struct {
	set        *Set[T]
	number     int
	serial     uint64
	supervisor *supervise.Supervisor
	ctx        context.Context // of the supervisor
	cancel     context.CancelCauseFunc
	ready      chan struct{} // closed when the first generation waits for messages
	gone       chan struct{} // closed when the replica has left
	leaving    atomic.Bool   // it takes no more messages

	handled, failed, lost atomic.Uint64

	mu   sync.Mutex  // protects all below; never held while waiting or calling
	held *holding[T] // of the latest generation
	over bool        // that generation has exited or was given up
}

// holding is what one generation has in hand, with the message. The message is
// written while the hand is empty, and read by whoever claims its end.
type holding[T any] struct {
	hand
	msg T

	wait      context.Context // of waiting for a message; protected by slot.mu
	interrupt context.CancelCauseFunc
}

// newSlot is called with set.mu held.
func newSlot[T any](set *Set[T], number int) *slot[T] {
	set.serial++
	sl := &slot[T]{set: set, number: number, serial: set.serial, ready: make(chan struct{}), gone: make(chan struct{})}
	sl.ctx, sl.cancel = context.WithCancelCause(set.ctx)
	cfg := set.cfg.Supervise
	cfg.Name += "#" + strconv.Itoa(number)
	cfg.MaxAbandoned = unlimited
	cfg.OnEvent = sl.event
	sl.supervisor = supervise.New(sl.run, cfg)
	return sl
}

// serve is the slot's goroutine: it supervises the replica until it has left.
func (sl *slot[T]) serve() {
	err := sl.supervisor.Serve(sl.ctx)
	if sl.ctx.Err() != nil {
		err = nil // told to stop; what was abandoned is counted by the set
	}
	sl.cancel(nil)
	sl.leaving.Store(true)
	sl.set.left(sl, err)
}

// run is the work of one generation: one message after the other.
func (sl *slot[T]) run(ctx context.Context, p *supervise.Pulse) error {
	h := &holding[T]{hand: hand{pulse: p, number: sl.number, quiet: make(chan struct{}, 1)}}
	h.word.Store(ended)
	h.lose = func(err error) { sl.lose(h, err) }
	defer sl.set.backFrom(&h.hand)
	p.Idle()
	sl.enter(ctx, h)
	ctx = context.WithValue(ctx, handKey{}, &h.hand)
	for sl.take(ctx, h) {
		h.begin()
		if !p.Busy() {
			// Given up while it was receiving, it may not begin the message.
			if h.claim() {
				sl.lose(h, supervise.ErrFenced)
			}
			break
		}
		err := sl.set.handler(ctx, h.msg)
		p.Idle() // callbacks may take their time too
		if !sl.finish(h, err) {
			break
		}
	}
	return context.Cause(ctx) // nil unless it was told to stop
}

// enter makes h what the current generation has in hand.
func (sl *slot[T]) enter(ctx context.Context, h *holding[T]) {
	h.renew(ctx)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.held == nil {
		close(sl.ready)
	}
	sl.held, sl.over = h, false
}

func (h *holding[T]) renew(ctx context.Context) {
	h.wait, h.interrupt = context.WithCancelCause(ctx)
}

// take waits for the next message: a lost one, or one from the queue. It reports
// false if the replica is to leave. An interrupted wait looks again at all that
// it could have been interrupted for.
func (sl *slot[T]) take(ctx context.Context, h *holding[T]) bool {
	for !sl.leaving.Load() && ctx.Err() == nil {
		if msg, ok := sl.set.front.pop(); ok {
			h.msg = msg
			return true
		}
		msg, err := sl.set.queue.Recv(h.wait)
		if err == nil {
			h.msg = msg
			return true
		}
		if errors.Is(err, mpmc.ErrClosed) {
			sl.set.drain()
			return false
		}
		sl.mu.Lock()
		h.renew(ctx)
		sl.mu.Unlock()
	}
	return false
}

// finish brings the message to its end after the handler returned err. It
// reports false if that had been decided: this generation was given up.
func (sl *slot[T]) finish(h *holding[T], err error) bool {
	if h.word.Load() >= emission {
		h.waitQuiet()
	}
	if !h.claim() && h.word.Load()&emitted == 0 {
		return false
	}
	w := h.word.Or(ended)
	msg := h.msg
	var zero T
	h.msg = zero

	retire := err != nil && errors.Is(err, ErrRetire)
	switch {
	case w&(emitted|refused) == refused:
		sl.lost.Add(1)
		sl.set.cfg.Lost(msg, *h.why.Load())
	case err == nil || retire || w&emitted != 0:
		sl.handled.Add(1)
	default:
		sl.failed.Add(1)
		sl.set.cfg.Failed(msg, err)
	}
	if retire {
		sl.leaving.Store(true)
	}
	return true
}

// lose ends the message in hand as lost. The caller has claimed it.
func (sl *slot[T]) lose(h *holding[T], err error) {
	sl.lost.Add(1)
	sl.set.cfg.Lost(h.msg, err)
}

// event is told by the supervisor what happens to the replica. A generation that
// has exited or was given up loses the message that it had in hand.
func (sl *slot[T]) event(e supervise.Event) {
	switch e.Kind {
	case supervise.Silent, supervise.Exited, supervise.Abandoned:
		sl.mu.Lock()
		h := sl.held
		sl.over = true
		sl.mu.Unlock()
		if h == nil || h.pulse.Generation() != e.Generation {
			break
		}
		if e.Kind == supervise.Abandoned {
			sl.set.abandon(&h.hand, supervise.Stuck{Generation: e.Generation, Since: e.Time, Stack: e.Stack}, e.Err)
		}
		if h.claim() {
			sl.lose(h, why(e.Err))
		}
		if sl.leaving.Load() {
			sl.cancel(errLeft) // it is not replaced
		}
	}
	sl.set.cfg.Supervise.OnEvent(e)
}

// why returns err, or what to say where there is nothing to say.
func why(err error) error {
	if err == nil {
		return supervise.ErrReturned
	}
	return err
}

// leave makes a replica that is marked as leaving leave: by itself, after the
// message it is on, or at once if no generation of it is there.
func (sl *slot[T]) leave() {
	sl.mu.Lock()
	there := sl.held != nil && !sl.over
	sl.mu.Unlock()
	if !there {
		sl.cancel(errLeft)
		return
	}
	sl.interrupt()
}

// interrupt makes an idle replica look around.
func (sl *slot[T]) interrupt() {
	sl.mu.Lock()
	h := sl.held
	var interrupt context.CancelCauseFunc
	if h != nil {
		interrupt = h.interrupt
	}
	sl.mu.Unlock()
	if interrupt != nil {
		interrupt(errInterrupted)
	}
}

// busy reports whether a message is in hand, and since when.
func (sl *slot[T]) busy() (bool, time.Time) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.held == nil || sl.over || sl.held.empty() {
		return false, time.Time{}
	}
	return true, sl.held.pulse.BusySince()
}

func (sl *slot[T]) counts() Counts {
	return Counts{Handled: sl.handled.Load(), Failed: sl.failed.Load(), Lost: sl.lost.Load()}
}

func (sl *slot[T]) status() Status {
	st := Status{
		Status: sl.supervisor.Status(), Number: sl.number, Serial: sl.serial, Leaving: sl.leaving.Load(), Counts: sl.counts(),
	}
	st.Busy, st.Since = sl.busy()
	return st
}
