package vfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Mem is a file system in memory, for tests, that knows what has been synced.
//
// It has one root, which a leading slash or "." means as well as none. Its memory is
// about twice the size of its files, and more while writes wait for a Sync.
type Mem struct {
	mu       sync.Mutex // guards all below, the nodes and the files' contents
	root     *memDir
	used     int64 // bytes that files take
	capacity int64 // what used may grow to; noLimit at first
}

const noLimit = -1

// NewMem is an empty file system with no limit to its size.
func NewMem() *Mem { return &Mem{root: newMemDir(), capacity: noLimit} }

// SetFree makes the disk as full as to have room for so many bytes more. Writes beyond
// it write what fits and fail with syscall.ENOSPC. Truncating and removing files make
// room, as on a real disk: when the last who has a removed file open closes it.
func (m *Mem) SetFree(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = m.used + bytes
}

// Free implements [FS].
func (m *Mem) Free(dir string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.dir("statfs", dir); err != nil {
		return 0, err
	}
	if m.capacity == noLimit {
		return math.MaxInt64, nil
	}
	return max(m.capacity-m.used, 0), nil
}

// FlipBit damages a file as an old disk would: bit counts from the lowest of the first
// byte. The damage survives a crash. It panics when there is no such bit.
func (m *Mem) FlipBit(name string, bit int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.file("flip", name)
	if err != nil {
		panic(err)
	}
	f.flip(bit)
}

// A memNode is a *memDir or a *memFile.
type memNode interface{ node() }

func (*memDir) node()  {}
func (*memFile) node() {}

// A memDir is a directory: what its names mean now, and what they mean on the disk.
type memDir struct {
	entries map[string]memNode
	durable map[string]memNode // entries as they were at the last SyncDir
	pending []rename           // what makes entries of durable, in order
}

// A rename is one change to a directory. From "" it is a creation, to "" a removal.
type rename struct {
	from, to string
	node     memNode
}

func newMemDir() *memDir {
	return &memDir{entries: map[string]memNode{}, durable: map[string]memNode{}}
}

func (d *memDir) change(r rename) {
	r.apply(d.entries)
	d.pending = append(d.pending, r)
}

func (r rename) apply(names map[string]memNode) {
	if r.from != "" {
		delete(names, r.from)
	}
	if r.to != "" {
		names[r.to] = r.node
	}
}

func (d *memDir) sync() {
	d.durable = maps.Clone(d.entries)
	d.pending = nil
}

// Create implements [FS].
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.create("create", name)
	if err != nil {
		return nil, err
	}
	return m.open(f, name), nil
}

func (m *Mem) create(op, name string) (*memFile, error) {
	dir, base, err := m.parent(op, name)
	if err != nil {
		return nil, err
	}
	if _, taken := dir.entries[base]; taken {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrExist}
	}
	f := &memFile{linked: true}
	dir.change(rename{to: base, node: f})
	return f, nil
}

// Open implements [FS].
func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.file("open", name)
	if err != nil {
		return nil, err
	}
	return m.open(f, name), nil
}

// Remove implements [FS].
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parent("remove", name)
	if err != nil {
		return err
	}
	if sub, ok := dir.entries[base].(*memDir); ok && len(sub.entries) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	if dir.entries[base] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	m.remove(dir, base)
	return nil
}

// RemoveAll implements [FS].
func (m *Mem) RemoveAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parent("removeall", name)
	if err == nil && dir.entries[base] != nil {
		m.remove(dir, base)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}

func (m *Mem) remove(dir *memDir, base string) {
	switch node := dir.entries[base].(type) {
	case *memDir:
		for _, name := range sorted(node.entries) {
			m.remove(node, name)
		}
	case *memFile:
		node.linked = false
		m.reclaim(node)
	}
	dir.change(rename{from: base})
}

// Rename implements [FS].
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := sameDir(clean(from), clean(to)); err != nil {
		return err
	}
	dir, base, err := m.parent("rename", from)
	if err != nil {
		return err
	}
	node := dir.entries[base]
	if node == nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrNotExist}
	}
	newBase := path.Base(clean(to))
	if newBase == base {
		return nil
	}
	if old := dir.entries[newBase]; old != nil {
		file, ok := old.(*memFile)
		if _, isDir := node.(*memDir); isDir || !ok {
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
		}
		file.linked = false
		m.reclaim(file)
	}
	dir.change(rename{base, newBase, node})
	return nil
}

// MkdirAll implements [FS].
func (m *Mem) MkdirAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir := m.root
	for _, base := range elements(name) {
		if dir.entries[base] == nil {
			dir.change(rename{to: base, node: newMemDir()})
		}
		sub, ok := dir.entries[base].(*memDir)
		if !ok {
			return &fs.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
		}
		dir = sub
	}
	return nil
}

// List implements [FS].
func (m *Mem) List(name string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, err := m.dir("list", name)
	if err != nil {
		return nil, err
	}
	return sorted(dir.entries), nil
}

// SyncDir implements [FS].
func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, err := m.dir("syncdir", name)
	if err != nil {
		return err
	}
	dir.sync()
	return nil
}

// Lock implements [FS]. No process can be named.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.file("lock", name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = m.create("lock", name)
	}
	if err != nil {
		return nil, err
	}
	if f.locked {
		return nil, &fs.PathError{Op: "lock", Path: name, Err: ErrLocked}
	}
	f.locked = true
	return &memLock{m: m, f: f, name: name}, nil
}

type memLock struct {
	m      *Mem
	f      *memFile
	name   string
	closed bool
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.closed {
		return &fs.PathError{Op: "close", Path: l.name, Err: fs.ErrClosed}
	}
	l.closed, l.f.locked = true, false
	return nil
}

// dir is the directory of this name.
func (m *Mem) dir(op, name string) (*memDir, error) {
	dir := m.root
	for _, base := range elements(name) {
		switch node := dir.entries[base].(type) {
		case *memDir:
			dir = node
		case nil:
			return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		default:
			return nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		}
	}
	return dir, nil
}

// parent is the directory that name is or would be in, and what it is called there.
func (m *Mem) parent(op, name string) (*memDir, string, error) {
	name = clean(name)
	if name == "." {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	dir, err := m.dir(op, path.Dir(name))
	return dir, path.Base(name), err
}

func (m *Mem) file(op, name string) (*memFile, error) {
	dir, base, err := m.parent(op, name)
	if err != nil {
		return nil, err
	}
	switch node := dir.entries[base].(type) {
	case *memFile:
		return node, nil
	case nil:
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	default:
		return nil, &fs.PathError{Op: op, Path: name, Err: syscall.EISDIR}
	}
}

// clean is name relative to the root, "." for the root itself.
func clean(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return "."
	}
	return name
}

func elements(name string) []string {
	if name = clean(name); name == "." {
		return nil
	}
	return strings.Split(name, "/")
}

func sorted(names map[string]memNode) []string {
	return slices.Sorted(maps.Keys(names))
}
