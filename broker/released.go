package broker

import (
	"encoding/binary"
	"errors"
	"io/fs"

	"github.com/millrace/millrace/internal/vfs"
)

// releasedFile keeps whether a topic is paused, and its released cursor while no journal
// does: while it is paused, and when all messages below it have gone to channels that are
// deleted. It is made together with the topic's first channel, and from then on overwritten in place, which needs no space on the disk and,
// within one sector, happens whole or not at all. It belongs to whoever has the topic's
// turn.
//
// The file holds twice:
//
//	0        8         12    16       24      32
//	┌────────┬─────────┬─────┬────────┬───────┐
//	│ magic  │ version │ crc │ cursor │ flags │   crc over the file's name and all the others
//	│ 8      │ u32     │ u32 │ u64    │ u64   │
//	└────────┴─────────┴─────┴────────┴───────┘
type releasedFile struct {
	fs     vfs.FS
	path   string
	exists bool
	found  bool // it was opened, not made: what it says may not be safe yet
}

// released is what the file says.
type released struct {
	cursor uint64
	paused bool
}

const (
	releasedName    = "RELEASED"
	releasedMagic   = "mrreleas"
	releasedVersion = 1
	releasedSize    = 32
)

// create makes the file, unless it exists. It is safe once its directory is synced.
func (r *releasedFile) create(s released) error {
	if r.exists {
		return nil
	}
	file, err := r.fs.Create(r.path)
	if errors.Is(err, fs.ErrExist) {
		file, err = r.fs.Open(r.path) // an attempt that failed has left it
	}
	if err == nil {
		err = writeReleased(file, r.path, s)
	}
	r.exists = err == nil
	return err
}

// write makes it safe, in a file that exists.
func (r *releasedFile) write(s released) error {
	file, err := r.fs.Open(r.path)
	if err != nil {
		return err
	}
	if err = writeReleased(file, r.path, s); err == nil {
		r.found = false
	}
	return err
}

// writeReleased writes the file, makes that safe and closes it.
func writeReleased(file vfs.File, path string, s released) error {
	var b []byte
	for range 2 {
		start := len(b)
		b = append(b, releasedMagic...)
		b = binary.LittleEndian.AppendUint32(b, releasedVersion)
		b = binary.LittleEndian.AppendUint32(b, 0)
		b = binary.LittleEndian.AppendUint64(b, s.cursor)
		b = binary.LittleEndian.AppendUint64(b, flags(s.paused))
		putCRC(b[start:], path)
	}
	_, err := file.WriteAt(b, 0)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// load reads the file. Without a good one all messages of the log wait for the first
// channel: better once more than never.
func (r *releasedFile) load(damaged func(offset, bytes int64)) (released, error) {
	s := released{cursor: 1}
	b, err := vfs.ReadFile(r.fs, r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if len(b) == 0 {
		return s, nil // whoever made it died before he wrote it, and before he said that he had
	}
	r.exists, r.found = true, true
	for at := 0; at < 2*releasedSize; at += releasedSize {
		c := b[min(at, len(b)):min(at+releasedSize, len(b))]
		if len(c) < releasedSize || string(c[:8]) != releasedMagic || !goodCRC(c, r.path) {
			damaged(int64(at), int64(len(c)))
			continue
		}
		if version := binary.LittleEndian.Uint32(c[8:]); version != releasedVersion {
			return s, newerVersion(version, releasedVersion)
		}
		s = released{binary.LittleEndian.Uint64(c[16:]), binary.LittleEndian.Uint64(c[24:])&flagPaused != 0}
	}
	return s, nil
}
