package replica

import (
	"context"
	"sync/atomic"

	"github.com/millrace/millrace/supervise"
)

// The word of a message in hand. It has ended, or it has not and nobody has
// decided how it will; whoever sets ended by a compare-and-swap decides. That
// needs a word without emissions, delivered or under way, so a message is lost
// before its value is offered, or after that was refused, or not at all.
//
//	 31                           4     3        2       1      0
//	┌──────────────────────────────┬────────┬───────┬───────┬─────┐
//	│ emissions under way          │returned│refused│emitted│ended│
//	└──────────────────────────────┴────────┴───────┴───────┴─────┘
const (
	ended uint32 = 1 << iota
	emitted
	refused
	returned // the handler has, and its replica waits for the last emission
	emission
)

// hand is what one generation of a replica has in hand: at most one message.
type hand struct {
	pulse  *supervise.Pulse
	number int
	word   atomic.Uint32
	why    atomic.Pointer[error] // the last refusal
	quiet  chan struct{}         // tells who has returned that no emission is under way; has room for one token
	lose   func(error)           // ends the message as lost; its caller has claimed it
	gone   bool                  // the goroutine has returned; protected by Set.mu
}

// begin takes a message in hand. Emissions that come late, from goroutines that a
// handler left behind, are on their way out of the word and stay in it.
func (h *hand) begin() { h.word.And(^(ended | emitted | refused | returned)) }

// claim decides the end of the message, unless that was decided before or a
// value of the message was delivered or may yet be.
func (h *hand) claim() bool {
	for {
		w := h.word.Load()
		if w&^(refused|returned) != 0 {
			return false
		}
		if h.word.CompareAndSwap(w, w|ended) {
			return true
		}
	}
}

// empty reports whether no message is in hand.
func (h *hand) empty() bool { return h.word.Load()&ended != 0 }

func (h *hand) refuse(err error) {
	h.why.Store(&err)
	h.word.Or(refused)
}

// waitQuiet waits for emissions that the handler has left behind in goroutines.
func (h *hand) waitQuiet() {
	h.word.Or(returned)
	for h.word.Load() >= emission {
		<-h.quiet
	}
}

// Emit hands v to sink, as a value of the message that the handler was called
// with; ctx is the handler's, or was derived from it. It returns nil if sink
// did: then v was delivered and the message counts as handled, whatever becomes
// of the replica. It returns supervise.ErrFenced, without calling sink, if the
// replica was replaced meanwhile, or the message has come to its end; else sink's
// error, which must mean that v was not delivered. After an error the message is lost, unless another value of it
// was delivered: Config.Lost is called, once, and the handler can only return.
//
// While sink blocks, the replica is not silent. A handler that emits from
// goroutines must wait for them before it returns. Where there is no replica in
// ctx, Emit calls sink.
func Emit[V any](ctx context.Context, v V, sink func(context.Context, V) error) error {
	h := fromContext(ctx)
	if h == nil {
		return sink(ctx, v)
	}
	if err := h.pulse.BeginEmit(); err != nil {
		h.refuse(err)
		return err
	}
	defer h.pulse.EndEmit()
	if h.word.Add(emission)&ended != 0 {
		h.leave()
		return supervise.ErrFenced
	}
	err := errPanicked // stays, if sink unwinds
	defer func() { h.settle(err) }()
	err = sink(ctx, v)
	return err
}

// settle ends an emission that was delivered or refused. If the replica was given
// up during it, which was then no time to decide the end of the message, it is
// decided now.
func (h *hand) settle(err error) {
	if err == nil {
		h.word.Or(emitted)
	} else {
		h.refuse(err)
	}
	h.leave()
	if err != nil && h.pulse.Fenced() && h.claim() {
		h.lose(err)
	}
}

// leave takes an emission from the word.
func (h *hand) leave() {
	if w := h.word.Add(^(emission - 1)); w < emission && w&returned != 0 {
		select {
		case h.quiet <- struct{}{}:
		default:
		}
	}
}

type handKey struct{}

func fromContext(ctx context.Context) *hand {
	h, _ := ctx.Value(handKey{}).(*hand)
	return h
}

// Number returns the number of the replica that ctx was given to, the lowest
// that was free when it was started, from 1; GNU Parallel's {%}. A replica that
// replaces another keeps its number. Without a replica it returns 0.
func Number(ctx context.Context) int {
	if h := fromContext(ctx); h != nil {
		return h.number
	}
	return 0
}
