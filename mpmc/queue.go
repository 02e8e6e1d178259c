package mpmc

import (
	"sync/atomic"
	"unsafe"
)

// A queue is the part of a Chan that never waits: a list of blocks with a lock
// at each end. Senders meet only at the tail and receivers only at the head; one
// end looks at the other's position only when what it remembers of it is used
// up, so that while items wait, the two touch no cache line in common.
type queue[T any] struct {
	limit uint64 // most items at a time; 0 if unbounded
	mask  uint64 // slots in a block - 1, a power of two - 1
	spare spareBlocks[T]

	_    [cacheLine]byte
	tail end[T]
	_    [cacheLine]byte
	head end[T]
	_    [cacheLine]byte
}

// An end is the tail or the head. All but its position belongs to whoever holds
// the position's lock.
type end[T any] struct {
	position
	block *block[T]
	slots []T    // of block
	seen  uint64 // the other end's index when it was last looked at
}

// A block holds consecutive items. Its slots that hold no item are zero, so that
// nothing that was received is kept alive.
type block[T any] struct {
	slots []T
	next  *block[T] // written before an item in next can be seen
	spare *block[T] // below this one among the spare blocks
	depth int       // how many spare blocks there are with this one on top
}

const (
	cacheLine = 128 // two lines: processors fetch them in pairs

	// A block is big enough for the processor to see that it is read in order, and
	// for its making to cost nothing per item.
	blockBytes = 8 << 10
	minBlock   = 1 << 5 // slots
	maxBlock   = 1 << 10
	// maxSpare blocks, half a megabyte, are kept for the next burst.
	maxSpare = 64
)

func (q *queue[T]) init(limit uint64) {
	var item T
	slots := uint64(maxBlock)
	for slots > minBlock && (slots*uint64(unsafe.Sizeof(item)) > blockBytes || limit != 0 && slots/2 >= limit) {
		slots /= 2
	}
	q.limit, q.mask = limit, slots-1
	// Both ends stand before the first block, which the first item makes.
	q.tail.block = new(block[T])
	q.head.block = q.tail.block
}

// push adds v at the tail. It returns ErrFull or ErrClosed if it cannot.
func (q *queue[T]) push(v T) error {
	s, ok := q.tail.tryLock()
	if !ok {
		s = q.tail.lockContended()
	}
	i := s.index()
	if s.closed() {
		q.tail.unlock(s, i)
		return ErrClosed
	}
	if q.limit != 0 && q.room(i, 1) == 0 {
		q.tail.unlock(s, i)
		return ErrFull
	}
	if i&q.mask == 0 {
		q.extend()
	}
	q.tail.slots[i&q.mask] = v
	q.tail.unlock(s, i+1)
	return nil
}

// pushSome adds items from the front of vs, at most a block of them, and returns
// how many: at least one, or ErrFull or ErrClosed.
func (q *queue[T]) pushSome(vs []T) (int, error) {
	s := q.tail.lock()
	i := s.index()
	if s.closed() {
		q.tail.unlock(s, i)
		return 0, ErrClosed
	}
	n := min(uint64(len(vs)), q.mask+1)
	if q.limit != 0 {
		if n = min(n, q.room(i, n)); n == 0 {
			q.tail.unlock(s, i)
			return 0, ErrFull
		}
	}
	for rest := vs[:n]; len(rest) > 0; {
		if i&q.mask == 0 {
			q.extend()
		}
		k := copy(q.tail.slots[i&q.mask:], rest)
		rest = rest[k:]
		i += uint64(k)
	}
	q.tail.unlock(s, i)
	return int(n), nil
}

// room returns how many places are free for a tail at i: exactly, or at least
// want of them.
func (q *queue[T]) room(i, want uint64) uint64 {
	if q.limit-(i-q.tail.seen) < want {
		q.tail.seen = q.head.load().index()
	}
	return q.limit - (i - q.tail.seen)
}

// extend moves the tail to a fresh block.
func (q *queue[T]) extend() {
	b := q.spare.pop()
	if b == nil {
		b = &block[T]{slots: make([]T, q.mask+1)}
	}
	q.tail.block.next = b
	q.tail.block, q.tail.slots = b, b.slots
}

// pop takes the item at the head. It returns ErrEmpty, or ErrClosed once the
// queue is closed and nothing is left.
func (q *queue[T]) pop() (v T, err error) {
	s, ok := q.head.tryLock()
	if !ok {
		s = q.head.lockContended()
	}
	i := s.index()
	if i == q.head.seen {
		if err = q.look(i); err != nil {
			q.head.unlock(s, i)
			return v, err
		}
	}
	if i&q.mask == 0 {
		q.advance()
	}
	slot := &q.head.slots[i&q.mask]
	var zero T
	v, *slot = *slot, zero
	q.head.unlock(s, i+1)
	return v, nil
}

// popSome takes items from the head into buf and returns how many: at least one,
// or an error as pop does.
func (q *queue[T]) popSome(buf []T) (int, error) {
	s := q.head.lock()
	i := s.index()
	if q.head.seen-i < uint64(len(buf)) {
		if err := q.look(i); err != nil {
			q.head.unlock(s, i)
			return 0, err
		}
	}
	n := min(uint64(len(buf)), q.head.seen-i)
	for rest := buf[:n]; len(rest) > 0; {
		if i&q.mask == 0 {
			q.advance()
		}
		at := i & q.mask
		k := copy(rest, q.head.slots[at:])
		clear(q.head.slots[at : at+uint64(k)])
		rest = rest[k:]
		i += uint64(k)
	}
	q.head.unlock(s, i)
	return int(n), nil
}

// look reads the tail for a head at i, and returns an error if there is no item.
func (q *queue[T]) look(i uint64) error {
	tail := q.tail.load()
	q.head.seen = tail.index()
	switch {
	case q.head.seen != i:
		return nil
	case tail.closed():
		return ErrClosed
	default:
		return ErrEmpty
	}
}

// advance moves the head to the next block and puts the used one by.
func (q *queue[T]) advance() {
	b := q.head.block
	next := b.next
	b.next = nil // an old block must not keep younger ones alive
	q.head.block, q.head.slots = next, next.slots
	if b.slots != nil {
		q.spare.push(b)
	}
}

// len returns how many items there were at one moment during the call.
func (q *queue[T]) len() int {
	for {
		head := q.head.load().index()
		tail := q.tail.load().index()
		if q.head.load().index() == head {
			return int(tail - head)
		}
	}
}

// idle and full are for those who pass a wake-up on: what changes just after they
// looked is announced by whoever changes it.

// idle reports whether a receiver has nothing to come for: no item is there and
// the queue is not closed.
func (q *queue[T]) idle() bool {
	head := q.head.load().index()
	tail := q.tail.load()
	return tail.index() == head && !tail.closed()
}

// full reports whether a sender has nothing to come for: no place is free and
// the queue is not closed.
func (q *queue[T]) full() bool {
	if q.limit == 0 {
		return false
	}
	head := q.head.load().index()
	tail := q.tail.load()
	return tail.index()-head >= q.limit && !tail.closed()
}

// spareBlocks is a stack of empty blocks. Only the head's holder pushes and only
// the tail's holder pops: with one popper a block cannot leave and come back
// while a pop is under way, so that comparing pointers is enough.
type spareBlocks[T any] struct {
	top atomic.Pointer[block[T]]
}

func (s *spareBlocks[T]) push(b *block[T]) {
	for {
		top := s.top.Load()
		b.spare, b.depth = top, 1
		if top != nil {
			if top.depth >= maxSpare {
				return // enough: the collector has it
			}
			b.depth += top.depth
		}
		if s.top.CompareAndSwap(top, b) {
			return
		}
	}
}

func (s *spareBlocks[T]) pop() *block[T] {
	for {
		top := s.top.Load()
		if top == nil || s.top.CompareAndSwap(top, top.spare) {
			return top
		}
	}
}
