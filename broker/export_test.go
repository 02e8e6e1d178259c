package broker

import "github.com/millrace/millrace/internal/vfs"

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
