package seglog

import (
	"fmt"
	"path/filepath"
	"sort"

	"github.com/millrace/millrace/internal/vfs"
)

// A reader starts with small reads, because it may have come for one record, and reads
// ahead as it goes on.
const (
	firstChunk int64 = 64 << 10
	lastChunk  int64 = 1 << 20
)

// Reader reads the visible records in the order of their sequence numbers: from memory
// where they still are there, else from the files with read-ahead. It is for one
// goroutine; a log may have many.
type Reader struct {
	log  *Log
	seq  uint64 // the lowest sequence number that is wanted
	seg  *segment
	off  int64 // in seg, of the next record; seq may lie further on
	file vfs.File
	// chunk is what was read from the file, at chunkOff. It is never written to again,
	// because records share its memory.
	chunk    []byte
	chunkOff int64
	ahead    int64
	stale    vfs.File // of the segment before: to be closed
}

// NewReader returns a reader that starts at the first visible record with a sequence
// number of at least seq. Close it to free its file.
func (l *Log) NewReader(seq uint64) *Reader {
	return &Reader{log: l, seq: seq, ahead: firstChunk}
}

// Seek makes the next Read start at seq. Going forward a little costs little.
func (r *Reader) Seek(seq uint64) {
	if r.seg != nil && seq >= r.seq && seq-r.seq < 1024 {
		r.seq = seq
		return
	}
	if seq != r.seq {
		r.closeStale()
		r.leave()
		r.seq = seq
	}
}

// Close frees the reader's file.
func (r *Reader) Close() {
	r.leave()
	r.closeStale()
}

// leave lets go of the segment that was read. Its file is left to closeStale, because
// the log's lock may be held.
func (r *Reader) leave() {
	if r.file != nil {
		r.stale = r.file
	}
	r.file, r.seg, r.chunk, r.ahead = nil, nil, nil, firstChunk
}

func (r *Reader) closeStale() {
	if r.stale != nil {
		_ = r.stale.Close()
		r.stale = nil
	}
}

// span is a stretch of committed records that a reader may look at without the lock.
type span struct {
	mem      []byte // in memory, from the reader's offset; nil: in the file
	end      int64  // where the committed part of the segment ends
	expected        // in the file
}

// Read fills dst with the next records and returns how many there were, 0 when there
// are no more for now. It stops early at the end of a piece of memory or of a segment,
// so fewer than len(dst) does not mean that there are no more.
// Returns what the file system returns. Damaged records are reported and skipped.
func (r *Reader) Read(dst []Record) (int, error) {
	for len(dst) > 0 {
		s, ok := r.log.locate(r)
		r.closeStale()
		if !ok {
			return 0, nil
		}
		var n int
		var err error
		if s.mem != nil {
			n = r.parse(dst, s.mem, nil)
		} else {
			n, err = r.readFile(dst, &s)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, nil
}

// locate moves the reader to the segment and offset where its next record is, and
// returns what can be read there. It returns false at the end of what is visible.
func (l *Log) locate(r *Reader) (span, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.seq >= l.visible {
		return span{}, false
	}
	if s := r.seg; s == nil || r.off >= s.committed || s.removed {
		if s != nil && s.removed {
			s = nil // another may have taken its place
		}
		if s = l.after(s, r.seq); s == nil {
			return span{}, false
		}
		r.enter(s)
	}
	s := r.seg
	if b := s.blockAt(r.off); b != nil {
		end := min(b.end(), s.committed)
		return span{mem: b.buf[r.off-b.offset : end-b.offset], end: s.committed}, true
	}
	return span{end: s.committed, expected: expected{s.salt, s.base, s.visible}}, true
}

// after returns the segment to read seq from, coming from the segment that was read to
// its end, if any. The lock is held.
func (l *Log) after(read *segment, seq uint64) *segment {
	i := sort.Search(len(l.segments), func(i int) bool {
		s := l.segments[i]
		return s.visible > seq && (read == nil || s.base > read.base)
	})
	for _, s := range l.segments[i:] {
		if s.committed > headersSize { // a crash may have left one with nothing in it
			return s
		}
	}
	return nil
}

// enter moves the reader to where its next record must be looked for in s.
func (r *Reader) enter(s *segment) {
	r.leave()
	r.seg, r.off, r.ahead = s, headersSize, firstChunk
	if r.seq > s.base {
		r.off = s.find(r.seq).offset
	}
}

// parse takes records from b, which stands at the reader's offset, until dst is full or
// b holds no further whole one, and moves the reader behind them. What is not from memory
// is checked against what is expected.
func (r *Reader) parse(dst []Record, b []byte, x *expected) int {
	n, at := 0, 0
	for n < len(dst) {
		var rec []byte
		if x == nil {
			rec = nextRecord(b[at:])
		} else {
			rec = x.goodRecord(b[at:], r.off+int64(at))
		}
		if rec == nil || !decodeRecord(rec, &dst[n]) {
			break
		}
		at += len(rec)
		if dst[n].Seq >= r.seq {
			r.seq = dst[n].Seq + 1
			n++
		}
	}
	r.off += int64(at)
	return n
}

// readFile is Read for what is no longer in memory. It may return no record although
// there are more: when it has skipped some, or the file is gone.
func (r *Reader) readFile(dst []Record, s *span) (int, error) {
	if err := r.open(); err != nil || r.file == nil {
		return 0, err
	}
	before := r.off
	if n := r.parse(dst, r.chunkFrom(r.off), &s.expected); r.off > before {
		return n, nil
	}
	for size := r.ahead; ; size *= 2 {
		if err := r.fetch(s.end, size); err != nil {
			return 0, err
		}
		n := r.parse(dst, r.chunk, &s.expected)
		if r.off == before && s.longer(r.chunk, r.off) {
			if err := r.fetch(s.end, recordLen(r.chunk)); err != nil {
				return 0, err
			}
			n = r.parse(dst, r.chunk, &s.expected)
		}
		if r.off > before {
			r.ahead = min(2*r.ahead, lastChunk)
			return n, nil
		}
		if skip, ok := s.resync(r.chunk, r.off, s.end); ok {
			r.log.damaged(Damage{segmentName(r.seg.base), r.off, skip, ErrDamaged})
			r.off += skip
			return 0, nil
		}
	}
}

// longer says whether the record at the start of b, which stands at offset off, goes on
// behind b, if it is one.
func (s *span) longer(b []byte, off int64) bool {
	n := recordLen(b)
	return n > int64(len(b)) && n <= s.end-off && s.hasSeq(b)
}

// open opens the file of the reader's segment. When the segment was removed meanwhile, or
// another takes its place, the file stays nil, and the reader goes on behind it or there.
func (r *Reader) open() error {
	if r.file != nil {
		return nil
	}
	l := r.log
	file, err := l.opts.FS.Open(filepath.Join(l.opts.Dir, segmentName(r.seg.base)))
	l.mu.Lock()
	removed, moving := r.seg.removed, r.seg.moving
	l.mu.Unlock()
	switch {
	case removed || moving != nil:
		if err == nil {
			_ = file.Close() // whose it is can no longer be told
		}
		if moving != nil {
			<-moving
		}
		return nil
	case err != nil:
		return fmt.Errorf("read the log: %w", err)
	}
	r.file = file
	return nil
}

func (r *Reader) chunkFrom(off int64) []byte {
	at := off - r.chunkOff
	if at < 0 || at >= int64(len(r.chunk)) {
		return nil
	}
	return r.chunk[at:]
}

// fetch reads up to size bytes from the reader's offset on into a new chunk.
func (r *Reader) fetch(end, size int64) error {
	r.chunk, r.chunkOff = make([]byte, min(size, end-r.off)), r.off
	if _, err := r.file.ReadAt(r.chunk, r.off); err != nil {
		r.chunk = nil
		return fmt.Errorf("read the log: segment %s at byte %d: %w", segmentName(r.seg.base), r.off, err)
	}
	return nil
}
