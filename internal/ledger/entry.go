package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrCorrupt is returned, wrapped, by Replay for what is not an entry of a journal.
var ErrCorrupt = errors.New("ledger: corrupt journal entry")

// ErrVersion is returned, wrapped, by Replay for an entry that a newer version wrote.
var ErrVersion = errors.New("ledger: journal entry of a newer version")

// An entry is what one call of AppendJournal or AppendSnapshot says.
type entry struct {
	kind          byte
	floor, cursor uint64
	done          spans    // above the floor
	ready         []parked // ascending by seq; in flight or ready again
	deferred      []parked // ascending by due
	beyond        spans    // excluded, above the cursor
	surveyed      uint64   // 0: as before
	newRuns       bool
	runs          []Run // if newRuns: all, by ascending ID
	far           set
}

const (
	entryVersion = 2

	kindJournal  = 'j' // changes: comes on top of what was said before
	kindSnapshot = 's' // the whole state: what was said before is void
)

// endOfSeqs is above every sequence number. Far enough from the end of uint64 that
// rounding up to a block does not wrap.
const endOfSeqs = 1 << 63

// encode appends e to dst:
//
//	┌───────────┬────────┬─────────┬──────────────────┐
//	│ version 1 │ kind 1 │ floor U │ cursor − floor U │
//	├─────┬─────┴────────┴────────┬┴───────────────┬──┴──────────────────┐
//	│ n U │ n × ( from − last U   │ to − from U )  │                     │  done
//	├─────┼───────────────────────┼────────────────┤                     │
//	│ n U │ n × ( seq − last U    │ attempt U )    │                     │  ready again, or in flight
//	├─────┼───────────────────────┼────────────────┼─────────────────────┤
//	│ n U │ n × ( due − last U    │ seq − floor U  │ attempt U )         │  deferred
//	├─────┼───────────────────────┼────────────────┼─────────────────────┘
//	│ n U │ n × ( from − last U   │ to − from U )  │                        excluded
//	├─────┴──────┬────────────────┴────────────────┘
//	│ surveyed U │                                                          0: as before
//	├─────┬──────┴──────────────────────────────────────────────────────────────────────┐
//	│ n U │ n−1 × ( ID − last U, block U, blocks left U, due 8, after 8, below U )      │  runs
//	├─────┼──────────────────────────┬─────┬───────────────────┬────────────────────────┤
//	│ n U │ n × ( block − last U,    │ m U │ m × ( skip U,     │ or, when m is 0, 4096  │  far
//	│     │                          │     │       length U )  │ bits                 ) │
//	└─────┴──────────────────────────┴─────┴───────────────────┴────────────────────────┘
//
// version and kind are a byte each, U is an unsigned varint (7 bits a byte, lowest
// first). The first n counts runs [from, to) of messages that are done, above the floor;
// last is the end of the run before, at first the floor. The second counts messages in
// ascending order; last is the message before, at first the floor. The third counts
// messages ordered by due time; last is the due time before, at first 0, and the
// difference is taken modulo 2⁶⁴. The fourth counts runs that are done beyond the cursor;
// last is the end of the run before, at first the cursor. What the first three have at or
// above the cursor was taken ahead. The fifth counts all runs and one more; 0 is for those
// that the entry before had. due and after are little-endian. The sixth counts the blocks of
// 4096 numbers in which there are messages that became far, or in a snapshot are; last is
// the block before, at first the floor's. Of each they are told as runs, of which each skips
// those after the run before, or as bits, lowest first. The last four fields are left out,
// from the end, when they are 0; version 1 has no more than the first of these.
//
// Acks in order need a floor and a cursor: 12 bytes, however many there were.
func (e *entry) encode(dst []byte) []byte {
	dst = append(dst, entryVersion, e.kind)
	dst = binary.AppendUvarint(dst, e.floor)
	dst = binary.AppendUvarint(dst, e.cursor-e.floor)

	dst = binary.AppendUvarint(dst, uint64(len(e.done)))
	last := e.floor
	for _, s := range e.done {
		dst = binary.AppendUvarint(dst, s.lo-last)
		dst = binary.AppendUvarint(dst, s.hi-s.lo)
		last = s.hi
	}

	dst = binary.AppendUvarint(dst, uint64(len(e.ready)))
	last = e.floor
	for _, p := range e.ready {
		dst = binary.AppendUvarint(dst, p.seq-last)
		dst = binary.AppendUvarint(dst, uint64(p.attempt))
		last = p.seq
	}

	dst = binary.AppendUvarint(dst, uint64(len(e.deferred)))
	due := int64(0)
	for _, p := range e.deferred {
		dst = binary.AppendUvarint(dst, uint64(p.due-due))
		dst = binary.AppendUvarint(dst, p.seq-e.floor)
		dst = binary.AppendUvarint(dst, uint64(p.attempt))
		due = p.due
	}

	more := e.newRuns || e.far.count > 0
	if len(e.beyond) == 0 && e.surveyed == 0 && !more {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.beyond)))
	last = e.cursor
	for _, s := range e.beyond {
		dst = binary.AppendUvarint(dst, s.lo-last)
		dst = binary.AppendUvarint(dst, s.hi-s.lo)
		last = s.hi
	}
	if e.surveyed > 0 || more {
		dst = binary.AppendUvarint(dst, e.surveyed)
	}
	if more {
		dst = e.encodeRuns(dst)
	}
	if e.far.count > 0 {
		dst = e.encodeFar(dst)
	}
	return dst
}

// decode is the entry that b is, all of b. The error is ErrVersion or ErrCorrupt.
func decode(b []byte) (entry, error) {
	var e entry
	if len(b) < 2 {
		return e, fmt.Errorf("%w: %d bytes", ErrCorrupt, len(b))
	}
	if b[0] > entryVersion {
		return e, fmt.Errorf("%w: %d, the newest known is %d", ErrVersion, b[0], entryVersion)
	}
	if e.kind = b[1]; b[0] == 0 || (e.kind != kindJournal && e.kind != kindSnapshot) {
		return e, fmt.Errorf("%w: version %d, kind %d", ErrCorrupt, b[0], e.kind)
	}
	d := decoder{rest: b[2:]}
	e.floor = d.upTo(endOfSeqs)
	e.cursor = e.floor + d.upTo(endOfSeqs-e.floor)
	d.done(&e)
	d.ready(&e)
	d.deferred(&e)
	if len(d.rest) > 0 {
		d.beyond(&e)
	}
	if len(d.rest) > 0 {
		e.surveyed = d.upTo(endOfSeqs)
	}
	if len(d.rest) > 0 {
		d.runs(&e)
	}
	if len(d.rest) > 0 {
		d.far(&e)
	}
	if d.bad || len(d.rest) > 0 {
		return entry{}, fmt.Errorf("%w: %d bytes, bad at byte %d", ErrCorrupt, len(b), len(b)-len(d.rest))
	}
	return e, nil
}

// A decoder reads numbers until one is bad, and then only zeros.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) uvarint() uint64 {
	if d.bad {
		return 0
	}
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// upTo is a number that must not be above limit.
func (d *decoder) upTo(limit uint64) uint64 {
	v := d.uvarint()
	if v > limit {
		d.bad = true
		return 0
	}
	return v
}

func (d *decoder) done(e *entry) {
	last := e.floor
	for range d.uvarint() {
		lo := last + d.upTo(endOfSeqs-last)
		hi := lo + d.upTo(endOfSeqs-lo)
		if lo == last || lo == hi {
			d.bad = true // the floor, or the run before, would have had it
		}
		if lo <= e.cursor && e.cursor < hi {
			d.bad = true // it would stand behind it
		}
		if d.bad {
			return
		}
		e.done = append(e.done, span{lo, hi})
		last = hi
	}
}

func (d *decoder) ready(e *entry) {
	last := e.floor
	for i := range d.uvarint() {
		seq := last + d.upTo(endOfSeqs-1-last)
		attempt := d.upTo(1<<32 - 1)
		if seq == e.cursor || (i > 0 && seq == last) {
			d.bad = true
		}
		if d.bad {
			return
		}
		e.ready = append(e.ready, parked{givenBack, seq, uint32(attempt)})
		last = seq
	}
}

func (d *decoder) deferred(e *entry) {
	due := int64(0)
	for i := range d.uvarint() {
		next := due + int64(d.uvarint())
		seq := e.floor + d.upTo(endOfSeqs-1-e.floor)
		attempt := d.upTo(1<<32 - 1)
		if seq == e.cursor || (i > 0 && next < due) {
			d.bad = true
		}
		if d.bad {
			return
		}
		due = next
		e.deferred = append(e.deferred, parked{due, seq, uint32(attempt)})
	}
}

func (d *decoder) beyond(e *entry) {
	last := e.cursor
	for range d.uvarint() {
		if d.bad {
			return
		}
		lo := last + d.upTo(endOfSeqs-last)
		hi := lo + d.upTo(endOfSeqs-lo)
		if lo == last || lo == hi {
			d.bad = true // the cursor, or the run before, would have had it
			return
		}
		e.beyond = append(e.beyond, span{lo, hi})
		last = hi
	}
}
