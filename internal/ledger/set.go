package ledger

import (
	"iter"
	"maps"
	"slices"
)

// A set is sequence numbers, a bit each, in blocks of 4096 of which none is empty.
type set struct {
	blocks map[uint64]*block // by first number / blockSize
	count  int
	last   *block // the block that was used last, nil if it is gone
}

// find is the block with this index, nil if there is none.
func (s *set) find(i uint64) *block {
	if b := s.last; b != nil && b.index == i {
		return b
	}
	b := s.blocks[i]
	if b != nil {
		s.last = b
	}
	return b
}

func (s *set) has(seq uint64) bool {
	if s.count == 0 {
		return false
	}
	b := s.find(seq >> blockBits)
	return b != nil && b.bits[seq%blockSize/64]&(1<<(seq%64)) != 0
}

// add reports whether seq was not in the set before.
func (s *set) add(seq uint64) bool {
	i := seq >> blockBits
	b := s.find(i)
	if b == nil {
		if s.blocks == nil {
			s.blocks = map[uint64]*block{}
		}
		b = &block{index: i}
		s.blocks[i], s.last = b, b
	}
	word, bit := &b.bits[seq%blockSize/64], uint64(1)<<(seq%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	b.count++
	s.count++
	return true
}

// remove reports whether seq was in the set.
func (s *set) remove(seq uint64) bool {
	if !s.has(seq) {
		return false
	}
	b := s.find(seq >> blockBits)
	b.bits[seq%blockSize/64] &^= 1 << (seq % 64)
	b.count--
	s.count--
	s.dropEmpty(b)
	return true
}

// removeRange removes [lo, hi).
func (s *set) removeRange(lo, hi uint64) {
	if lo >= hi || s.count == 0 {
		return
	}
	first, last := lo>>blockBits, (hi-1)>>blockBits
	if last-first < uint64(len(s.blocks)) {
		for i := first; i <= last; i++ {
			s.cut(s.blocks[i], lo, hi)
		}
		return
	}
	for i, b := range s.blocks {
		if first <= i && i <= last {
			s.cut(b, lo, hi)
		}
	}
}

// cut removes from b, which may be nil, what of [lo, hi) is in it.
func (s *set) cut(b *block, lo, hi uint64) {
	if b == nil {
		return
	}
	base, before := b.index<<blockBits, b.count
	b.clear(max(lo, base)-base, min(hi, base+blockSize)-base)
	s.count -= before - b.count
	s.dropEmpty(b)
}

// addBlock adds what b has, of which nothing is in the set. It keeps no reference to b.
func (s *set) addBlock(b *block) {
	if s.blocks == nil {
		s.blocks = map[uint64]*block{}
	}
	s.blocks[b.index] = &block{index: b.index, count: b.count, bits: b.bits}
	s.count += b.count
}

func (s *set) dropEmpty(b *block) {
	if b.count > 0 {
		return
	}
	delete(s.blocks, b.index)
	if s.last == b {
		s.last = nil
	}
}

// after is the first number at or above from that is not in the set.
func (s *set) after(from uint64) uint64 {
	for s.count > 0 {
		i := from >> blockBits
		b := s.find(i)
		if b == nil {
			break
		}
		if from = i<<blockBits + b.firstZero(from%blockSize); from>>blockBits == i {
			break
		}
	}
	return from
}

// reach is above all numbers of the set.
func (s *set) reach() (reach uint64) {
	for i, b := range s.blocks {
		if (i+1)<<blockBits > reach {
			reach = max(reach, i<<blockBits+b.end())
		}
	}
	return reach
}

// inOrder is the blocks that reach into [lo, hi), in ascending order.
func (s *set) inOrder(lo, hi uint64) iter.Seq[*block] {
	return func(yield func(*block) bool) {
		if lo >= hi || s.count == 0 {
			return
		}
		first, last := lo>>blockBits, (hi-1)>>blockBits
		if last-first < uint64(len(s.blocks)) {
			for i := first; i <= last; i++ {
				if b := s.blocks[i]; b != nil && !yield(b) {
					return
				}
			}
			return
		}
		for _, i := range slices.Sorted(maps.Keys(s.blocks)) {
			if first <= i && i <= last && !yield(s.blocks[i]) {
				return
			}
		}
	}
}

// runs is the numbers of [lo, hi).
func (s *set) runs(lo, hi uint64) (runs spans) {
	for b := range s.inOrder(lo, hi) {
		runs = b.bits.runs(runs, b.index<<blockBits)
	}
	if len(runs) > 0 {
		runs = runs.from(lo).below(hi)
	}
	return runs
}
