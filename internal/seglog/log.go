package seglog

import (
	"errors"
	"fmt"
	"hash/crc32"
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
	// errTakenBack is what a publisher gets, with the reason, whose records stood
	// behind others that could not be written.
	errTakenBack = errors.New("seglog: a write before this one failed")
)

const (
	defaultSegmentSize = 64 << 20
	// memorySegmentSize is smaller, because a segment's memory is freed as a whole.
	memorySegmentSize = 1 << 20
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
	// Name is the log's: a segment of a log with another name, if one comes into Dir, is
	// damage.
	Name string
	// SegmentSize is the size at which a new segment is begun; 0 means 64 MiB, and
	// 1 MiB in memory.
	SegmentSize int64
	// Committer makes appends safe; needed with an FS.
	Committer *Committer
	// Tail is the memory budget that the log shares with others; needed with an FS.
	Tail *Tail
	// OnCommit, if not nil, is called without locks when records have become visible,
	// before the Commit of any of them returns; end is one above the last. Calls for one
	// log may overtake each other, or bring no news.
	OnCommit func(end uint64)
	// OnDamage, if not nil, is called without locks for every piece of a file that
	// cannot be read, each time that somebody tries to.
	OnDamage func(Damage)
}

// Log is a segmented log. Append and the readers may be used at the same time.
type Log struct {
	opts Options

	mu       sync.Mutex // guards what follows, and the segments
	segments []*segment // ascending; the last one may be open
	next     uint64     // the sequence number that the next record gets
	latest   int64      // the time of the last record that was appended since Open
	visible  uint64     // one above the last committed record
	voids    []void     // what was taken back after failed writes, ascending
	closed   bool

	deferrals deferrals

	joined  *round // the latest round it was entered into; the committer's lock guards it
	redoDir string // how the redo log calls Dir; belongs to whoever has the committer's turn
}

// void is a range of sequence numbers whose records were taken back, and the reason.
type void struct {
	from, to uint64
	err      error
}

// Entry is what Append makes a record of.
type Entry struct {
	// Due is when the message may first be delivered, in Unix nanoseconds; 0: at once.
	Due           int64
	Headers, Body []byte
}

// Size is the number of bytes that the entry takes in the log.
func (e Entry) Size() int { return recordSize(len(e.Headers), len(e.Body)) }

// Ticket stands for what one Append has appended. Its sequence numbers are given out only
// once Commit has returned nil: after a crash before that, others may get them.
type Ticket struct {
	// First and End are the first sequence number and one above the last.
	First, End uint64
}

// Append adds n records, the i-th made of entry(i), all with the time now, or that of the
// record before them if somebody with a later time was faster: so that in one run of the
// log times ascend as sequence numbers do, and a time can be searched for. They are
// in memory only, and invisible, until Commit. In a log without files they are visible
// at once. Returns ErrClosed, and then nothing was appended.
//
// It calls entry with the log locked, so that a batch is written without a copy: entry
// must not use the log. It panics when an entry is larger than MaxEntry: whoever takes
// messages in has a limit far below.
func (l *Log) Append(now int64, n int, entry func(i int) Entry) (Ticket, error) {
	t, err := l.append(now, n, entry)
	if l.opts.FS == nil && t.First < t.End {
		l.tell(t.End)
	}
	return t, err
}

func (l *Log) append(now int64, n int, entry func(i int) Entry) (Ticket, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Ticket{}, ErrClosed
	}
	t := Ticket{First: l.next}
	l.latest = max(l.latest, now)
	for i := range n {
		e := entry(i)
		if len(e.Headers)+len(e.Body) > MaxEntry {
			panic(fmt.Sprintf("seglog: an entry of %d bytes", len(e.Headers)+len(e.Body)))
		}
		l.put(&Record{Seq: l.next, Time: l.latest, Due: e.Due, Headers: e.Headers, Body: e.Body}, e.Size())
	}
	t.End = l.next
	if l.opts.FS == nil {
		l.show()
	}
	return t, nil
}

// show makes everything visible, in a log without files. The lock is held.
func (l *Log) show() {
	for i := len(l.segments) - 1; i >= 0 && l.segments[i].committed < l.segments[i].size; i-- {
		s := l.segments[i]
		s.committed, s.visible = s.size, s.next
	}
	l.visible = l.next
}

// Commit returns when what the ticket stands for is safe and visible, or with the
// error that kept it from being so; then no reader of this log sees any of it. (What was
// written and could not be synced may be there when the log is opened the next time.)
func (l *Log) Commit(t Ticket) error {
	if l.opts.FS == nil || t.First == t.End {
		return nil
	}
	// The round's error may be about records that came later than these.
	roundErr := l.opts.Committer.commit(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.voids {
		if v.from < t.End && t.First < v.to {
			if roundErr == nil {
				return fmt.Errorf("%w: %w", errTakenBack, v.err)
			}
			return roundErr
		}
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
	if r.Due != 0 {
		l.noteDeferred(r)
	}
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
	s.owner = l.owner()
	l.segments = append(l.segments, s)
	return s
}

// owner is what stands in the headers of the log's segments.
func (l *Log) owner() uint32 { return crc32.Checksum([]byte(l.opts.Name), castagnoli) }

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

// pending returns the segments with something that is not in their files. They are the
// last ones. The lock is held.
func (l *Log) pending() []*segment {
	i := len(l.segments)
	for i > 0 && l.segments[i-1].pending() {
		i--
	}
	return l.segments[i:]
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
		lo, hi := max(from, s.base), min(to, s.next)
		if lo < hi {
			n += s.before(hi) - s.before(lo)
		}
	}
	return n
}

// SegmentInfo describes a segment that is full.
type SegmentInfo struct {
	// Base is its first possible sequence number, Next one above its last.
	Base, Next uint64
	// Records and Bytes are what it holds: Bytes is the sum of the entries' sizes.
	Records, Bytes int64
	// LastTime is when its last record was appended, in Unix nanoseconds.
	LastTime int64
}

// Sealed returns the segments, oldest first, that take no more records and are wholly
// committed. The last segment that has a file is never among them: what comes after a
// crash is numbered by its base.
func (l *Log) Sealed() []SegmentInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	var infos []SegmentInfo
	for i, s := range l.segments {
		if !l.removable(i) {
			break
		}
		infos = append(infos, SegmentInfo{s.base, s.next, s.count, s.size - headersSize, s.lastTime})
	}
	return infos
}

// removable says whether Sealed lists the i-th segment: one behind it has been written
// to, and with that, in the same round or before, all there was to write to this one.
// The lock is held.
func (l *Log) removable(i int) bool {
	return i+1 < len(l.segments) && l.segments[i+1].begun()
}

// Size returns the bytes that the records take: the sum of their entries' sizes.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int64
	for _, s := range l.segments {
		n += s.size - headersSize
	}
	return n
}

// Remove deletes a segment that Sealed returned; for any other base it does nothing.
// Readers go on behind it. After a power loss the segment may be there again.
func (l *Log) Remove(base uint64) error {
	if !l.forgetSegment(base) || l.opts.FS == nil {
		return nil
	}
	if err := l.opts.FS.Remove(filepath.Join(l.opts.Dir, segmentName(base))); err != nil {
		return fmt.Errorf("remove a consumed segment: %w", err)
	}
	return nil
}

// hasRemoved says whether the segment is no longer part of the log.
func (l *Log) hasRemoved(s *segment) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.removed
}

func (l *Log) forgetSegment(base uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.segments, func(s *segment) bool { return s.base == base })
	if i < 0 || !l.removable(i) {
		return false
	}
	l.segments[i].blocks, l.segments[i].removed = nil, true
	l.segments = slices.Delete(l.segments, i, i+1)
	return true
}

// Close commits what was appended, ends the last segment with its footer and closes its
// file, synced unless the policy is SyncNever. What is committed can still be read.
// Without an FS it frees the memory, and nothing can.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	if l.opts.FS == nil {
		for _, s := range l.segments {
			s.blocks, s.removed = nil, true
		}
		l.segments = nil
		l.mu.Unlock()
		return nil
	}
	if n := len(l.segments); n > 0 {
		l.segments[n-1].sealed = true
	}
	l.mu.Unlock()
	return l.opts.Committer.close(l)
}
