//go:build !linux

package vfs

import "os"

// datasync is os.File's own Sync: on macOS that is the one which also empties the
// disk's cache, and an fdatasync would not.
func datasync(f *os.File) error { return f.Sync() }
