package ledger

import (
	"iter"
	"slices"
)

// A doneSet is the set of the messages that are done: all below the floor, and some
// above it.
//
// Those above are bits in blocks of 4096. A block that the floor has passed is
// forgotten, and one that is full becomes part of a span. So a floor that is stuck
// below fifty million messages costs six megabytes if one in each block is still to
// be done, and nothing if they are all done.
type doneSet struct {
	floor  uint64            // the first that is not done
	blocks map[uint64]*block // by first number / blockSize; the bits below the floor are set
	full   spans             // of blocks, by the same index; never the one that the floor is in
	last   *block            // the block that was used last, nil if it is gone

	// Since the journal was written last:
	changed []uint64 // the blocks in which bits were set
	filled  spans    // the blocks that became full without the floor passing them

	spareBlocks  pool[block]
	spareBitmaps pool[bitmap]
}

func newDoneSet(floor uint64) doneSet {
	return doneSet{floor: floor, blocks: map[uint64]*block{}}
}

// add marks seq as done, which must not be so already.
func (d *doneSet) add(seq uint64) {
	b := d.block(seq >> blockBits)
	d.touch(b)
	b.bits[seq%blockSize/64] |= 1 << (seq % 64)
	b.count++
	if seq == d.floor {
		d.raise()
	} else if b.count == blockSize {
		d.fill(b)
	}
}

// addRange marks [lo, hi) as done, of which any part may be so already.
func (d *doneSet) addRange(lo, hi uint64) {
	lo = max(lo, d.floor)
	if lo >= hi {
		return
	}
	first, last := (lo+blockSize-1)>>blockBits, hi>>blockBits
	if first > last {
		d.addBits(lo, hi)
	} else {
		d.addBits(lo, first<<blockBits)
		d.addBlocks(first, last)
		d.addBits(last<<blockBits, hi)
	}
	if lo == d.floor {
		d.raise()
	}
}

// addBits is addRange within one block.
func (d *doneSet) addBits(lo, hi uint64) {
	if lo >= hi || d.full.has(lo>>blockBits) {
		return
	}
	b := d.block(lo >> blockBits)
	d.touch(b)
	b.set(lo%blockSize, (hi-1)%blockSize+1)
	if b.count == blockSize && b.index != d.floor>>blockBits {
		d.fill(b)
	}
}

// addBlocks is addRange for whole blocks, from first up to, not including, last.
func (d *doneSet) addBlocks(first, last uint64) {
	if first >= last {
		return
	}
	if last-first < uint64(len(d.blocks)) {
		for i := first; i < last; i++ {
			if b := d.blocks[i]; b != nil {
				d.drop(b)
			}
		}
	} else {
		for i, b := range d.blocks {
			if i >= first && i < last {
				d.drop(b)
			}
		}
	}
	d.full = d.full.add(first, last)
	d.filled = d.filled.add(first, last)
}

// raise moves the floor up to the first message that is not done.
func (d *doneSet) raise() {
	for {
		i := d.floor >> blockBits
		if b := d.find(i); b != nil {
			d.floor = i<<blockBits + b.firstZero(d.floor%blockSize)
			if d.floor>>blockBits == i {
				return
			}
			d.drop(b)
		} else if len(d.full) > 0 && d.full[0].lo <= i {
			d.floor = d.full[0].hi << blockBits
			d.full = slices.Delete(d.full, 0, 1)
		} else {
			return
		}
	}
}

func (d *doneSet) has(seq uint64) bool {
	if seq < d.floor {
		return true
	}
	if b := d.find(seq >> blockBits); b != nil {
		return b.bits[seq%blockSize/64]&(1<<(seq%64)) != 0
	}
	return d.full.has(seq >> blockBits)
}

// truncate forgets what it knows of end and all above, which no list of changes can
// say: the journal must start over.
func (d *doneSet) truncate(end uint64) {
	d.settle()
	i, within := end>>blockBits, end%blockSize
	cut := within != 0 && d.full.has(i)
	d.full = d.full.below(i)
	for index, b := range d.blocks {
		if index > i || (index == i && within == 0) {
			d.drop(b)
		}
	}
	d.floor = min(d.floor, end)
	if cut {
		d.block(i).set(0, within)
	} else if b := d.blocks[i]; b != nil {
		b.clear(within, blockSize)
	}
}

// pieces walks over [lo, hi) above the floor, block by block, in ascending order. Of
// each piece, b has the bits; it is nil when all of them are done, or none.
func (d *doneSet) pieces(lo, hi uint64) iter.Seq2[span, piece] {
	return func(yield func(span, piece) bool) {
		for lo = max(lo, d.floor); lo < hi; {
			i := lo >> blockBits
			end, p := (i+1)<<blockBits, piece{b: d.blocks[i]}
			if p.b == nil {
				var at int
				if at, p.done = d.full.find(i); p.done {
					end = d.full[at].hi << blockBits
				}
			}
			end = min(end, hi)
			if !yield(span{lo, end}, p) {
				return
			}
			lo = end
		}
	}
}

type piece struct {
	b    *block
	done bool // without b: all are done
}

// live is the messages of [lo, hi) that are not done, in ascending order.
func (d *doneSet) live(lo, hi uint64) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for s, p := range d.pieces(lo, hi) {
			for seq := s.lo; seq < s.hi && !p.done; seq++ {
				if p.b != nil {
					if seq += p.b.firstZero(seq%blockSize) - seq%blockSize; seq >= s.hi {
						break
					}
				}
				if !yield(seq) {
					return
				}
			}
		}
	}
}

func (d *doneSet) liveCount(lo, hi uint64) (n int) {
	for s, p := range d.pieces(lo, hi) {
		switch size := int(s.hi - s.lo); {
		case p.b != nil:
			n += size - p.b.ones(s.lo%blockSize, (s.hi-1)%blockSize+1)
		case !p.done:
			n += size
		}
	}
	return n
}

// reach is above all that is done, and at least least.
func (d *doneSet) reach(least uint64) uint64 {
	if n := len(d.full); n > 0 {
		least = max(least, d.full[n-1].hi<<blockBits)
	}
	for _, b := range d.blocks {
		if (b.index+1)<<blockBits > least {
			least = max(least, b.index<<blockBits+b.end())
		}
	}
	return least
}

// runs appends to dst what is done of the messages from the floor up to end.
func (d *doneSet) runs(dst spans, end uint64) spans {
	for s, p := range d.pieces(d.floor, end) {
		if p.b != nil {
			dst = p.b.bits.runs(dst, p.b.index<<blockBits)
		} else if p.done {
			dst = dst.add(s.lo, s.hi)
		}
	}
	return dst.from(d.floor)
}

// changes appends to dst what above the floor was done since the last settle. What
// was done before may be among it.
func (d *doneSet) changes(dst spans) spans {
	for _, s := range d.filled {
		dst = dst.add(s.lo<<blockBits, s.hi<<blockBits)
	}
	slices.Sort(d.changed)
	for _, i := range d.changed {
		b := d.blocks[i]
		if b == nil || b.before == nil {
			continue // below the floor, or among filled
		}
		fresh := *b.before
		for w := range fresh {
			fresh[w] = b.bits[w] &^ fresh[w]
		}
		dst = fresh.runs(dst, i<<blockBits)
	}
	return dst.from(d.floor)
}

// settle says that the journal knows all.
func (d *doneSet) settle() {
	for _, i := range d.changed {
		if b := d.blocks[i]; b != nil && b.before != nil {
			d.spareBitmaps.put(b.before)
			b.before = nil
		}
	}
	d.changed, d.filled = d.changed[:0], d.filled[:0]
}

// find is the block with this index, if there is one.
func (d *doneSet) find(i uint64) *block {
	if b := d.last; b != nil && b.index == i {
		return b
	}
	b := d.blocks[i]
	if b != nil {
		d.last = b
	}
	return b
}

// block is find, or a new block. It must not be one that is done.
func (d *doneSet) block(i uint64) *block {
	if b := d.find(i); b != nil {
		return b
	}
	b := d.spareBlocks.get()
	*b = block{index: i}
	if i == d.floor>>blockBits {
		b.set(0, d.floor%blockSize)
	}
	d.blocks[i], d.last = b, b
	return b
}

// touch remembers what the journal knows of b, which is about to change.
func (d *doneSet) touch(b *block) {
	if b.before == nil {
		b.before = d.spareBitmaps.get()
		*b.before = b.bits
		d.changed = append(d.changed, b.index)
	}
}

// fill makes a full block a part of a span.
func (d *doneSet) fill(b *block) {
	d.full = d.full.add(b.index, b.index+1)
	d.filled = d.filled.add(b.index, b.index+1)
	d.drop(b)
}

// drop forgets a block: the floor or full says the same.
func (d *doneSet) drop(b *block) {
	delete(d.blocks, b.index)
	if d.last == b {
		d.last = nil
	}
	if b.before != nil {
		d.spareBitmaps.put(b.before)
		b.before = nil
	}
	d.spareBlocks.put(b)
}
