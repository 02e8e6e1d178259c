package vfs

import (
	"errors"
	"io"
)

// ErrLocked is returned, wrapped, when a lock is held already: by another process,
// or by an earlier Lock of this one.
var ErrLocked = errors.New("already locked")

// FS is a file system. All methods may be called concurrently. Errors are
// *fs.PathError or wrap one, so that errors.Is knows fs.ErrNotExist, fs.ErrExist
// and the system's own, such as syscall.ENOSPC.
type FS interface {
	// Create makes an empty file and opens it for reading and writing. The error is
	// fs.ErrExist when the name is taken.
	Create(name string) (File, error)
	// Open opens a file for reading and writing. The error is fs.ErrNotExist when
	// there is none.
	Open(name string) (File, error)
	// Remove takes the name of a file, or of an empty directory, away. Whoever has
	// the file open can go on using it.
	Remove(name string) error
	// RemoveAll removes dir and all that is in it. It is no error when there is none.
	RemoveAll(dir string) error
	// Rename gives a file or directory another name in the same directory, at once
	// and instead of a file that had this name before.
	Rename(from, to string) error
	// MkdirAll makes the directory and those above it that are missing. Each of them
	// is durable once the directory that it is in was synced.
	MkdirAll(dir string) error
	// List returns the names in dir, without the path, in ascending order. The error
	// is fs.ErrNotExist when there is no such directory.
	List(dir string) ([]string, error)
	// SyncDir makes what was created, renamed and removed in dir durable. It is not
	// about the contents of the files, nor about the directories below.
	SyncDir(dir string) error
	// Lock takes the exclusive lock of a file, which it creates if need be and never
	// removes, until the Closer is closed or the process dies. It does not wait: the
	// error wraps ErrLocked when somebody has it, and names the process if it can.
	Lock(name string) (io.Closer, error)
	// Free is how many bytes more this process can write to the file system that dir is
	// on. It costs a system call, and reads nothing.
	Free(dir string) (int64, error)
}

// File is an open file. ReadAt, WriteAt and Sync may be called concurrently.
type File interface {
	io.ReaderAt
	// WriteAt writes p at off, and makes the file longer if need be. When it returns
	// fewer than len(p) bytes, as a full disk makes it, the error says why.
	WriteAt(p []byte, off int64) (int, error)
	// Sync returns when all that was written before is on the disk (fdatasync), with
	// what of the file's size is needed to read it.
	Sync() error
	// Truncate cuts the file to size bytes, or makes it longer with zeros that take
	// no space on the disk yet.
	Truncate(size int64) error
	// Size is the length of the file in bytes.
	Size() (int64, error)
	// Close ends the use of this File. It does not sync.
	Close() error
}

// ReadFile returns what is in the file of that name.
func ReadFile(fsys FS, name string) ([]byte, error) {
	file, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return ReadAll(file)
}

// ReadAll returns what is in the file, as long as it was when the call began.
func ReadAll(file File) ([]byte, error) {
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	n, err := file.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}
