package seglog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// FormatVersion is the version of the segment format that this package writes. It
// reads this one only: there is no other yet.
const FormatVersion = 1

var (
	// ErrNewerVersion is returned by Open for a segment that a later version of
	// Millrace has written.
	ErrNewerVersion = errors.New("seglog: written by a newer version of millrace")
	// errBadHeader and errBadFooter say that the bytes are not one; callers fall back.
	errBadHeader = errors.New("seglog: bad segment header")
	errForeign   = fmt.Errorf("%w: another log's", errBadHeader)
	errBadFooter = errors.New("seglog: bad segment footer")
)

// All integers are little-endian. All checksums are CRC-32C (Castagnoli).
//
// A header, of which two stand at the start of each segment:
//
//	0        8         12      16      24      32        40         60    64
//	┌────────┬─────────┬───────┬───────┬───────┬─────────┬──────────┬─────┐
//	│ magic  │ version │ owner │ salt  │ base  │ created │ zero     │ crc │
//	│ 8      │ u32     │ u32   │ u64   │ u64   │ i64 ns  │ 20       │ u32 │
//	└────────┴─────────┴───────┴───────┴───────┴─────────┴──────────┴─────┘
//
// The salt is random: bytes of another segment, or of a payload that somebody made to
// look like a record, do not pass the records' checksums. The owner is the checksum of the
// log's name, so that the segment of another log is not taken for one of this.
const (
	headerSize  = 64
	headersSize = 2 * headerSize
	headerMagic = "millrace"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type header struct {
	owner   uint32
	salt    uint64
	base    uint64
	created int64
}

// maxSegmentRecords bounds how many sequence numbers one segment can use up: all of
// them are in [base, base+maxSegmentRecords). After an unclean stop numbers go on that
// far above the last segment's base, so that none is used twice although the end of
// that segment may be lost. And a damaged segment is searched only for such numbers.
const maxSegmentRecords = 1 << 21

// limit is above every sequence number that the segment can have.
func (h *header) limit() uint64 { return h.base + maxSegmentRecords }

func appendHeader(b []byte, h header) []byte {
	start := len(b)
	b = append(b, headerMagic...)
	b = binary.LittleEndian.AppendUint32(b, FormatVersion)
	b = binary.LittleEndian.AppendUint32(b, h.owner)
	b = binary.LittleEndian.AppendUint64(b, h.salt)
	b = binary.LittleEndian.AppendUint64(b, h.base)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.created)) //nolint:gosec // two's complement, read back the same way
	b = append(b, make([]byte, 20)...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// parseHeader reads one header. Returns ErrNewerVersion for an intact header of a
// later version, errBadHeader for anything else that is not a header.
func parseHeader(b []byte) (header, error) {
	if len(b) < headerSize || string(b[:8]) != headerMagic {
		return header{}, errBadHeader
	}
	if crc32.Checksum(b[:headerSize-4], castagnoli) != binary.LittleEndian.Uint32(b[headerSize-4:]) {
		return header{}, errBadHeader
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != FormatVersion {
		return header{}, fmt.Errorf("%w: it has format %d, this version reads format %d", ErrNewerVersion, v, FormatVersion)
	}
	return header{
		owner:   binary.LittleEndian.Uint32(b[12:]),
		salt:    binary.LittleEndian.Uint64(b[16:]),
		base:    binary.LittleEndian.Uint64(b[24:]),
		created: int64(binary.LittleEndian.Uint64(b[32:])), //nolint:gosec // see appendHeader
	}, nil
}

// Record is one message of the log. Headers and Body share memory with other records
// and must not be changed.
type Record struct {
	// Seq is its sequence number, from 1.
	Seq uint64
	// Time is when it was appended, in nanoseconds since the Unix epoch.
	Time int64
	// Due is when it may first be delivered, on the same clock; 0 means at once.
	Due int64
	// Headers and Body are as they were appended; Headers is nil when there were none.
	Headers, Body []byte
}

// A record:
//
//	0        4      8     16     24      32      33
//	┌────────┬──────┬─────┬──────┬──────┬───────┬────────────────┬─────────┬──────┐
//	│ length │ crc  │ seq │ time │ due  │ flags │ headers length │ headers │ body │
//	│ u32    │ u32  │ u64 │ i64  │ i64  │ u8    │ uvarint        │         │      │
//	└────────┴──────┴─────┴──────┴──────┴───────┴────────────────┴─────────┴──────┘
//	         └ over salt, the record's offset in the file, length, and all that follows
//
// The length counts from seq to the end of the body. With flagHeaders unset, headers
// and their length are left out. A length of 0 is the end of what was written.
const (
	recordPrefix = 8  // length and crc
	recordFixed  = 33 // up to and with flags
	flagHeaders  = 1 << 0
)

// recordSize is how many bytes a record with such headers and body takes.
func recordSize(headers, body int) int {
	n := recordFixed + body
	if headers > 0 {
		n += uvarintLen(uint64(headers)) + headers
	}
	return n
}

// putRecord encodes r into b, which must be exactly recordSize long; offset is where in
// the segment's file b will stand.
func putRecord(b []byte, r *Record, salt uint64, offset int64) {
	le := binary.LittleEndian
	le.PutUint32(b, uint32(len(b)-recordPrefix)) //nolint:gosec // bounded by MaxEntry
	le.PutUint64(b[8:], r.Seq)
	le.PutUint64(b[16:], uint64(r.Time)) //nolint:gosec // two's complement, read back the same way
	le.PutUint64(b[24:], uint64(r.Due))  //nolint:gosec // the same
	if len(r.Headers) == 0 {
		b[32] = 0
		copy(b[recordFixed:], r.Body)
	} else {
		b[32] = flagHeaders
		at := recordFixed + binary.PutUvarint(b[recordFixed:], uint64(len(r.Headers)))
		at += copy(b[at:], r.Headers)
		copy(b[at:], r.Body)
	}
	le.PutUint32(b[4:], recordCRC(b, salt, offset))
}

// recordCRC is the checksum of the encoded record b. The checksum starts from a mix of
// salt, offset and length instead of zero, which costs nothing per record.
func recordCRC(b []byte, salt uint64, offset int64) uint32 {
	x := salt ^ uint64(offset)*0x9E3779B97F4A7C15 ^ uint64(len(b))<<40 //nolint:gosec // offsets are not negative
	x ^= x >> 32
	return crc32.Update(uint32(x), castagnoli, b[recordPrefix:]) //nolint:gosec // the low half is meant
}

// recordLen is how long the record at the start of b says that it is; 0 when it cannot be.
func recordLen(b []byte) int64 {
	if len(b) < recordFixed {
		return 0
	}
	n := int64(binary.LittleEndian.Uint32(b)) + recordPrefix
	if n < recordFixed {
		return 0
	}
	return n
}

// nextRecord returns the encoded record at the start of b, without checking it; nil when
// b holds no whole one.
func nextRecord(b []byte) []byte {
	n := recordLen(b)
	if n == 0 || n > int64(len(b)) {
		return nil
	}
	return b[:n:n]
}

// decodeRecord splits an encoded record whose checksum is known to be good. It returns
// false when the headers' length contradicts the record's, which only a writer other
// than putRecord could have brought about.
func decodeRecord(b []byte, r *Record) bool {
	le := binary.LittleEndian
	r.Seq = le.Uint64(b[8:])
	r.Time = int64(le.Uint64(b[16:])) //nolint:gosec // see putRecord
	r.Due = int64(le.Uint64(b[24:]))  //nolint:gosec // see putRecord
	rest := b[recordFixed:]
	r.Headers = nil
	if b[32]&flagHeaders != 0 {
		n, w := binary.Uvarint(rest)
		if w <= 0 || n > uint64(len(rest)-w) {
			return false
		}
		end := w + int(n) //nolint:gosec // checked against the length above
		r.Headers = rest[w:end:end]
		rest = rest[end:]
	}
	r.Body = rest
	return true
}

// expected is what is known of a segment's records before they are read: its salt, and
// that their sequence numbers are in [from, to).
type expected struct{ salt, from, to uint64 }

// goodRecord is nextRecord for bytes that may be damaged, or no record at all: it returns
// only one that passes its checksum at this offset in the file, and is expected there.
func (x expected) goodRecord(b []byte, offset int64) []byte {
	rec := nextRecord(b)
	if rec == nil || binary.LittleEndian.Uint32(rec[4:]) != recordCRC(rec, x.salt, offset) || !x.hasSeq(rec) {
		return nil
	}
	return rec
}

// hasSeq says whether b, if a record starts there, has a sequence number that is expected.
func (x expected) hasSeq(b []byte) bool {
	seq := binary.LittleEndian.Uint64(b[8:])
	return x.from <= seq && seq < x.to
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
