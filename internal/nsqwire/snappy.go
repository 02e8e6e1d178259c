package nsqwire

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// ErrSnappy is returned for what is not a stream in snappy's framing format.
var ErrSnappy = errors.New("nsqwire: corrupt snappy stream")

// SnappyMagic is the chunk that a stream begins with. It may come again.
const SnappyMagic = "\xff\x06\x00\x00sNaPpY"

// A stream is a sequence of chunks; integers little-endian:
//
//	0      1        4
//	┌──────┬────────┬───────────────────────────────────────────┐
//	│ type │ length │ compressed, not compressed: crc u32, data │
//	│ u8   │ u24    │ others: anything                          │
//	└──────┴────────┴───────────────────────────────────────────┘
const (
	chunkCompressed = 0x00
	chunkPlain      = 0x01
	chunkSkippable  = 0x80 // from here on
	chunkMagic      = 0xff

	// SnappyHeader is the size of a chunk's type and length.
	SnappyHeader = 4
	crcSize      = 4
	// SnappyBlock is the most bytes of data that a chunk holds, before compression.
	SnappyBlock = 64 << 10
	// maxChunk is the most bytes that a chunk with data can have: compression makes what
	// does not get shorter longer, by a sixth at most.
	maxChunk = crcSize + 32 + SnappyBlock + SnappyBlock/6
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskedCRC is the checksum of a chunk's data, turned and moved so that data which
// contains checksums gets a good one too.
func maskedCRC(data []byte) uint32 {
	c := crc32.Checksum(data, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

// AppendSnappy appends chunks that hold the data.
func AppendSnappy(dst, data []byte) []byte {
	for len(data) > 0 {
		block := data[:min(len(data), SnappyBlock)]
		data = data[len(block):]
		chunk := len(dst)
		dst = append(dst, make([]byte, SnappyHeader+crcSize)...)
		start := len(dst)
		kind := uint32(chunkCompressed)
		dst = appendBlock(dst, block)
		if len(dst)-start > len(block)-len(block)/8 { // not worth to be expanded again
			kind = chunkPlain
			dst = append(dst[:start], block...)
		}
		size := uint32(len(dst) - chunk - SnappyHeader) //nolint:gosec // at most maxChunk
		binary.LittleEndian.PutUint32(dst[chunk:], kind|size<<8)
		binary.LittleEndian.PutUint32(dst[chunk+SnappyHeader:], maskedCRC(block))
	}
	return dst
}

// SnappyChunk is the header of a chunk.
type SnappyChunk struct {
	// Size is how many bytes follow the header.
	Size int
	kind byte
}

// ParseSnappyHeader reads the first SnappyHeader bytes of b as the header of a chunk;
// first says that it is the first of the stream. Returns ErrSnappy for a chunk that nobody
// knows or that is too large.
func ParseSnappyHeader(b []byte, first bool) (SnappyChunk, error) {
	h := binary.LittleEndian.Uint32(b)
	c := SnappyChunk{Size: int(h >> 8), kind: byte(h)} //nolint:gosec // the lowest byte is meant
	good := false
	switch {
	case c.kind == chunkMagic:
		good = c.Size == len(SnappyMagic)-SnappyHeader
	case c.kind == chunkCompressed, c.kind == chunkPlain:
		good = !first && c.Size >= crcSize && c.Size <= maxChunk
	case c.kind >= chunkSkippable:
		good = !first
	}
	if !good {
		return SnappyChunk{}, ErrSnappy
	}
	return c, nil
}

// Skip says whether what follows the header is to be skipped unseen. It can be large.
func (c SnappyChunk) Skip() bool { return c.kind >= chunkSkippable && c.kind != chunkMagic }

// Append appends the data of the chunk; body is all that follows its header. Returns
// ErrSnappy for a chunk that is damaged.
func (c SnappyChunk) Append(dst, body []byte) ([]byte, error) {
	if c.kind == chunkMagic {
		if string(body) != SnappyMagic[SnappyHeader:] {
			return dst, ErrSnappy
		}
		return dst, nil
	}
	start := len(dst)
	sum, data := binary.LittleEndian.Uint32(body), body[crcSize:]
	if c.kind == chunkPlain {
		if len(data) > SnappyBlock {
			return dst, ErrSnappy
		}
		dst = append(dst, data...)
	} else {
		var err error
		if dst, err = appendExpanded(dst, data); err != nil {
			return dst[:start], err
		}
	}
	if maskedCRC(dst[start:]) != sum {
		return dst[:start], ErrSnappy
	}
	return dst, nil
}
