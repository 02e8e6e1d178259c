package mpmc

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A position is where one end of a queue stands, and the lock on that end, in
// one word: the number of items that ever went through, a closed mark and a
// locked mark. One word means that letting go of the lock and showing the new
// number to the other end is one and the same store, and that closing is
// ordered with every item: none can be counted after the mark.
type position struct {
	word atomic.Uint64

	// crowd holds back all but one of those that found the end locked, so that
	// however many threads want it, two at most fight over the word's cache line.
	crowd sync.Mutex
}

const (
	lockedMark = 1 << iota
	closedMark
	markBits = iota
)

// A state is what a position said at one moment.
type state uint64

func (s state) index() uint64 { return uint64(s) >> markBits }
func (s state) closed() bool  { return s&closedMark != 0 }

func (p *position) load() state { return state(p.word.Load()) }

// lock takes the end and returns where it stands. What is done before unlock
// must be short: others wait for it awake.
func (p *position) lock() state {
	if s, ok := p.tryLock(); ok {
		return s
	}
	return p.lockContended()
}

// tryLock is lock if nobody holds the end. It is small enough to be inlined.
func (p *position) tryLock() (s state, ok bool) {
	w := p.word.Load() &^ lockedMark
	return state(w), p.word.CompareAndSwap(w, w|lockedMark)
}

func (p *position) lockContended() state {
	p.crowd.Lock()
	defer p.crowd.Unlock()
	for {
		for range pause {
		}
		if s, ok := p.tryLock(); ok {
			return s
		}
		// The holder may have lost its processor in the middle: let it run.
		runtime.Gosched()
	}
}

// pause is how many turns of an empty loop one who finds the end locked looks
// away, about a microsecond. Meanwhile another does some fifty items at full
// speed, its cache line undisturbed. Looking again at once would hand that line
// back and forth for every item: a quarter of that pause halves the throughput
// of four senders and four receivers on two cores, and twice of it gains nothing.
const pause = 1 << 12

// unlock lets go of the end at index, with the mark it had.
func (p *position) unlock(s state, index uint64) {
	p.word.Store(index<<markBits | uint64(s)&closedMark)
}

// close marks the end as closed and reports whether it was open before.
func (p *position) close() bool {
	s := p.lock()
	p.word.Store(s.index()<<markBits | closedMark)
	return !s.closed()
}
