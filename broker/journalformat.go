package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"

	"github.com/millrace/millrace/internal/ledger"
)

// The file of a journal:
//
//	┌────────┬────────┬──────────┬───────┬───┬───────┐
//	│ header │ header │ snapshot │ entry │ … │ entry │
//	└────────┴────────┴──────────┴───────┴───┴───────┘
//
// The header stands there twice, because no entry can be checked without its salt. All
// integers are little-endian, all checksums are CRC-32C (Castagnoli).
//
//	0        8         12    16     24      32      40
//	┌────────┬─────────┬─────┬──────┬───────┬───────┐
//	│ magic  │ version │ crc │ salt │ floor │ flags │   crc over the file's name and all the others
//	│ 8      │ u32     │ u32 │ u64  │ u64   │ u64   │
//	└────────┴─────────┴─────┴──────┴───────┴───────┘
//
// The salt is random, so that no bytes of an older file can be taken for an entry, and the
// name keeps the file of another channel from being taken for this one's. The
// floor is the snapshot's: all messages below it were done when the file was made. It
// stands here too, so that a damaged snapshot does not bring back the channel's whole
// past. The flags say that the channel is paused. Every later version keeps magic, version and crc as they are.
//
//	┌────────┬─────┬───────────────────────┐
//	│ length │ crc │ as package ledger     │   crc over salt, offset, length and what
//	│ u32    │ u32 │ encodes it            │   package ledger encoded
//	└────────┴─────┴───────────────────────┘
const (
	journalMagic   = "mrledger"
	journalVersion = 1
	headerSize     = 40
	headersSize    = 2 * headerSize
	frameSize      = 8

	flagPaused = 1 << 0 // also in RELEASED
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type journalHeader struct {
	salt, floor uint64
	paused      bool
	intact      bool // both copies were good
}

func (h journalHeader) appendTwice(b []byte, path string) []byte {
	for range 2 {
		start := len(b)
		b = append(b, journalMagic...)
		b = binary.LittleEndian.AppendUint32(b, journalVersion)
		b = binary.LittleEndian.AppendUint32(b, 0)
		b = binary.LittleEndian.AppendUint64(b, h.salt)
		b = binary.LittleEndian.AppendUint64(b, h.floor)
		b = binary.LittleEndian.AppendUint64(b, flags(h.paused))
		putCRC(b[start:], path)
	}
	return b
}

func flags(paused bool) uint64 {
	if paused {
		return flagPaused
	}
	return 0
}

// putCRC and goodCRC are for the headers of journals and of RELEASED, whose crc stands
// in bytes 12 to 16, and which are at that path.
func putCRC(b []byte, path string) { binary.LittleEndian.PutUint32(b[12:], headerCRC(b, path)) }

func goodCRC(b []byte, path string) bool {
	return binary.LittleEndian.Uint32(b[12:]) == headerCRC(b, path)
}

func headerCRC(b []byte, path string) uint32 {
	// The data directory may be moved: what counts is the topic's directory and the name there.
	dir, name := filepath.Split(path)
	crc := crc32.Checksum([]byte(filepath.Base(dir)+"/"+name), castagnoli)
	return crc32.Update(crc32.Update(crc, castagnoli, b[:12]), castagnoli, b[16:])
}

// readHeaders takes what counts from whichever header is good. Without one there is
// nothing to go by, and the channel starts over from the log's beginning.
func readHeaders(b []byte, path string, damaged func(offset, bytes int64)) (journalHeader, error) {
	found := journalHeader{floor: 1}
	good := 0
	for at := 0; at < headersSize; at += headerSize {
		h := b[min(at, len(b)):min(at+headerSize, len(b))]
		if len(h) < headerSize || string(h[:8]) != journalMagic || !goodCRC(h, path) {
			damaged(int64(at), int64(len(h)))
			continue
		}
		if version := binary.LittleEndian.Uint32(h[8:]); version != journalVersion {
			return found, newerVersion(version, journalVersion)
		}
		found.salt, found.floor = binary.LittleEndian.Uint64(h[16:]), binary.LittleEndian.Uint64(h[24:])
		found.paused = binary.LittleEndian.Uint64(h[32:])&flagPaused != 0
		good++
	}
	found.intact = good == 2
	return found, nil
}

// replay applies the entries to l, and says whether all were good.
func replay(b []byte, salt uint64, l *ledger.Ledger, damaged func(offset, bytes int64)) (intact bool, err error) {
	intact = true
	size := int64(len(b))
	for at := int64(headersSize); at < size; {
		n, err := replayEntry(b, at, salt, l)
		if err != nil {
			return false, err
		}
		at += n
		if n == 0 {
			bad := at
			for at++; at < size && entryLen(b, at, salt) == 0; at++ {
			}
			damaged(bad, at-bad)
			intact = false
		}
	}
	return intact, nil
}

// replayEntry applies the entry at offset and returns its length; 0 when it is damaged.
func replayEntry(b []byte, offset int64, salt uint64, l *ledger.Ledger) (int64, error) {
	n := entryLen(b, offset, salt)
	if n == 0 {
		return 0, nil
	}
	switch err := l.Replay(b[offset+frameSize : offset+n]); {
	case errors.Is(err, ledger.ErrVersion):
		return 0, fmt.Errorf("%w: %w", ErrNewerVersion, err)
	case err != nil:
		return 0, nil
	}
	return n, nil
}

// entryLen returns how long the good entry at offset is, with its frame; 0 when there is
// none.
func entryLen(b []byte, offset int64, salt uint64) int64 {
	rest := b[offset:]
	if len(rest) < frameSize {
		return 0
	}
	n := int64(binary.LittleEndian.Uint32(rest))
	if n == 0 || n > int64(len(rest)-frameSize) {
		return 0
	}
	if binary.LittleEndian.Uint32(rest[4:]) != entryCRC(salt, offset, rest[frameSize:frameSize+n]) {
		return 0
	}
	return frameSize + n
}

// putFrame fills in length and checksum of an entry, which b starts with, at offset.
func putFrame(b []byte, salt uint64, offset int64) {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-frameSize)) //nolint:gosec // a ledger takes far less than 4 GiB
	binary.LittleEndian.PutUint32(b[4:], entryCRC(salt, offset, b[frameSize:]))
}

func entryCRC(salt uint64, offset int64, content []byte) uint32 {
	var seed [24]byte
	binary.LittleEndian.PutUint64(seed[0:], salt)
	binary.LittleEndian.PutUint64(seed[8:], uint64(offset)) //nolint:gosec // offsets are not negative
	binary.LittleEndian.PutUint64(seed[16:], uint64(len(content)))
	return crc32.Update(crc32.Checksum(seed[:], castagnoli), castagnoli, content)
}

// newerVersion says that a file cannot be read.
func newerVersion(has, reads uint32) error {
	return fmt.Errorf("%w: it has format %d, this version reads format %d", ErrNewerVersion, has, reads)
}
