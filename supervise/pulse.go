package supervise

import (
	"context"
	"sync/atomic"
	"time"
)

// The pulse's word: whether the fence has fallen, whether the worker is idle,
// and how many emissions are under way. Silence fences by a compare-and-swap
// from the word 0 alone, an emission enters by adding to the word and looking at
// what it became. So either the emission came first, and the fence fails, or the
// fence did, and the emission sees it: there is no third order.
//
//	 63                                            2   1   0
//	┌───────────────────────────────────────────────┬────┬────┐
//	│ emissions under way                           │idle│fenc│
//	└───────────────────────────────────────────────┴────┴────┘
const (
	fencedBit uint64 = 1 << iota
	idleBit
	emission
)

// Pulse is how one generation of a worker shows that it lives. Its methods may
// be called by any goroutine; on a nil Pulse they do nothing and never fence, so
// that code meant to be supervised also runs alone.
type Pulse struct {
	word  atomic.Uint64
	last  atomic.Int64 // the last sign of life, in nanoseconds since start
	since atomic.Int64 // when the worker last became busy, the same
	ttl   time.Duration
	start time.Time
	quiet chan struct{} // closed when the generation is over and nothing is being emitted

	given chan error // why it was given up; has room for it

	generation uint64
	_          [48]byte // two pulses never share a cache line: 128 bytes, a size class
}

func newPulse(generation uint64, ttl time.Duration) *Pulse {
	return &Pulse{
		generation: generation, ttl: ttl, start: time.Now(),
		quiet: make(chan struct{}, 1), given: make(chan error, 1),
	}
}

// Generation returns the number of the generation, from 1.
func (p *Pulse) Generation() uint64 {
	if p == nil {
		return 0
	}
	return p.generation
}

// Beat is a sign of life: the TTL starts anew. It costs a clock reading and an
// atomic store.
func (p *Pulse) Beat() {
	if p != nil {
		p.last.Store(int64(time.Since(p.start)))
	}
}

// Idle says that the worker waits for work from now on: it is not silent until
// Busy is called.
func (p *Pulse) Idle() {
	if p != nil {
		p.word.Or(idleBit)
	}
}

// Busy ends what Idle began and is a sign of life. It returns false if the
// generation was fenced meanwhile: the worker should leave what it found.
func (p *Pulse) Busy() bool {
	if p == nil {
		return true
	}
	now := int64(time.Since(p.start))
	p.since.Store(now)
	p.last.Store(now) // before the word, so that the TTL never runs from an old beat
	return p.word.And(^idleBit)&fencedBit == 0
}

// BusySince returns when the worker last became busy: the time of the last call
// of Busy, or that of its start.
func (p *Pulse) BusySince() time.Time {
	if p == nil {
		return time.Time{}
	}
	return p.start.Add(time.Duration(p.since.Load()))
}

// GiveUp abandons the generation, for the reason why: whoever supervises the work more
// closely than a TTL does has told it to stop, and has waited long enough. It is fenced,
// its goroutine counts as abandoned, and the next generation is started. GiveUp does not
// wait for that. It reports false, and does nothing, if the worker is idle or emitting,
// or was fenced before.
func (p *Pulse) GiveUp(why error) bool {
	if p == nil || !p.word.CompareAndSwap(0, fencedBit) {
		return false
	}
	p.given <- why
	return true
}

// Fenced reports whether the fence has fallen.
func (p *Pulse) Fenced() bool { return p != nil && p.word.Load()&fencedBit != 0 }

// BeginEmit begins an emission, during which silence cannot fence this
// generation. It returns ErrFenced if the fence has fallen; if not, EndEmit must
// be called when the value has been delivered or refused. Most use Emit.
func (p *Pulse) BeginEmit() error {
	if p == nil || p.word.Add(emission)&fencedBit == 0 {
		return nil
	}
	p.leave()
	return ErrFenced
}

// EndEmit ends an emission and is a sign of life.
func (p *Pulse) EndEmit() {
	if p == nil {
		return
	}
	if p.ttl > 0 {
		p.Beat() // before the word, as in Busy
	}
	p.leave()
}

// leave takes one emission from the word. The last one to leave a fenced word
// says so to whoever waits for quiet.
func (p *Pulse) leave() {
	if w := p.word.Add(^(emission - 1)); w&fencedBit != 0 && w < emission {
		p.sayQuiet()
	}
}

func (p *Pulse) sayQuiet() {
	select {
	case p.quiet <- struct{}{}:
	default:
	}
}

// fence fences the generation, whatever it is doing. An emission under way may
// still be delivered; waitQuiet returns after it.
func (p *Pulse) fence() {
	if w := p.word.Or(fencedBit); w < emission {
		p.sayQuiet()
	}
}

// waitQuiet returns once the fence has fallen and no emission is under way.
func (p *Pulse) waitQuiet() {
	for p.word.Load()&^idleBit != fencedBit {
		<-p.quiet
	}
}

// fenceIfSilent fences the generation if there was no sign of life for the TTL.
// If there was, it returns how long until the next look: not later than the
// moment at which silence can be certain.
func (p *Pulse) fenceIfSilent() (silent bool, next time.Duration) {
	// The word comes first: were it read after the last beat alone, by the
	// compare-and-swap, a hold of hours that ends in between would look like
	// hours of silence.
	if p.word.Load() != 0 {
		return false, p.ttl // idle or emitting: its end is a sign of life yet to come
	}
	if left := p.ttl - p.sinceBeat(); left > 0 {
		return false, left
	}
	return p.word.CompareAndSwap(0, fencedBit), p.ttl
}

func (p *Pulse) sinceBeat() time.Duration {
	return time.Since(p.start) - time.Duration(p.last.Load())
}

// state returns what the worker of an unfenced generation is doing.
func (p *Pulse) state() State {
	switch w := p.word.Load(); {
	case w >= emission:
		return Emitting
	case w&idleBit != 0:
		return Idle
	default:
		return Running
	}
}

func (p *Pulse) lastBeat() time.Time { return p.start.Add(time.Duration(p.last.Load())) }

// Emit hands v to sink unless the generation has been fenced. It returns nil if
// sink returned nil, so v was delivered; ErrFenced if it was not called; else
// sink's error, which must mean that v was not delivered.
//
// An emission is a sign of life, and while it lasts the worker is not silent.
// The sink should return when ctx, which Emit passes on, ends: an emission under
// way cannot be fenced, and its goroutine counts as running until it returns.
func Emit[T any](ctx context.Context, p *Pulse, v T, sink func(context.Context, T) error) error {
	if err := p.BeginEmit(); err != nil {
		return err
	}
	defer p.EndEmit()
	return sink(ctx, v)
}

type pulseKey struct{}

// FromContext returns the pulse of the innermost supervised worker that ctx was
// given to, or nil.
func FromContext(ctx context.Context) *Pulse {
	p, _ := ctx.Value(pulseKey{}).(*Pulse)
	return p
}

// Beat is a sign of life of the worker that ctx was given to. Without one it
// does nothing.
func Beat(ctx context.Context) { FromContext(ctx).Beat() }
