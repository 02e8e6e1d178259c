package seglog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/millrace/millrace/internal/vfs"
)

// redoFile is one of the files of a redo log. A header stands in its first 512 bytes:
//
//	0        8         12    16     24
//	┌────────┬─────────┬─────┬──────┬──────────┐
//	│ magic  │ version │ crc │ salt │ zero …   │   crc over all the others
//	│ 8      │ u32     │ u32 │ u64  │          │
//	└────────┴─────────┴─────┴──────┴──────────┘
//
// Rounds follow, each at a multiple of 512 bytes:
//
//	0       4     8        12       16       24
//	┌───────┬─────┬────────┬────────┬────────┬──────────┬─────────┬───┬─────────┐
//	│ magic │ crc │ pieces │ length │ length │ piece  … │ bytes   │ … │ bytes   │
//	│ u32   │ u32 │ u32    │ of the │ of the │          │ of the  │   │ of the  │
//	│       │     │        │ pieces │ bytes  │          │ first   │   │ last    │
//	│       │     │        │ u32    │ u64    │          │         │   │         │
//	└───────┴─────┴────────┴────────┴────────┴──────────┴─────────┴───┴─────────┘
//	              └ crc over salt, offset in the file, and all that follows
//
// A piece says where bytes belong: to a segment, which its salt makes sure of.
//
//	┌──────────────────┬─────┬──────┬───────────┬───────────┐
//	│ directory of its │ dir │ base │ salt      │ offset    │ length
//	│ log: length      │     │ u64  │ u64       │ uvarint   │ uvarint
//	│ uvarint          │     │      │           │           │
//	└──────────────────┴─────┴──────┴───────────┴───────────┘
//
// The files are written again and again from the start, each time with another salt, which
// the rounds of the time before do not match.
type redoFile struct {
	name    string
	file    vfs.File // nil until it is needed
	salt    uint64
	size    int64 // where the next round goes; 0: there is none
	end     int64 // where the round ends that was written last
	busy    bool  // its rounds are being made safe in the logs' files
	found   bool  // it was there when the redo log was opened
	scratch []byte
}

const (
	redoMagic      = "mr-redo\x01"
	redoRoundMagic = 0x6f646572 // "redo"
	redoVersion    = 1
	redoAlign      = 512
	redoHeaderSize = 24
	redoRoundSize  = 24
	// maxRedoPiece is the most bytes that say where a piece belongs: the longest name of a
	// directory is that of a topic.
	maxRedoPiece = 512
)

// redoPiece is where bytes of a segment stand in a redo file.
type redoPiece struct {
	dir        string
	base, salt uint64
	offset     int64 // in the segment
	bytes      []byte
}

// write writes a round of flushes with one piece each behind the others, with the header
// if it is the first.
func (f *redoFile) write(flushes []*flush) error {
	at := f.size
	b := f.scratch[:0]
	if at == 0 {
		b = f.appendHeader(b)
	}
	start := len(b)
	round := at + int64(start)
	b = append(b, make([]byte, redoRoundSize)...)
	bytes := int64(0)
	for _, fl := range flushes {
		p := &fl.pieces[0]
		b = binary.AppendUvarint(b, uint64(len(fl.log.redoDir)))
		b = append(b, fl.log.redoDir...)
		b = binary.LittleEndian.AppendUint64(b, p.seg.base)
		b = binary.LittleEndian.AppendUint64(b, p.seg.salt)
		b = binary.AppendUvarint(b, uint64(p.from))      //nolint:gosec // offsets are not negative
		b = binary.AppendUvarint(b, uint64(p.to-p.from)) //nolint:gosec // the same
		bytes += p.to - p.from
	}
	f.scratch = b
	le, h := binary.LittleEndian, b[start:]
	le.PutUint32(h, redoRoundMagic)
	le.PutUint32(h[8:], uint32(len(flushes)))          //nolint:gosec // far below 2^32
	le.PutUint32(h[12:], uint32(len(h)-redoRoundSize)) //nolint:gosec // the same
	le.PutUint64(h[16:], uint64(bytes))                //nolint:gosec // not negative
	crc := crc32.Update(f.seed(round), castagnoli, h[8:])
	for _, fl := range flushes {
		for _, buf := range fl.pieces[0].bufs {
			crc = crc32.Update(crc, castagnoli, buf)
		}
	}
	le.PutUint32(h[4:], crc)
	if _, err := f.file.WriteAt(b, at); err != nil {
		return err
	}
	at += int64(len(b))
	for _, fl := range flushes {
		for _, buf := range fl.pieces[0].bufs {
			if _, err := f.file.WriteAt(buf, at); err != nil {
				return err
			}
			at += int64(len(buf))
		}
	}
	f.end = (at + redoAlign - 1) / redoAlign * redoAlign
	return nil
}

func (f *redoFile) appendHeader(b []byte) []byte {
	h := make([]byte, redoAlign)
	le := binary.LittleEndian
	copy(h, redoMagic)
	le.PutUint32(h[8:], redoVersion)
	le.PutUint64(h[16:], f.salt)
	le.PutUint32(h[12:], crc32.Checksum(h[:redoHeaderSize], castagnoli))
	return append(b, h...)
}

// parseHeader reads the header; false when there is none. Returns ErrNewerVersion, wrapped.
func (f *redoFile) parseHeader(b []byte) (bool, error) {
	if len(b) < redoAlign || string(b[:8]) != redoMagic {
		return false, nil
	}
	h := append([]byte(nil), b[:redoHeaderSize]...)
	le := binary.LittleEndian
	crc := le.Uint32(h[12:])
	le.PutUint32(h[12:], 0)
	if crc32.Checksum(h, castagnoli) != crc {
		return false, nil
	}
	if v := le.Uint32(h[8:]); v != redoVersion {
		return false, fmt.Errorf("%w: %s has format %d, this version reads format %d", ErrNewerVersion, f.name, v, redoVersion)
	}
	f.salt = le.Uint64(h[16:])
	return true, nil
}

// seed is what the checksum of a round at that offset begins with.
func (f *redoFile) seed(offset int64) uint32 {
	x := f.salt ^ uint64(offset)*0x9E3779B97F4A7C15 //nolint:gosec // not negative
	return uint32(x ^ x>>32)                        //nolint:gosec // the low half is meant
}

// round reads the round at offset at of the file, all of which is b. It returns where it
// ends; 0 when no good one is there.
func (f *redoFile) round(b []byte, at int64) (pieces []redoPiece, end int64) {
	h := b[at:]
	if len(h) < redoRoundSize {
		return nil, 0
	}
	le := binary.LittleEndian
	if le.Uint32(h) != redoRoundMagic {
		return nil, 0
	}
	count, where, bytes := le.Uint32(h[8:]), uint64(le.Uint32(h[12:])), le.Uint64(h[16:])
	rest := uint64(len(h) - redoRoundSize)
	if where > rest || bytes > rest-where || uint64(count) > where {
		return nil, 0
	}
	h = h[:redoRoundSize+where+bytes]
	if crc32.Update(f.seed(at), castagnoli, h[8:]) != le.Uint32(h[4:]) {
		return nil, 0
	}
	pieces = parseRedoPieces(h[redoRoundSize:redoRoundSize+where], h[redoRoundSize+where:], int(count))
	if pieces == nil {
		return nil, 0
	}
	return pieces, at + int64(len(h))
}

// parseRedoPieces takes apart what a round says; nil when that makes no sense, which under
// a good checksum only another program could have brought about.
func parseRedoPieces(where, bytes []byte, count int) []redoPiece {
	pieces := make([]redoPiece, 0, count)
	uvarint := func() (uint64, bool) {
		v, n := binary.Uvarint(where)
		if n <= 0 {
			return 0, false
		}
		where = where[n:]
		return v, true
	}
	for range count {
		n, ok := uvarint()
		if !ok || n+16 > uint64(len(where)) {
			return nil
		}
		p := redoPiece{
			dir:  string(where[:n]),
			base: binary.LittleEndian.Uint64(where[n:]),
			salt: binary.LittleEndian.Uint64(where[n+8:]),
		}
		where = where[n+16:]
		offset, ok := uvarint()
		length, ok2 := uvarint()
		if !ok || !ok2 || offset < headersSize || offset > 1<<62 || length > uint64(len(bytes)) {
			return nil
		}
		p.offset, p.bytes = int64(offset), bytes[:length]
		bytes = bytes[length:]
		pieces = append(pieces, p)
	}
	return pieces
}
