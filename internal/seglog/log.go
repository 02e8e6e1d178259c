package seglog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/vfs"
)

var (
	// ErrClosed is returned when a log is used after Close.
	ErrClosed = errors.New("seglog: log is closed")
	// errTakenBack is what a publisher gets whose records stood behind others that
	// could not be written.
	errTakenBack = errors.New("seglog: a write before this one failed")
)

const (
	defaultSegmentSize = 64 << 20
	// memorySegmentSize is smaller, because a segment's memory is freed as a whole.
	memorySegmentSize = 1 << 20
	// maxSegmentRecords bounds how many sequence numbers one segment can use up. After
	// an unclean stop numbers go on that far above the last segment's base, so that
	// none is used twice although the end of that segment may be lost.
	maxSegmentRecords = 1 << 21
	minBlock          = 4 << 10
	maxBlock          = 64 << 10
)

// MaxEntry is the most bytes that the headers and the body of an entry may have together.
const MaxEntry = 1 << 30

// Options say how a log is kept.
type Options struct {
	// FS and Dir are where the segments are. A nil FS keeps them in memory alone.
	FS  vfs.FS
	Dir string
	// SegmentSize is the size at which a new segment is begun; 0 means 64 MiB, and
	// 1 MiB in memory.
	SegmentSize int64
	// Committer makes appends safe; needed with an FS.
	Committer *Committer
	// Tail is the memory budget that the log shares with others; needed with an FS.
	Tail *Tail
	// OnCommit, if not nil, is called without locks whenever records have become
	// visible; end is one above the last of them. Calls for one log may overtake
	// each other.
	OnCommit func(end uint64)
	// OnDamage, if not nil, is called for every piece of a file that cannot be read.
	OnDamage func(Damage)
}

// Log is a segmented log. Append and the readers may be used at the same time.
type Log struct {
	opts Options

	mu       sync.Mutex // guards what follows, and the segments
	segments []*segment // ascending; the last one may be open
	next     uint64     // the sequence number that the next record gets
	visible  uint64     // one above the last committed record
	voids    []void     // what was taken back after failed writes, ascending
	closed   bool
}

// void is a range of sequence numbers whose records were taken back.
type void struct{ from, to uint64 }

// Entry is what Append makes a record of.
type Entry struct {
	// Due is when the message may first be delivered, in Unix nanoseconds; 0: at once.
	Due           int64
	Headers, Body []byte
}

// Size is the number of bytes that the entry takes in the log.
func (e Entry) Size() int { return recordSize(len(e.Headers), len(e.Body)) }

// Ticket stands for what one Append has appended.
type Ticket struct {
	// First and End are the first sequence number and one above the last.
	First, End uint64
}

// Append adds n records, the i-th made of entry(i), all with the time now. They are
// in memory only, and invisible, until Commit. No entry may be larger than MaxEntry.
// Returns ErrClosed, and then nothing was appended.
func (l *Log) Append(now int64, n int, entry func(i int) Entry) (Ticket, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return Ticket{}, ErrClosed
	}
	t := Ticket{First: l.next}
	for i := range n {
		e := entry(i)
		size := recordSize(len(e.Headers), len(e.Body))
		l.put(&Record{Seq: l.next, Time: now, Due: e.Due, Headers: e.Headers, Body: e.Body}, size)
	}
	t.End = l.next
	if l.opts.FS != nil {
		l.mu.Unlock()
		return t, nil
	}
	s := l.segments[len(l.segments)-1]
	for _, seg := range l.segments[l.firstUncommitted():] {
		seg.committed, seg.visible = seg.size, seg.next
	}
	l.visible = s.next
	l.mu.Unlock()
	if l.opts.OnCommit != nil && n > 0 {
		l.opts.OnCommit(t.End)
	}
	return t, nil
}

// Commit returns when what the ticket stands for is safe and visible, or with the
// error that kept it from being so; then it never becomes visible.
func (l *Log) Commit(t Ticket) error {
	if l.opts.FS == nil || t.First == t.End {
		return nil
	}
	err := l.opts.Committer.commit(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.voids {
		if v.from <= t.First && t.First < v.to {
			if err == nil {
				err = errTakenBack
			}
			return err
		}
	}
	if l.visible < t.End {
		if err == nil {
			err = ErrClosed
		}
		return err
	}
	return nil
}

// put encodes one record at the end of the log. The lock is held.
func (l *Log) put(r *Record, size int) {
	s := l.active(int64(size))
	b := s.room(size)
	at := len(b.buf)
	b.buf = b.buf[:at+size]
	putRecord(b.buf[at:], r, s.salt, s.size)
	s.note(r, int64(size))
	l.next = s.next
}

// active returns the segment that takes a record of the given size.
func (l *Log) active(size int64) *segment {
	if n := len(l.segments); n > 0 {
		s := l.segments[n-1]
		full := s.size+size > l.opts.SegmentSize && s.count > 0 || s.next-s.base >= maxSegmentRecords
		if !s.sealed && !full {
			return s
		}
		s.sealed = true
	}
	s := newSegment(rand.Uint64(), l.next, time.Now().UnixNano())
	l.segments = append(l.segments, s)
	return s
}

// room returns the segment's last block, with room for size bytes more. Blocks grow
// with their segment, so that a topic with a few messages takes a few kilobytes.
func (s *segment) room(size int) *block {
	if n := len(s.blocks); n > 0 {
		if b := s.blocks[n-1]; cap(b.buf)-len(b.buf) >= size {
			return b
		}
	}
	length := max(size, int(min(max(s.size-headersSize, minBlock), maxBlock)))
	b := &block{offset: s.size, buf: make([]byte, 0, length)}
	s.blocks = append(s.blocks, b)
	return b
}

// firstUncommitted returns the index of the first segment with records that are not
// committed. The lock is held.
func (l *Log) firstUncommitted() int {
	i := len(l.segments)
	for i > 0 && l.segments[i-1].committed < l.segments[i-1].size {
		i--
	}
	return i
}

// forget drops a block from memory; it can be read from its file.
func (l *Log) forget(s *segment, b *block) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(s.blocks, b); i >= 0 {
		s.blocks = slices.Delete(s.blocks, i, i+1)
	}
}

// End returns one above the last visible record: where a new channel would start.
func (l *Log) End() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.visible
}

// Count returns how many visible records have a sequence number in [from, to). Where a
// segment has holes it may count up to 64 KiB worth of records too many or too few.
func (l *Log) Count(from, to uint64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	to = min(to, l.visible)
	var n int64
	for _, s := range l.segments {
		if s.base < to && s.next > from {
			n += s.before(min(to, s.next)) - s.before(max(from, s.base))
		}
	}
	return n
}

// SegmentInfo describes a segment that is full.
type SegmentInfo struct {
	// Base is its first possible sequence number, Next one above its last.
	Base, Next uint64
	// Records and Bytes are what it holds.
	Records, Bytes int64
	// LastTime is when its last record was appended, in Unix nanoseconds.
	LastTime int64
}

// Sealed returns the segments, oldest first, that take no more records and are wholly
// committed. The last segment is never among them.
func (l *Log) Sealed() []SegmentInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	var infos []SegmentInfo
	for i, s := range l.segments {
		if i == len(l.segments)-1 || s.committed < s.size {
			break
		}
		infos = append(infos, SegmentInfo{s.base, s.next, s.count, s.size, s.lastTime})
	}
	return infos
}

// Size returns the bytes that the segments hold.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int64
	for _, s := range l.segments {
		n += s.size
	}
	return n
}

// Remove deletes a segment that Sealed returned. Readers go on behind it.
func (l *Log) Remove(base uint64) error {
	l.mu.Lock()
	at := -1
	for i, s := range l.segments[:max(len(l.segments)-1, 0)] {
		if s.base == base && s.committed == s.size {
			at = i
		}
	}
	if at < 0 {
		l.mu.Unlock()
		return nil
	}
	s := l.segments[at]
	l.segments = append(l.segments[:at:at], l.segments[at+1:]...)
	s.blocks, s.removed = nil, true
	l.mu.Unlock()
	if l.opts.FS == nil {
		return nil
	}
	// A round might be about to write the segment's footer. Its file, if it is still
	// open, is closed by whoever syncs it.
	return l.opts.Committer.exclusively(func() error {
		if err := l.opts.FS.Remove(filepath.Join(l.opts.Dir, segmentName(base))); err != nil {
			return fmt.Errorf("remove a consumed segment: %w", err)
		}
		return nil
	})
}

// Close commits what was appended, writes the footer of the last segment and closes
// its file. Without an FS it frees the memory.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	if n := len(l.segments); n > 0 {
		l.segments[n-1].sealed = true
	}
	l.mu.Unlock()
	if l.opts.FS == nil {
		return nil
	}
	return l.opts.Committer.close(l)
}
