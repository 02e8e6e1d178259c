package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// OS is the machine's file system. New files are readable by their owner alone, for
// they hold other people's messages.
func OS() FS { return osFS{} }

const (
	filePerm = 0o600
	dirPerm  = 0o700
)

type osFS struct{}

func (osFS) Create(name string) (File, error) {
	return openOS(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (osFS) Open(name string) (File, error) { return openOS(name, os.O_RDWR) }

func (osFS) Remove(name string) error   { return os.Remove(name) }
func (osFS) RemoveAll(dir string) error { return os.RemoveAll(dir) }
func (osFS) MkdirAll(dir string) error  { return os.MkdirAll(dir, dirPerm) }

func (osFS) Rename(from, to string) error {
	if err := sameDir(from, to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names, nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		// Some network file systems cannot sync a directory, and have nothing to sync:
		// their names are durable when the call that made them returns.
		err = nil
	}
	return errors.Join(err, d.Close())
}

func (osFS) Free(dir string) (int64, error) {
	var s unix.Statfs_t
	for {
		switch err := unix.Statfs(dir, &s); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
		default:
			// What is left for the superuser alone does not count.
			return int64(s.Bavail) * int64(s.Bsize), nil //nolint:gosec,unconvert // the types differ between systems
		}
	}
}

func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = lockedBy(f)
		}
		_ = f.Close()
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	// The process id is there for whoever is refused. The lock holds without it, also
	// on a disk that is full.
	if f.Truncate(0) == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return &osLock{f}, nil
}

// lockedBy is ErrLocked with the process that holds the lock f, unless it has not
// written its id yet.
func lockedBy(f *os.File) error {
	text, _ := io.ReadAll(io.LimitReader(f, 32))
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return ErrLocked
	}
	return fmt.Errorf("%w by process %d", ErrLocked, pid)
}

type osLock struct{ f *os.File }

// Close unlocks before it closes: a process that is just being started may share the
// open file for a moment, and the lock would live as long as that.
func (l *osLock) Close() error {
	return errors.Join(flock(l.f, unix.LOCK_UN), l.f.Close())
}

func flock(f *os.File, how int) error {
	return control(f, func(fd int) error { return unix.Flock(fd, how) })
}

type osFile struct{ *os.File }

func openOS(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, filePerm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (f osFile) Sync() error {
	if err := datasync(f.File); err != nil {
		return &fs.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return nil
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// control calls fn with f's descriptor, which a concurrent Close cannot take away
// while fn runs, and again when a signal interrupted it.
func control(f *os.File, fn func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		for {
			if failed = fn(int(fd)); !errors.Is(failed, unix.EINTR) {
				return
			}
		}
	})
	if err != nil {
		return fs.ErrClosed // its only reason, under a name that is not exported
	}
	return failed
}

// sameDir says what is wrong with a rename from one directory to another.
func sameDir(from, to string) error {
	if filepath.Dir(from) == filepath.Dir(to) {
		return nil
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: errors.New("not in the same directory")}
}
