package ledger

import (
	"iter"
	"slices"
)

// A parked message is one that waits to be delivered again: for its time, or only for
// its turn.
type parked struct {
	due     int64 // givenBack when it never waited for a time, else also when that has come
	seq     uint64
	attempt uint32 // how often it was delivered already
}

// givenBack is the due time of a message that has none.
const givenBack = -1 << 63

// A queue is first in, first out.
type queue struct {
	ring  []parked // its length is 0 or a power of two
	head  int
	count int
}

func (q *queue) push(p parked) {
	if q.count == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.count)&(len(q.ring)-1)] = p
	q.count++
}

func (q *queue) grow() {
	ring := make([]parked, max(16, 2*len(q.ring)))
	n := copy(ring, q.ring[q.head:])
	copy(ring[n:], q.ring[:q.head])
	q.ring, q.head = ring, 0
}

// peek is the first. There must be one.
func (q *queue) peek() parked { return q.ring[q.head] }

// keptRing is up to how many places an empty queue keeps for the next time.
const keptRing = 1024

func (q *queue) pop() parked {
	p := q.ring[q.head]
	q.head = (q.head + 1) & (len(q.ring) - 1)
	if q.count--; q.count == 0 && len(q.ring) > keptRing {
		*q = queue{}
	}
	return p
}

// all is the queue from the first to the last.
func (q *queue) all() iter.Seq[parked] {
	return func(yield func(parked) bool) {
		for i := range q.count {
			if !yield(q.ring[(q.head+i)&(len(q.ring)-1)]) {
				return
			}
		}
	}
}

// keep removes all that keep says false of.
func (q *queue) keep(keep func(parked) bool) {
	for range q.count {
		if p := q.pop(); keep(p) {
			q.push(p)
		}
	}
}

// A schedule is a binary heap: first the earliest due, and of these the oldest.
type schedule []parked

func (p parked) before(q parked) bool {
	return p.due < q.due || (p.due == q.due && p.seq < q.seq)
}

func (s *schedule) push(p parked) {
	*s = append(*s, p)
	h, i := *s, len(*s)-1
	for i > 0 {
		up := (i - 1) / 2
		if !p.before(h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = p
}

// pop takes the first. There must be one.
func (s *schedule) pop() parked {
	h := *s
	first, last := h[0], len(h)-1
	h[0] = h[last]
	if *s = h[:last]; last > 0 {
		s.sink(0)
	} else if cap(h) > keptRing {
		*s = nil
	}
	return first
}

// sink puts the one at i in its place among those below it.
func (s schedule) sink(i int) {
	p := s[i]
	for {
		down := 2*i + 1
		if down >= len(s) {
			break
		}
		if down+1 < len(s) && s[down+1].before(s[down]) {
			down++
		}
		if !s[down].before(p) {
			break
		}
		s[i] = s[down]
		i = down
	}
	s[i] = p
}

// order makes a heap of messages in any order.
func (s schedule) order() {
	for i := len(s)/2 - 1; i >= 0; i-- {
		s.sink(i)
	}
}

// keep removes all that keep says false of.
func (s *schedule) keep(keep func(parked) bool) {
	*s = slices.DeleteFunc(*s, func(p parked) bool { return !keep(p) })
	s.order()
}
