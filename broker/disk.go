package broker

import "github.com/millrace/millrace/internal/vfs"

// On returns o with its data directory on another file system: one that loses its power,
// fills up or fails on demand, for the tests of this module.
func (o Options) On(fsys vfs.FS) Options {
	o.fs = fsys
	return o
}

// WithSegments returns o with segments of so many bytes, so that tests need not fill 64 MiB
// to see them begun, rewritten and removed.
func (o Options) WithSegments(size int64) Options {
	o.segmentSize = size
	return o
}
