package seglog

import (
	"encoding/binary"
	"hash/crc32"
)

// A footer follows the last record, where the length of a record would be:
//
//	┌────────────┬───────┬──────┬──────┬─────────┬───────┬──────┬───────┬───────┬─────────────────┬──────────────┐
//	│ 0xFFFFFFFF │ zero  │ salt │ base │ next    │ first │ last │ count │ marks │ marks …         │ deferred …   │
//	│ u32        │ u32   │ u64  │ u64  │ seq u64 │ time  │ time │ u64   │ u64   │ 3 uvarints each │ n+1 uvarints │
//	└────────────┴───────┴──────┴──────┴─────────┴───────┴──────┴───────┴───────┴─────────────────┴──────────────┘
//
// A mark says where a record stands, one every markEvery bytes: the differences of
// sequence number, offset, and count of records before it, from the mark before. Then come
// a number n, and the indices of the n marks behind which, and before the next, stand
// records with a due time: each as the difference from the one before. These are left out
// when there are none. The trailer ends the file:
//
//	┌───────────────┬───────────────┬─────────────────┬──────────┐
//	│ footer offset │ footer length │ crc of all that │ "mr-foot"│
//	│ u64           │ u32           │ u32             │ 8        │
//	└───────────────┴───────────────┴─────────────────┴──────────┘
//
// The crc is over the footer and the two fields before it.
const (
	footerMark   = 0xFFFFFFFF
	footerFixed  = 64
	trailerSize  = 24
	trailerMagic = "mr-foot\x01"
	markEvery    = 64 << 10
)

// mark is an entry of a segment's sparse index.
type mark struct {
	seq    uint64 // of the record that stands at offset
	offset int64
	count  int64 // records of the segment before it
}

// footer is what is known of a segment that is full.
type footer struct {
	header
	next      uint64 // above every sequence number of the segment
	firstTime int64
	lastTime  int64
	count     int64 // records
	marks     []mark
	deferred  []int // see deferrals: indices of marks, ascending
	end       int64 // where the records end; in the file, the footer's offset
}

// appendFooter appends footer and trailer.
func appendFooter(b []byte, f *footer) []byte {
	le := binary.LittleEndian
	start := len(b)
	b = le.AppendUint32(b, footerMark)
	b = le.AppendUint32(b, 0)
	for _, v := range []uint64{f.salt, f.base, f.next, uint64(f.firstTime), uint64(f.lastTime), uint64(f.count), uint64(len(f.marks))} { //nolint:gosec // two's complement
		b = le.AppendUint64(b, v)
	}
	var last mark
	for _, m := range f.marks {
		b = binary.AppendUvarint(b, m.seq-last.seq)
		b = binary.AppendUvarint(b, uint64(m.offset-last.offset)) //nolint:gosec // marks ascend
		b = binary.AppendUvarint(b, uint64(m.count-last.count))   //nolint:gosec // marks ascend
		last = m
	}
	b = f.appendDeferred(b)
	length := len(b) - start
	b = le.AppendUint64(b, uint64(f.end))  //nolint:gosec // offsets are not negative
	b = le.AppendUint32(b, uint32(length)) //nolint:gosec // bounded by the segment's size
	b = le.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	return append(b, trailerMagic...)
}

// parseTrailer reads the last trailerSize bytes of a file of the given size and says
// where its footer starts and how long footer and trailer are together.
func parseTrailer(b []byte, size int64) (offset int64, length int, err error) {
	if len(b) != trailerSize || string(b[16:]) != trailerMagic {
		return 0, 0, errBadFooter
	}
	offset = int64(binary.LittleEndian.Uint64(b)) //nolint:gosec // range checked below
	n := int64(binary.LittleEndian.Uint32(b[8:]))
	if offset < headersSize || n < footerFixed || offset+n+trailerSize != size {
		return 0, 0, errBadFooter
	}
	return offset, int(n) + trailerSize, nil
}

// parseFooter reads what appendFooter wrote. Returns errBadFooter for anything else.
func parseFooter(b []byte) (*footer, error) {
	le := binary.LittleEndian
	body := len(b) - trailerSize
	if body < footerFixed || le.Uint32(b) != footerMark ||
		crc32.Checksum(b[:body+12], castagnoli) != le.Uint32(b[body+12:]) {
		return nil, errBadFooter
	}
	f := &footer{
		header:    header{salt: le.Uint64(b[8:]), base: le.Uint64(b[16:])},
		next:      le.Uint64(b[24:]),
		firstTime: int64(le.Uint64(b[32:])),   //nolint:gosec // see appendFooter
		lastTime:  int64(le.Uint64(b[40:])),   //nolint:gosec // see appendFooter
		count:     int64(le.Uint64(b[48:])),   //nolint:gosec // see appendFooter
		end:       int64(le.Uint64(b[body:])), //nolint:gosec // see appendFooter
	}
	if f.next < f.base || f.next > f.limit() || f.count < 0 || f.end < headersSize {
		return nil, errBadFooter
	}
	if err := f.parseMarks(b[footerFixed:body], le.Uint64(b[56:])); err != nil {
		return nil, err
	}
	return f, nil
}

// parseMarks reads n marks. It takes none that would send a reader out of the segment,
// although under a good checksum only another program could have written such a one.
func (f *footer) parseMarks(b []byte, n uint64) error {
	if n > uint64(len(b)) {
		return errBadFooter
	}
	f.marks = make([]mark, 0, n)
	var m mark
	for range n {
		var d [3]uint64
		for i := range d {
			v, w := binary.Uvarint(b)
			if w <= 0 {
				return errBadFooter
			}
			d[i], b = v, b[w:]
		}
		next := mark{m.seq + d[0], m.offset + int64(d[1]), m.count + int64(d[2])} //nolint:gosec // checked next
		if next.seq < max(m.seq, f.base) || next.seq >= f.next ||
			next.offset < max(m.offset, headersSize) || next.offset >= f.end ||
			next.count < m.count || next.count >= f.count {
			return errBadFooter
		}
		f.marks = append(f.marks, next)
		m = next
	}
	return f.parseDeferred(b)
}
