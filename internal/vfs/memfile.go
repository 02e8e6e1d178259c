package vfs

import (
	"io"
	"io/fs"
	"syscall"
)

// A memFile is a file's contents: as its readers see them, and as they are on the disk.
type memFile struct {
	data    []byte
	durable []byte   // data as it was at the last Sync
	pending []change // what makes data of durable, in order

	space   extents // the parts that take space on the disk
	linked  bool    // has a name
	handles int     // is open so many times
	locked  bool
}

// A change is a write of data at off or, without data, a truncation to off bytes.
type change struct {
	off  int64
	data []byte
}

func (c change) apply(buf []byte) []byte {
	if c.data == nil {
		return resize(buf, c.off)
	}
	if end := c.off + int64(len(c.data)); end > int64(len(buf)) {
		buf = resize(buf, end)
	}
	copy(buf[c.off:], c.data)
	return buf
}

// resize is buf cut to size, or with zeros up to it.
func resize(buf []byte, size int64) []byte {
	if size <= int64(len(buf)) {
		return buf[:size]
	}
	// append clears what it allocates, not what an earlier cut left in buf.
	return append(buf, make([]byte, size-int64(len(buf)))...)
}

func (f *memFile) change(c change) {
	f.data = c.apply(f.data)
	f.pending = append(f.pending, c)
}

func (f *memFile) sync() {
	for _, c := range f.pending {
		f.durable = c.apply(f.durable)
	}
	f.pending = nil
}

// flip damages the byte wherever it is: a write that still waits would repair it.
func (f *memFile) flip(bit int64) {
	at, mask := bit/8, byte(1)<<(bit%8)
	f.data[at] ^= mask
	if at < int64(len(f.durable)) {
		f.durable[at] ^= mask
	}
	for _, c := range f.pending {
		if at >= c.off && at < c.off+int64(len(c.data)) {
			c.data[at-c.off] ^= mask
		}
	}
}

// reclaim gives back what a file takes that nobody can reach any more.
func (m *Mem) reclaim(f *memFile) {
	if !f.linked && f.handles == 0 {
		m.used -= f.space.size()
		f.space = nil
	}
}

// A memHandle is an open file.
type memHandle struct {
	m      *Mem
	f      *memFile
	name   string
	closed bool
}

func (m *Mem) open(f *memFile, name string) File {
	f.handles++
	return &memHandle{m: m, f: f, name: name}
}

// enter locks the file system for one call. The caller unlocks m.mu, also after an
// error, which is that of a closed file or a negative offset.
func (h *memHandle) enter(op string, off int64) error {
	h.m.mu.Lock()
	if h.closed {
		return h.wrap(op, fs.ErrClosed)
	}
	if off < 0 {
		return h.wrap(op, fs.ErrInvalid)
	}
	return nil
}

func (h *memHandle) wrap(op string, err error) error {
	return &fs.PathError{Op: op, Path: h.name, Err: err}
}

func (h *memHandle) ReadAt(p []byte, off int64) (int, error) {
	err := h.enter("read", off)
	defer h.m.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n := 0
	if off < int64(len(h.f.data)) {
		n = copy(p, h.f.data[off:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *memHandle) WriteAt(p []byte, off int64) (int, error) {
	err := h.enter("write", off)
	defer h.m.mu.Unlock()
	if err != nil || len(p) == 0 {
		return 0, err
	}
	end, grown := h.f.space.room(off, off+int64(len(p)), h.m.free())
	n := int(end - off)
	if n > 0 {
		h.f.space = h.f.space.add(off, end)
		h.m.used += grown
		h.f.change(change{off, append([]byte{}, p[:n]...)})
	}
	if n < len(p) {
		return n, h.wrap("write", syscall.ENOSPC)
	}
	return n, nil
}

func (h *memHandle) Sync() error {
	err := h.enter("sync", 0)
	defer h.m.mu.Unlock()
	if err == nil {
		h.f.sync()
	}
	return err
}

func (h *memHandle) Truncate(size int64) error {
	err := h.enter("truncate", size)
	defer h.m.mu.Unlock()
	if err == nil {
		h.m.used -= h.f.space.size()
		h.f.space = h.f.space.cut(size)
		h.m.used += h.f.space.size()
		h.f.change(change{off: size})
	}
	return err
}

func (h *memHandle) Size() (int64, error) {
	err := h.enter("size", 0)
	defer h.m.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return int64(len(h.f.data)), nil
}

func (h *memHandle) Close() error {
	err := h.enter("close", 0)
	defer h.m.mu.Unlock()
	if err == nil {
		h.closed = true
		h.f.handles--
		h.m.reclaim(h.f)
	}
	return err
}
