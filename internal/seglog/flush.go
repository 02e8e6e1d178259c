package seglog

import (
	"fmt"
	"path/filepath"

	"github.com/millrace/millrace/internal/vfs"
)

// flush is what one log has to write in one round. Whoever has the committer's turn
// owns it, and with it the files of the log's segments. It succeeds or fails as a whole,
// so that no batch is half visible.
type flush struct {
	log    *Log
	pieces []piece
	err    error
	end    uint64 // what was visible when it was finished
	redone bool   // the redo log has made it safe
	did    CommitStats
}

// piece is what there is to write to one segment.
type piece struct {
	seg     *segment
	bufs    [][]byte
	from    int64
	to      int64
	visible uint64
	seal    *footer // if not nil, to be written after that
	bare    bool    // but not to the file, which may lack what was committed
}

// collect takes stock of what is not yet in the files.
func (l *Log) collect() *flush {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := &flush{log: l}
	for _, s := range l.pending() {
		p := piece{seg: s, from: s.committed, to: s.size, visible: s.next}
		for _, b := range s.blocksFrom(p.from) {
			p.bufs = append(p.bufs, b.buf[max(p.from-b.offset, 0):])
		}
		if s.sealed {
			p.seal, p.bare = s.footer(), s.doubtful
		}
		f.pieces = append(f.pieces, p)
	}
	return f
}

// run writes the pieces to their files and, if asked to, syncs them.
//
// With sync, a footer is written only after the records before it are synced, and so is
// the next segment's file created. After a power loss, then, a footer vouches for every
// record before it, and only the last segment can have an unfinished end.
func (f *flush) run(sync bool) {
	for i := range f.pieces {
		p := &f.pieces[i]
		if err := f.write(p, sync); err != nil {
			f.err = fmt.Errorf("write segment %s: %w", segmentName(p.seg.base), err)
			return
		}
	}
	if sync {
		f.sync()
	}
}

// sync syncs the files of what was written.
func (f *flush) sync() {
	if f.err != nil {
		return
	}
	for _, p := range f.pieces {
		if err := f.did.sync(p.seg.file); err != nil {
			f.err = fmt.Errorf("sync segment %s: %w", segmentName(p.seg.base), err)
			return
		}
	}
}

// write writes one piece to its file, which it creates if there is none yet.
func (f *flush) write(p *piece, sync bool) error {
	s := p.seg
	if s.file == nil {
		file, err := f.log.create(s)
		if err != nil {
			return err
		}
		s.file = file
	}
	at := p.from
	for _, b := range p.bufs {
		if _, err := s.file.WriteAt(b, at); err != nil {
			return err
		}
		at += int64(len(b))
	}
	f.did.Bytes += uint64(at - p.from) //nolint:gosec // offsets ascend
	if p.seal == nil || p.bare {
		return nil
	}
	if sync && (len(p.bufs) > 0 || s.redone) {
		if err := f.did.sync(s.file); err != nil {
			return err
		}
	}
	_, err := s.file.WriteAt(appendFooter(nil, p.seal), p.seal.end)
	return err
}

// create makes the segment's file, and makes its existence durable: after a crash the
// numbers that were given out are estimated from the last segment's base.
func (l *Log) create(s *segment) (vfs.File, error) {
	name := filepath.Join(l.opts.Dir, segmentName(s.base))
	file, err := l.opts.FS.Create(name)
	if err != nil {
		return nil, err
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
		return nil, err
	}
	return file, nil
}

// finish makes visible what was written, or takes it back, and passes on the files that
// are to be synced or closed.
func (f *flush) finish(c *Committer) {
	l := f.log
	var full []held
	var abandoned []*segment
	l.mu.Lock()
	if f.err != nil {
		abandoned = l.takeBack(f.err)
	}
	for _, s := range abandoned {
		full = s.appendFull(full, l)
	}
	for _, p := range f.pieces {
		if f.err != nil {
			break
		}
		p.seg.committed, p.seg.visible = p.to, p.visible
		p.seg.footed = p.seal != nil
		l.visible = p.visible
		full = p.seg.appendFull(full, l)
	}
	f.end = l.visible
	l.mu.Unlock()
	for _, s := range abandoned {
		l.abandon(c, s)
	}
	for _, p := range f.pieces {
		if f.err == nil {
			p.seg.redone = p.seg.redone || f.redone
			c.release(l, p.seg, f.redone, p.seal != nil)
		}
	}
	l.opts.Tail.add(full)
}

// announce tells the log's owner what is visible, also when this round had no part in
// that: whoever made it so may not have come to tell it yet, and no Commit may return
// before it is told. The caller has no turn.
func (f *flush) announce() { f.log.tell(f.end) }

// appendFull lists the blocks that are wholly committed and that nothing more will be
// appended to, those that it has not listed before.
func (s *segment) appendFull(full []held, l *Log) []held {
	n := len(s.blocks)
	if n > 0 && !s.sealed {
		n-- // it may be appended to
	}
	for n > 0 && s.blocks[n-1].end() > s.committed {
		n--
	}
	first := n
	for first > 0 && !s.blocks[first-1].held {
		first--
	}
	for _, b := range s.blocks[first:n] {
		b.held = true
		full = append(full, held{log: l, seg: s, b: b})
	}
	return full
}

// takeBack removes all that is not committed, also what came after the round that
// failed, and seals the segments that it was in: their files are not to be trusted
// further. It returns them. The lock is held.
func (l *Log) takeBack(err error) []*segment {
	if n := len(l.voids); n > 0 && l.voids[n-1].to >= l.visible {
		l.voids[n-1].to, l.voids[n-1].err = l.next, err
	} else if l.visible < l.next {
		l.voids = append(l.voids, void{l.visible, l.next, err})
	}
	l.cutDeferred()
	cut := append([]*segment(nil), l.pending()...)
	for _, s := range cut {
		s.cut()
	}
	for n := len(l.segments); n > 0 && !l.segments[n-1].begun(); n-- {
		l.segments = l.segments[:n-1]
	}
	return cut
}

// cut forgets what is not committed and seals the segment.
func (s *segment) cut() {
	s.sealed, s.footed = true, s.committed > headersSize
	s.count = s.before(s.visible)
	s.size, s.next = s.committed, s.visible
	for len(s.marks) > 0 && s.marks[len(s.marks)-1].offset >= s.size {
		s.marks = s.marks[:len(s.marks)-1]
	}
	s.cutDeferred()
	for n := len(s.blocks); n > 0; n-- {
		if b := s.blocks[n-1]; b.offset < s.size {
			b.buf = b.buf[:min(int64(len(b.buf)), s.size-b.offset)]
			return
		}
		s.blocks = s.blocks[:n-1]
	}
}

// abandon removes the file of a segment that holds nothing, and does what it can to end
// another at its last committed record; where that fails too, the scan of the next start
// finds the end. The caller has the turn.
func (l *Log) abandon(c *Committer, s *segment) {
	if s.file == nil {
		return
	}
	if !s.begun() {
		_ = l.opts.FS.Remove(filepath.Join(l.opts.Dir, segmentName(s.base)))
	} else if endSegment(s.file, s.footer()) == nil {
		_ = s.file.Sync()
	}
	c.release(l, s, false, true)
}

// endSegment cuts the file behind its last record and, once that is safe, writes the footer
// there. The other way round a power loss could bring back what was cut off, although the
// footer had been believed meanwhile, and its numbers were given out again.
func endSegment(file vfs.File, f *footer) error {
	if err := file.Truncate(f.end); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	_, err := file.WriteAt(appendFooter(nil, f), f.end)
	if err != nil {
		_ = file.Truncate(f.end) // half a footer would look like damage
	}
	return err
}

// distrust is called when a background sync of the segment has failed: what comes next
// goes to a new file. What the redo log alone has must not get a footer, which would say
// that the file has it.
func (l *Log) distrust(s *segment, err error, redone bool) {
	l.mu.Lock()
	s.sealed, s.doubtful = true, redone
	l.mu.Unlock()
	l.damaged(Damage{File: segmentName(s.base), Err: err})
}
