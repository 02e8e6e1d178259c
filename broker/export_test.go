package broker

import (
	"encoding/binary"

	"github.com/millrace/millrace/internal/vfs"
)

// On returns o with its data directory on another file system.
func (o Options) On(fsys vfs.FS) Options {
	o.fs = fsys
	return o
}

// WithSegments returns o with segments of so many bytes.
func (o Options) WithSegments(size int64) Options {
	o.segmentSize = size
	return o
}

// MemoryHeld returns how many bytes of messages the broker counts as held in memory.
func (b *Broker) MemoryHeld() int64 { return b.memory.Load() }

// SealEntry makes the checksum of a journal's first entry right again.
func SealEntry(file []byte) {
	h, _ := readHeaders(file, func(int64, int64) {})
	n := frameSize + int(binary.LittleEndian.Uint32(file[headersSize:]))
	putFrame(file[headersSize:headersSize+n], h.salt, headersSize)
}
