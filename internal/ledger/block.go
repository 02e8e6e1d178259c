package ledger

import (
	"iter"
	"math/bits"
)

const (
	blockBits = 12
	blockSize = 1 << blockBits
)

type bitmap [blockSize / 64]uint64

// A block is the messages index*blockSize up to, not including, (index+1)*blockSize.
// A bit that is set is one that is done.
type block struct {
	index  uint64
	count  int // of bits that are set
	bits   bitmap
	before *bitmap // bits as the journal has them; nil when it has them all
}

// set sets the bits [lo, hi), of 4096.
func (b *block) set(lo, hi uint64) {
	for w, mask := range masks(lo, hi) {
		b.count += bits.OnesCount64(mask &^ b.bits[w])
		b.bits[w] |= mask
	}
}

// clear clears the bits [lo, hi), of 4096.
func (b *block) clear(lo, hi uint64) {
	for w, mask := range masks(lo, hi) {
		b.count -= bits.OnesCount64(mask & b.bits[w])
		b.bits[w] &^= mask
	}
}

// ones is how many of the bits [lo, hi) are set.
func (b *block) ones(lo, hi uint64) (n int) {
	if lo == 0 && hi == blockSize {
		return b.count
	}
	for w, mask := range masks(lo, hi) {
		n += bits.OnesCount64(mask & b.bits[w])
	}
	return n
}

// firstZero is the first bit at or above from that is not set, or 4096.
func (b *block) firstZero(from uint64) uint64 {
	for from < blockSize {
		n := uint64(bits.TrailingZeros64(^(b.bits[from/64] >> (from % 64))))
		if n < 64-from%64 {
			return from + n
		}
		from = (from/64 + 1) * 64
	}
	return blockSize
}

// members is the numbers whose bits are set, in ascending order.
func (b *block) members() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for w, word := range b.bits {
			for ; word != 0; word &= word - 1 {
				if !yield(b.index<<blockBits + uint64(w*64+bits.TrailingZeros64(word))) {
					return
				}
			}
		}
	}
}

// end is above the last bit that is set, 0 when there is none.
func (b *block) end() uint64 {
	for w := len(b.bits) - 1; w >= 0; w-- {
		if n := bits.Len64(b.bits[w]); n > 0 {
			return uint64(w*64 + n)
		}
	}
	return 0
}

// masks is, for each word that the bits [lo, hi) are in, which of its bits they are.
func masks(lo, hi uint64) iter.Seq2[uint64, uint64] {
	return func(yield func(uint64, uint64) bool) {
		for lo < hi {
			end := min(hi, (lo/64+1)*64)
			if !yield(lo/64, ^uint64(0)>>(64-(end-lo))<<(lo%64)) {
				return
			}
			lo = end
		}
	}
}

// runs appends to dst the runs of bits that are set, the first bit being number base.
func (m *bitmap) runs(dst spans, base uint64) spans {
	for w, word := range m {
		for at := base + uint64(w)*64; word != 0; {
			skip := bits.TrailingZeros64(word)
			run := bits.TrailingZeros64(^(word >> skip))
			lo := at + uint64(skip)
			dst = dst.add(lo, lo+uint64(run))
			word = word >> skip >> run
			at = lo + uint64(run)
		}
	}
	return dst
}
