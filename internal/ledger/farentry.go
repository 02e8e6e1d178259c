package ledger

import (
	"encoding/binary"
	"math/bits"
)

// encodeRuns appends to dst what encode draws of the runs.
func (e *entry) encodeRuns(dst []byte) []byte {
	if !e.newRuns {
		return binary.AppendUvarint(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.runs))+1)
	last := uint64(0)
	for i := range e.runs {
		r := &e.runs[i]
		dst = binary.AppendUvarint(dst, r.ID-last)
		dst = binary.AppendUvarint(dst, r.At)
		dst = binary.AppendUvarint(dst, r.Left)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(r.Due))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(r.after))
		dst = binary.AppendUvarint(dst, r.below)
		last = r.ID
	}
	return dst
}

func (d *decoder) runs(e *entry) {
	n := d.uvarint()
	if n == 0 {
		return
	}
	e.newRuns = true
	last := uint64(0)
	for range n - 1 {
		r := Run{ID: last + d.uvarint(), At: d.upTo(endOfSeqs), Left: d.upTo(endOfSeqs)}
		r.Due, r.after = d.time(), d.time()
		r.below = d.upTo(endOfSeqs)
		if d.bad = d.bad || r.ID <= last || r.Left == 0; d.bad {
			return
		}
		e.runs = append(e.runs, r)
		last = r.ID
	}
}

// time is 8 bytes.
func (d *decoder) time() int64 {
	if d.bad || len(d.rest) < 8 {
		d.bad = true
		return 0
	}
	v := binary.LittleEndian.Uint64(d.rest)
	d.rest = d.rest[8:]
	return int64(v)
}

// encodeFar appends to dst what encode draws of the far messages.
func (e *entry) encodeFar(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(e.far.blocks)))
	last := e.floor >> blockBits
	for b := range e.far.inOrder(0, endOfSeqs) {
		dst = binary.AppendUvarint(dst, b.index-last)
		dst = b.encode(dst)
		last = b.index
	}
	return dst
}

// encode appends to dst the bits as runs, or as bits if that is less.
func (b *block) encode(dst []byte) []byte {
	start := len(dst)
	runs := b.bits.runs(nil, 0)
	dst = binary.AppendUvarint(dst, uint64(len(runs)))
	last := uint64(0)
	for _, s := range runs {
		dst = binary.AppendUvarint(dst, s.lo-last)
		dst = binary.AppendUvarint(dst, s.hi-s.lo)
		last = s.hi
	}
	if len(dst)-start <= 1+blockSize/8 {
		return dst
	}
	dst = append(dst[:start], 0)
	for _, word := range b.bits {
		dst = binary.LittleEndian.AppendUint64(dst, word)
	}
	return dst
}

func (d *decoder) far(e *entry) {
	n := d.uvarint()
	d.bad = d.bad || n == 0
	last := e.floor >> blockBits
	for i := range n {
		b := block{index: last + d.upTo(endOfSeqs>>blockBits-1-last)}
		d.block(&b)
		if d.bad = d.bad || b.count == 0 || i > 0 && b.index == last; d.bad {
			return
		}
		e.far.addBlock(&b)
		last = b.index
	}
}

func (d *decoder) block(b *block) {
	m := d.uvarint()
	if m == 0 {
		for w := range b.bits {
			b.bits[w] = uint64(d.time())
			b.count += bits.OnesCount64(b.bits[w])
		}
		return
	}
	last := uint64(0)
	for i := range m {
		lo := last + d.upTo(blockSize-last)
		hi := lo + d.upTo(blockSize-lo)
		if d.bad = d.bad || lo == hi || i > 0 && lo == last; d.bad {
			return
		}
		b.set(lo, hi)
		last = hi
	}
}
