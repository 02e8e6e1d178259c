package seglog

import "sync"

// Tail is the memory that the recent ends of all logs of a broker share: when they
// hold more than its budget together, the oldest blocks are dropped and will be read
// from their files.
type Tail struct {
	mu     sync.Mutex
	budget int64
	held   int64
	oldest []held // a queue: the front is at head
	head   int
}

type held struct {
	log *Log
	seg *segment
	b   *block
}

// NewTail returns a Tail that keeps about as many bytes in memory.
func NewTail(budget int64) *Tail { return &Tail{budget: budget} }

// add takes charge of blocks that are full and committed, and drops older ones in
// exchange. The caller holds no lock.
func (t *Tail) add(full []held) {
	if len(full) == 0 {
		return
	}
	var drop []held
	t.mu.Lock()
	for _, h := range full {
		t.held += int64(cap(h.b.buf))
		t.oldest = append(t.oldest, h)
	}
	for t.held > t.budget && t.head < len(t.oldest) {
		h := t.oldest[t.head]
		t.oldest[t.head] = held{}
		t.head++
		t.held -= int64(cap(h.b.buf))
		drop = append(drop, h)
	}
	if t.head > len(t.oldest)/2 {
		n := copy(t.oldest, t.oldest[t.head:])
		clear(t.oldest[n:])
		t.oldest, t.head = t.oldest[:n], 0
	}
	t.mu.Unlock()
	for _, h := range drop {
		h.log.forget(h.seg, h.b)
	}
}
