package seglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/vfs"
)

var (
	// ErrDamaged is in a Damage for bytes that fail their checksum.
	ErrDamaged = errors.New("seglog: damaged bytes")
	// ErrTorn is in a Damage for the unfinished end of the last write before a crash,
	// which was cut off: nobody was told that it is safe.
	ErrTorn = errors.New("seglog: unfinished write at the end")
	// ErrNoEnd is in a Damage, and wraps ErrTorn, for a segment without a footer that is
	// not the last: a full disk had no room for it, or without SyncAlways a power loss took
	// it; or the file has lost its end, with records that cannot be told any more.
	ErrNoEnd = fmt.Errorf("%w, though another segment follows", ErrTorn)
)

// Damage is a piece of a file that could not be read, and was skipped.
type Damage struct {
	// File is the segment's file name in the log's directory.
	File string
	// Offset and Bytes say where the piece is.
	Offset, Bytes int64
	// Err says what it is: ErrDamaged, ErrTorn, ErrNoEnd, or what the file system returned.
	Err error
}

func (d Damage) String() string {
	return fmt.Sprintf("%s: %d bytes at %d: %v", d.File, d.Bytes, d.Offset, d.Err)
}

// Open opens the log in opts.Dir, which must exist, or with no FS a new one in memory.
// What it had to cut off or skip goes to OnDamage. Returns ErrNewerVersion, wrapped, when
// it cannot read the format, and what the file system returns.
func Open(opts Options) (*Log, error) {
	if opts.SegmentSize <= 0 && opts.FS == nil {
		opts.SegmentSize = memorySegmentSize
	} else if opts.SegmentSize <= 0 {
		opts.SegmentSize = defaultSegmentSize
	}
	l := &Log{opts: opts, next: 1, visible: 1}
	if opts.FS == nil {
		return l, nil
	}
	names, err := opts.FS.List(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	// Backwards, because the last one that holds something is not known before.
	for _, name := range slices.Backward(names) {
		base, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		s, err := l.load(base, len(l.segments) == 0)
		if err != nil {
			return nil, fmt.Errorf("open log: segment %s: %w", name, err)
		}
		if s != nil {
			l.segments = append(l.segments, s)
			l.next = max(l.next, s.next)
		}
	}
	slices.Reverse(l.segments)
	l.visible = l.next
	l.startDeferred()
	return l, nil
}

func parseSegmentName(name string) (base uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, ".seg")
	if !ok || len(digits) != 16 {
		return 0, false
	}
	base, err := strconv.ParseUint(digits, 16, 64)
	return base, err == nil && segmentName(base) == name
}

// load reads what a segment's footer says, or finds it out by a scan. It returns nil
// for a segment that holds nothing that can be read.
func (l *Log) load(base uint64, last bool) (*segment, error) {
	name := filepath.Join(l.opts.Dir, segmentName(base))
	file, err := l.opts.FS.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	h, headErr := l.readHeader(file, base)
	if headErr != nil && !errors.Is(headErr, errBadHeader) {
		return nil, headErr
	}
	f, err := readFooter(file, size)
	if err != nil && !errors.Is(err, errBadFooter) {
		return nil, err
	}
	foreign := errors.Is(headErr, errForeign)
	trusted := err == nil && f.base == base && (headErr != nil || f.salt == h.salt) && !foreign
	switch {
	case trusted && headErr != nil:
		l.damaged(Damage{segmentName(base), 0, headersSize, ErrDamaged})
		return segmentOf(f), nil
	case trusted:
		return segmentOf(f), nil
	case size < headersSize || size == headersSize && headErr != nil && !foreign:
		return nil, l.headless(file, base, size, last)
	case headErr != nil:
		// Without its salt not one record can be told from noise; or they are another log's.
		l.next = max(l.next, base+maxSegmentRecords)
		l.damaged(Damage{segmentName(base), 0, size, ErrDamaged})
		return nil, nil
	default:
		return l.scan(file, h, size, last)
	}
}

// headless removes a segment without a header and with nothing else. A crash leaves one as
// the last, before its header was synced: then nothing was ever in it.
func (l *Log) headless(file vfs.File, base uint64, size int64, last bool) error {
	b := make([]byte, size)
	if _, err := file.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch {
	case !last:
		l.damaged(Damage{segmentName(base), 0, size, ErrDamaged})
	case !zeros(b):
		l.damaged(Damage{segmentName(base), 0, size, ErrTorn})
	}
	l.next = max(l.next, base+maxSegmentRecords) // in case that the disk has lost what was in it
	return l.opts.FS.Remove(filepath.Join(l.opts.Dir, segmentName(base)))
}

// readHeader reads the first good one of the two headers and reports a bad one.
func (l *Log) readHeader(file vfs.File, base uint64) (header, error) {
	b := make([]byte, headersSize)
	if n, err := file.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return header{}, err
	} else if n < headersSize {
		b = b[:n]
	}
	var good header
	found := errBadHeader
	var bad []int64
	for at := 0; at+headerSize <= len(b); at += headerSize {
		h, err := parseHeader(b[at:])
		if err == nil && h.owner != l.owner() {
			return header{}, errForeign
		}
		if err == nil && h.base != base {
			err = errBadHeader
		}
		switch {
		case errors.Is(err, ErrNewerVersion):
			return header{}, err
		case err != nil:
			bad = append(bad, int64(at))
		default:
			good, found = h, nil
		}
	}
	if found == nil {
		for _, at := range bad {
			l.damaged(Damage{segmentName(base), at, headerSize, ErrDamaged})
		}
	}
	return good, found
}

func readFooter(file vfs.File, size int64) (*footer, error) {
	if size < headersSize+footerFixed+trailerSize {
		return nil, errBadFooter
	}
	t := make([]byte, trailerSize)
	if _, err := file.ReadAt(t, size-trailerSize); err != nil {
		return nil, err
	}
	offset, length, err := parseTrailer(t, size)
	if err != nil {
		return nil, err
	}
	b := make([]byte, length)
	if _, err := file.ReadAt(b, offset); err != nil {
		return nil, err
	}
	return parseFooter(b)
}

func segmentOf(f *footer) *segment {
	return &segment{
		header: f.header, next: f.next, visible: f.next, size: f.end, committed: f.end,
		count: f.count, firstTime: f.firstTime, lastTime: f.lastTime, marks: f.marks, deferred: f.deferred,
		sealed: true, footed: true,
	}
}

// scan reads a segment that has no footer from end to end, cuts off what a crash left
// unfinished, and gives it its footer, so that it need not be scanned again.
func (l *Log) scan(file vfs.File, h header, size int64, last bool) (*segment, error) {
	b := make([]byte, size)
	if _, err := file.ReadAt(b, 0); err != nil {
		return nil, err
	}
	s := newSegment(h.salt, h.base, h.created)
	at := int64(headersSize)
	for {
		at += s.takeRecords(b[at:], at)
		skip, _ := s.ahead().resync(b[at:], at, size)
		if at+skip >= size {
			break
		}
		l.damaged(Damage{segmentName(s.base), at, skip, ErrDamaged})
		at += skip
	}
	if rest := b[s.size:]; !zeros(rest) {
		l.damaged(Damage{segmentName(s.base), s.size, int64(len(rest)), whatIsCut(rest, last)})
	} else if !last {
		l.damaged(Damage{segmentName(s.base), s.size, int64(len(rest)), ErrNoEnd})
	}
	if last {
		// Its end may be lost, with numbers that were given out: use none of them again.
		s.next = h.limit()
	}
	s.sealed, s.footed = true, true
	s.committed, s.visible = s.size, s.next
	// A disk too full for the footer only means another scan next time.
	if endSegment(file, s.footer()) == nil {
		_ = file.Sync()
	}
	return s, nil
}

// ahead is what may follow the records that were noted.
func (s *segment) ahead() expected { return expected{s.salt, s.next, s.limit()} }

// takeRecords notes the good records at the start of b, which stands at offset at, and
// returns their length.
func (s *segment) takeRecords(b []byte, at int64) (n int64) {
	var r Record
	for {
		rec := s.ahead().goodRecord(b[n:], at+n)
		if rec == nil || !decodeRecord(rec, &r) {
			return n
		}
		s.size = at + n
		s.note(&r, int64(len(rec)))
		n += int64(len(rec))
	}
}

// whatIsCut says what the bytes are that follow the last good record of a segment which
// has no good footer. In the last segment that is what a crash did not let be finished,
// unless the log had been closed.
func whatIsCut(rest []byte, last bool) error {
	closed := bytes.HasSuffix(rest, []byte(trailerMagic)) ||
		len(rest) >= 4 && binary.LittleEndian.Uint32(rest) == footerMark
	if last && !closed {
		return ErrTorn
	}
	return ErrDamaged
}

func (l *Log) damaged(d Damage) {
	if l.opts.OnDamage != nil {
		l.opts.OnDamage(d)
	}
}

// resync looks for the next good record behind the start of b, where there is none. b
// stands at offset off of a segment whose records end at end. It returns how far away the
// record is, or how far the end when there is none; and false when b would have to be
// longer to tell.
//
// Only sequence numbers that are expected are believed; so nearly no checksum is computed
// in vain.
func (x expected) resync(b []byte, off, end int64) (skip int64, ok bool) {
	for at := 1; at+recordFixed <= len(b); at++ {
		if x.hasSeq(b[at:]) && x.goodRecord(b[at:], off+int64(at)) != nil {
			return int64(at), true
		}
	}
	return end - off, off+int64(len(b)) == end
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
