package seglog

import (
	"fmt"
	"path/filepath"
)

// flush is what one log has to write in one round. Whoever has the committer's turn
// owns it, and with it the files of the log's segments.
type flush struct {
	log    *Log
	pieces []piece
	err    error
}

// piece is what there is to write to one segment.
type piece struct {
	seg     *segment
	bufs    [][]byte
	from    int64
	to      int64
	visible uint64
	seal    *footer // if not nil, to be written after that
	written bool
}

// collect takes stock of what is not yet in the files.
func (l *Log) collect() *flush {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := &flush{log: l}
	i := len(l.segments)
	for i > 0 && l.segments[i-1].pending() {
		i--
	}
	for _, s := range l.segments[i:] {
		p := piece{seg: s, from: s.committed, to: s.size, visible: s.next}
		for _, b := range s.blocks {
			end := b.offset + int64(len(b.buf))
			if end <= p.from {
				continue
			}
			p.bufs = append(p.bufs, b.buf[max(p.from-b.offset, 0):])
		}
		if s.sealed {
			p.seal = s.footer()
		}
		f.pieces = append(f.pieces, p)
	}
	return f
}

// pending says whether the segment has something that is not in its file.
func (s *segment) pending() bool {
	return s.committed < s.size || s.sealed && !s.footed
}

// write writes the pieces to their files, creating those that are new.
func (f *flush) write() {
	for i := range f.pieces {
		p := &f.pieces[i]
		if err := f.log.writePiece(p); err != nil {
			f.err = fmt.Errorf("write segment %s: %w", segmentName(p.seg.base), err)
			return
		}
		p.written = true
	}
}

func (l *Log) writePiece(p *piece) error {
	s := p.seg
	if s.file == nil {
		if err := l.create(s); err != nil {
			return err
		}
	}
	at := p.from
	for _, b := range p.bufs {
		if _, err := s.file.WriteAt(b, at); err != nil {
			return err
		}
		at += int64(len(b))
	}
	if p.seal == nil {
		return nil
	}
	_, err := s.file.WriteAt(appendFooter(nil, p.seal), p.seal.end)
	return err
}

// create makes the segment's file, and makes its existence durable: after a crash the
// numbers that were given out are estimated from the last segment's base.
func (l *Log) create(s *segment) error {
	name := filepath.Join(l.opts.Dir, segmentName(s.base))
	file, err := l.opts.FS.Create(name)
	if err != nil {
		return err
	}
	h := appendHeader(appendHeader(nil, s.header), s.header)
	if _, err = file.WriteAt(h, 0); err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = l.opts.FS.SyncDir(l.opts.Dir)
	}
	if err != nil {
		_ = file.Close()
		_ = l.opts.FS.Remove(name)
		return err
	}
	s.file = file
	return nil
}

// sync makes the written pieces durable.
func (f *flush) sync() {
	for i := range f.pieces {
		p := &f.pieces[i]
		if !p.written {
			return
		}
		if err := p.seg.file.Sync(); err != nil {
			p.written = false
			f.err = fmt.Errorf("sync segment %s: %w", segmentName(p.seg.base), err)
			return
		}
	}
}

// finish makes visible what was written, takes back what was not, and passes on the
// files that are to be synced or closed.
func (f *flush) finish(c *Committer) {
	l := f.log
	var full []held
	var orphans []*segment
	l.mu.Lock()
	for i := range f.pieces {
		p := &f.pieces[i]
		if !p.written {
			break
		}
		p.seg.committed, p.seg.visible = p.to, p.visible
		p.seg.footed = p.seal != nil
		l.visible = max(l.visible, p.visible)
		full = p.seg.appendFull(full, l, p.from)
	}
	if f.err != nil {
		orphans = l.takeBack()
	}
	end := l.visible
	l.mu.Unlock()
	f.release(c)
	l.discard(orphans)
	l.opts.Tail.add(full)
	if l.opts.OnCommit != nil {
		l.opts.OnCommit(end)
	}
}

// appendFull lists the blocks that the committed part of the segment covers wholly
// since it ended at from, and that nothing more will be appended to.
func (s *segment) appendFull(full []held, l *Log, from int64) []held {
	for i, b := range s.blocks {
		last := i == len(s.blocks)-1 && !s.sealed
		end := b.offset + int64(len(b.buf))
		if !last && end > from && end <= s.committed {
			full = append(full, held{log: l, seg: s, b: b})
		}
	}
	return full
}

// release passes on the files: to be closed when their segment is full, and before that
// to the background syncer if there is one.
func (f *flush) release(c *Committer) {
	for i := range f.pieces {
		p := &f.pieces[i]
		if !p.written || p.seg.file == nil {
			continue
		}
		sealed := p.seal != nil
		switch {
		case c.interval > 0:
			c.later(p.seg, unsyncedFile{log: f.log, file: p.seg.file, sealed: sealed})
		case sealed:
			_ = p.seg.file.Close()
		}
		if sealed {
			p.seg.file = nil
		}
	}
}

// takeBack removes what is not committed, after a write or sync has failed, and ends
// the segment there: its file is not to be trusted further. The lock is held. It returns
// segments whose files should go, or be cut.
func (l *Log) takeBack() []*segment {
	if n := len(l.voids); n > 0 && l.voids[n-1].to >= l.visible {
		l.voids[n-1].to = l.next
	} else {
		l.voids = append(l.voids, void{l.visible, l.next})
	}
	first := l.firstUncommitted()
	orphans := append([]*segment(nil), l.segments[first:]...)
	for _, s := range orphans {
		s.cut()
	}
	for n := len(l.segments); n > first && l.segments[n-1].count == 0; n-- {
		l.segments = l.segments[:n-1]
	}
	return orphans
}

// cut forgets what is not committed and seals the segment.
func (s *segment) cut() {
	s.sealed, s.footed = true, true
	s.count = s.before(s.visible)
	s.size, s.next = s.committed, s.visible
	for len(s.marks) > 0 && s.marks[len(s.marks)-1].offset >= s.size {
		s.marks = s.marks[:len(s.marks)-1]
	}
	for len(s.blocks) > 0 {
		b := s.blocks[len(s.blocks)-1]
		if b.offset < s.size {
			b.buf = b.buf[:min(int64(len(b.buf)), s.size-b.offset)]
			return
		}
		s.blocks = s.blocks[:len(s.blocks)-1]
	}
}

// discard removes the files of segments that hold nothing, and does what it can to end
// the others at their last good record; where that fails too, the scan of the next
// start finds the end. The caller has the turn.
func (l *Log) discard(orphans []*segment) {
	for _, s := range orphans {
		file := s.file
		s.file = nil
		if file == nil {
			continue
		}
		if s.count == 0 {
			_ = file.Close()
			_ = l.opts.FS.Remove(filepath.Join(l.opts.Dir, segmentName(s.base)))
			continue
		}
		if file.Truncate(s.size) == nil {
			_, _ = file.WriteAt(appendFooter(nil, s.footer()), s.size)
			_ = file.Sync()
		}
		_ = file.Close()
	}
}

// distrust is called when a background sync of the segment has failed: what comes next
// goes to a new file.
func (l *Log) distrust(s *segment, err error) {
	l.mu.Lock()
	s.sealed = true
	l.mu.Unlock()
	if l.opts.OnDamage != nil {
		l.opts.OnDamage(Damage{File: segmentName(s.base), Err: fmt.Errorf("sync in the background: %w", err)})
	}
}
