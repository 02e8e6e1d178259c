package seglog

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"

	"github.com/millrace/millrace/internal/vfs"
)

// TempSuffix ends the names of files that are not finished. The log's owner removes those
// that it finds before it opens the log.
const TempSuffix = ".tmp"

// Compact rewrites a segment that Sealed returned, so that it holds no records but those
// that keep names, in ascending order; for any other base it does nothing. What is named
// and cannot be read is reported and left out. Readers go on with the new file, which
// takes the old one's place at once and is synced before, whatever the policy: so a crash
// leaves either. When it fails the old one stays. Nobody may Remove or Compact the segment
// at the same time.
func (l *Log) Compact(base uint64, keep []uint64) error {
	old, ok := l.sealed(base)
	if !ok || l.opts.FS == nil || len(keep) == 0 {
		return nil
	}
	name := filepath.Join(l.opts.Dir, segmentName(base))
	w := rewriter{l: l, seg: newSegment(rand.Uint64(), base, old.created)}
	w.seg.owner = l.owner()
	err := w.write(name+TempSuffix, &old, keep)
	if err == nil {
		err = l.replace(w.seg, name)
	}
	if err != nil {
		_ = l.opts.FS.Remove(name + TempSuffix) // if it has that name still
		return fmt.Errorf("compact segment %s: %w", segmentName(base), err)
	}
	return nil
}

// sealed returns the figures of a segment that Sealed lists.
func (l *Log) sealed(base uint64) (footer, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.segments, func(s *segment) bool { return s.base == base })
	if i < 0 || !l.removable(i) {
		return footer{}, false
	}
	return *l.segments[i].footer(), true
}

// replace renames the finished file of s to name, and puts s in the place of the segment
// with its base. Between these two steps the readers that come wait: else one could take
// the new file for the old one, and its records for damage.
func (l *Log) replace(s *segment, name string) error {
	moved := make(chan struct{})
	defer close(moved)
	l.mu.Lock()
	i := slices.IndexFunc(l.segments, func(old *segment) bool { return old.base == s.base })
	if i < 0 { // the log was closed
		l.mu.Unlock()
		return ErrClosed
	}
	old := l.segments[i]
	old.moving = moved
	l.mu.Unlock()

	err := l.opts.FS.Rename(name+TempSuffix, name)

	l.mu.Lock()
	old.moving = nil
	if err == nil {
		i = slices.Index(l.segments, old)
		l.segments[i] = s
		old.blocks, old.removed = nil, true
	}
	l.mu.Unlock()
	if err == nil {
		// Until this is safe, a crash brings the old file back, which has all and more.
		err = l.opts.FS.SyncDir(l.opts.Dir)
	}
	return err
}

// rewriter writes the file of a segment.
type rewriter struct {
	l    *Log
	seg  *segment
	file vfs.File
	buf  []byte
	at   int64 // where buf goes
}

const rewriteBuffer = 1 << 20

// write writes the records of a segment that are to be kept, in a file that is synced.
func (w *rewriter) write(path string, old *footer, keep []uint64) error {
	if err := w.l.opts.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := w.l.opts.FS.Create(path)
	if err != nil {
		return err
	}
	w.file = file
	w.buf = appendHeader(appendHeader(nil, w.seg.header), w.seg.header)
	if err = w.records(keep); err == nil {
		s := w.seg
		// The numbers and times that the log knows of the segment stay as they are.
		s.next, s.visible, s.firstTime, s.lastTime = old.next, old.next, old.firstTime, old.lastTime
		s.committed, s.sealed, s.footed = s.size, true, true
		w.buf = appendFooter(w.buf, s.footer())
		if err = w.flush(); err == nil {
			err = file.Sync()
		}
	}
	return errors.Join(err, file.Close())
}

func (w *rewriter) records(keep []uint64) error {
	reader := w.l.NewReader(keep[0])
	defer reader.Close()
	var one [1]Record
	for _, seq := range keep {
		reader.Seek(seq)
		n, err := reader.Read(one[:])
		if err != nil {
			return err
		}
		if n == 0 || one[0].Seq != seq {
			continue // it is damaged, which was reported
		}
		r := &one[0]
		size := recordSize(len(r.Headers), len(r.Body))
		start := len(w.buf)
		w.buf = slices.Grow(w.buf, size)[:start+size]
		putRecord(w.buf[start:], r, w.seg.salt, w.seg.size)
		w.seg.note(r, int64(size))
		if len(w.buf) >= rewriteBuffer {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *rewriter) flush() error {
	_, err := w.file.WriteAt(w.buf, w.at)
	w.at += int64(len(w.buf))
	w.buf = w.buf[:0]
	return err
}
