package seglog

import (
	"fmt"
	"sort"

	"github.com/millrace/millrace/internal/vfs"
)

// segment is one file of the log, or in a log without files, what would be one.
// The log's lock guards it; only file belongs to whoever has the committer's turn.
type segment struct {
	header
	next      uint64 // one above the last record appended, base when there is none
	size      int64  // where the next record goes
	committed int64  // up to here readers may look
	visible   uint64 // one above the last committed record
	count     int64
	firstTime int64
	lastTime  int64
	marks     []mark
	deferred  []int         // see deferrals: indices of marks, ascending
	blocks    []*block      // ascending, contiguous, ending at size; the older ones may be gone
	sealed    bool          // takes no more records
	file      vfs.File      // open while the segment may be written to; nil in memory
	footed    bool          // nothing more is to be written, not even its footer
	redone    bool          // some of it may be safe in the redo log alone; like file
	doubtful  bool          // its file may lack what was committed: it gets no footer
	removed   bool          // no longer part of the log
	moving    chan struct{} // not nil while another file takes the place of its own; closed then
}

// block is a piece of a segment that is still in memory. Bytes that were written are
// never changed, so a reader may look at committed ones without the lock.
type block struct {
	offset int64 // in the file
	buf    []byte
	held   bool // the Tail has it
}

func (b *block) end() int64 { return b.offset + int64(len(b.buf)) }

func newSegment(salt, base uint64, created int64) *segment {
	return &segment{
		header: header{salt: salt, base: base, created: created},
		next:   base, visible: base,
		size: headersSize, committed: headersSize,
	}
}

func segmentName(base uint64) string { return fmt.Sprintf("%016x.seg", base) }

// pending says whether the segment has something that is not in its file.
func (s *segment) pending() bool {
	return s.committed < s.size || s.sealed && !s.footed
}

// begun says whether something of the segment was ever committed, or found on the disk.
func (s *segment) begun() bool { return s.committed > headersSize || s.footed }

func (s *segment) footer() *footer {
	return &footer{
		header: s.header, next: s.next, firstTime: s.firstTime, lastTime: s.lastTime,
		count: s.count, marks: s.marks, deferred: s.deferred, end: s.size,
	}
}

// note keeps the segment's figures for a record of n bytes that stands at its end.
func (s *segment) note(r *Record, n int64) {
	if len(s.marks) == 0 || s.size-s.marks[len(s.marks)-1].offset >= markEvery {
		s.marks = append(s.marks, mark{seq: r.Seq, offset: s.size, count: s.count})
	}
	if r.Due != 0 {
		s.noteDeferred()
	}
	if s.count == 0 {
		s.firstTime = r.Time
	}
	s.lastTime = r.Time
	s.count++
	s.next = r.Seq + 1
	s.size += n
}

// find returns the last mark at or before seq: where to start looking for it.
func (s *segment) find(seq uint64) mark {
	i := sort.Search(len(s.marks), func(i int) bool { return s.marks[i].seq > seq })
	if i == 0 {
		return mark{seq: s.base, offset: headersSize}
	}
	return s.marks[i-1]
}

// before tells how many records of the segment have a lower sequence number than seq.
// It is exact unless there are holes between two marks.
func (s *segment) before(seq uint64) int64 {
	if seq <= s.base {
		return 0
	}
	m := s.find(seq)
	i := sort.Search(len(s.marks), func(i int) bool { return s.marks[i].seq > seq })
	upper := s.count
	if i < len(s.marks) {
		upper = s.marks[i].count
	}
	return min(m.count+int64(seq-m.seq), upper) //nolint:gosec // a segment holds far fewer than 2^63 records
}

// blocksFrom returns the blocks in memory that end behind offset.
func (s *segment) blocksFrom(offset int64) []*block {
	i := sort.Search(len(s.blocks), func(i int) bool { return s.blocks[i].end() > offset })
	return s.blocks[i:]
}

// blockAt returns the block in memory that holds offset, or nil.
func (s *segment) blockAt(offset int64) *block {
	if b := s.blocksFrom(offset); len(b) > 0 && b[0].offset <= offset {
		return b[0]
	}
	return nil
}
