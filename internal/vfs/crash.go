package vfs

import (
	"maps"
	"math/rand/v2"
)

// Crash is what a power loss at this moment leaves: what was synced, and nothing else.
// A file whose directory was not synced since it was created is gone, a removal or a
// rename that was not synced is undone, locks are free. m itself and its open files go
// on as before, in a world of their own, so that whoever still uses them need not be
// stopped first.
func (m *Mem) Crash() *Mem { return m.crash(nil) }

// CrashKeeping is Crash on a worse day: of what was not synced, r decides what is left
// nevertheless. Of writes, that is any part, torn at 512-byte sectors, with zeros for
// what is missing; of changes to a directory, any that do not build upon one which is
// lost. The same r leaves the same.
func (m *Mem) CrashKeeping(r *rand.Rand) *Mem { return m.crash(r) }

func (m *Mem) crash(r *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := &Mem{capacity: m.capacity}
	after.root = (&crash{r, after}).dir(m.root)
	return after
}

// A crash copies what survives of one Mem to another.
type crash struct {
	r     *rand.Rand // nil: only what was synced survives
	after *Mem
}

func (c *crash) node(n memNode) memNode {
	if d, ok := n.(*memDir); ok {
		return c.dir(d)
	}
	return c.file(n.(*memFile))
}

func (c *crash) dir(d *memDir) *memDir {
	names := maps.Clone(d.durable)
	lost := map[string]bool{}
	for _, p := range d.pending {
		if c.r == nil || lost[p.from] || lost[p.to] || c.r.IntN(2) == 0 {
			for _, name := range []string{p.from, p.to} {
				if name != "" {
					lost[name] = true
				}
			}
			continue
		}
		p.apply(names)
	}
	after := newMemDir()
	for _, name := range sorted(names) {
		after.entries[name] = c.node(names[name])
	}
	after.sync()
	return after
}

func (c *crash) file(f *memFile) *memFile {
	data := append([]byte(nil), f.durable...)
	if c.r != nil {
		data = c.survivors(data, f.pending)
	}
	after := &memFile{data: data, durable: append([]byte(nil), data...), linked: true}
	// A sparse file comes back without its holes. Nobody asks a disk after a crash
	// for that.
	if len(data) > 0 {
		after.space = extents{{0, int64(len(data))}}
		c.after.used += int64(len(data))
	}
	return after
}

// survivors applies to data some of the changes. A disk that was quick and one that
// was slow are as likely as one that was caught in the middle, in order or not.
func (c *crash) survivors(data []byte, changes []change) []byte {
	switch c.r.IntN(4) {
	case 0:
		return data
	case 1:
		for _, change := range changes {
			data = change.apply(data)
		}
		return data
	case 2:
		for _, change := range changes {
			if c.r.IntN(len(changes)) == 0 {
				return c.torn(data, change)
			}
			data = change.apply(data)
		}
		return data
	default:
		for _, change := range changes {
			data = c.torn(data, change)
		}
		return data
	}
}

const sector = 512

// torn applies any part of one change to data.
func (c *crash) torn(data []byte, all change) []byte {
	if all.data == nil {
		if c.r.IntN(2) == 0 {
			data = all.apply(data)
		}
		return data
	}
	if end := all.off + int64(len(all.data)); end > int64(len(data)) && c.r.IntN(2) == 0 {
		data = resize(data, end) // the file's new length is on the disk
	}
	for off, rest := all.off, all.data; len(rest) > 0; {
		n := min(len(rest), int(sector-off%sector))
		if c.r.IntN(2) == 0 {
			data = change{off, rest[:n]}.apply(data)
		}
		off, rest = off+int64(n), rest[n:]
	}
	return data
}
