package seglog

import (
	"fmt"
	"path/filepath"
)

// Ended returns the last segment if it takes no more records and holds some: after the
// log was opened again, or a write to it failed. It cannot be removed, because its footer
// says where numbers go on; but see Hollow.
func (l *Log) Ended() (SegmentInfo, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.ended()
	if s == nil {
		return SegmentInfo{}, false
	}
	return SegmentInfo{s.base, s.next, s.count, s.size - headersSize, s.lastTime}, true
}

// ended returns the segment that Ended describes, or nil. The lock is held.
func (l *Log) ended() *segment {
	if len(l.segments) == 0 {
		return nil
	}
	s := l.segments[len(l.segments)-1]
	if !s.sealed || !s.footed || s.file != nil || s.count == 0 {
		return nil
	}
	return s
}

// Hollow takes the records out of the segment that Ended returned, and gives its space
// back to the disk: were it to wait for a successor, a full disk on which the successor
// cannot be made would stay full for good. For any other base it does nothing. A crash
// between the cut and the new footer leaves a segment without records, whose numbers are
// not used again either.
func (l *Log) Hollow(base uint64) error {
	l.mu.Lock()
	s := l.ended()
	if s == nil || s.base != base {
		l.mu.Unlock()
		return nil
	}
	s.size, s.committed, s.count = headersSize, headersSize, 0
	s.marks, s.deferred, s.blocks = nil, nil, nil
	footer := s.footer()
	l.mu.Unlock()
	if l.opts.FS == nil {
		return nil
	}
	file, err := l.opts.FS.Open(filepath.Join(l.opts.Dir, segmentName(base)))
	if err == nil {
		err = endSegment(file, footer)
		_ = file.Close()
	}
	if err != nil {
		return fmt.Errorf("free the space of a consumed segment: %w", err)
	}
	return nil
}
