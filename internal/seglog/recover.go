package seglog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
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
)

// Damage is a piece of a file that could not be read, and was skipped.
type Damage struct {
	// File is the segment's file name in the log's directory.
	File string
	// Offset and Bytes say where the piece is.
	Offset, Bytes int64
	// Err says what it is: ErrDamaged, ErrTorn, or what the file system returned.
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
	for i, name := range names {
		base, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		s, err := l.load(base, i == len(names)-1)
		if err != nil {
			return nil, fmt.Errorf("open log: segment %s: %w", name, err)
		}
		if s != nil {
			l.segments = append(l.segments, s)
			l.next = max(l.next, s.next)
		}
	}
	l.visible = l.next
	return l, nil
}

func parseSegmentName(name string) (base uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, ".seg")
	if !ok || len(digits) != 16 {
		return 0, false
	}
	base, err := strconv.ParseUint(digits, 16, 64)
	return base, err == nil
}

// load reads what a segment's footer says, or finds it out by a scan. It returns nil
// for a segment that holds nothing.
func (l *Log) load(base uint64, last bool) (*segment, error) {
	file, err := l.opts.FS.Open(filepath.Join(l.opts.Dir, segmentName(base)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	h, headErr := l.readHeader(file, base)
	if errors.Is(headErr, ErrNewerVersion) {
		return nil, headErr
	}
	f, footErr := readFooter(file, size)
	switch {
	case footErr == nil && (headErr != nil || f.base == base && f.salt == h.salt):
		return segmentOf(f), nil
	case headErr != nil:
		// Without its salt not one record can be told from noise. A file that a crash
		// left before its header was synced holds nothing that was promised.
		l.next = max(l.next, base+maxSegmentRecords)
		zero, err := allZero(file, size)
		if zero && err == nil {
			return nil, l.opts.FS.Remove(filepath.Join(l.opts.Dir, segmentName(base)))
		}
		l.damaged(Damage{segmentName(base), 0, size, headErr})
		return nil, err
	}
	return l.scan(file, h, size, last)
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
	found := error(errBadHeader)
	var bad []int64
	for at := 0; at+headerSize <= len(b); at += headerSize {
		h, err := parseHeader(b[at:])
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
		count: f.count, firstTime: f.firstTime, lastTime: f.lastTime, marks: f.marks,
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
		for rec := l.goodRecord(b, at, s); rec != nil; rec = l.goodRecord(b, at, s) {
			var r Record
			decodeRecord(rec, &r)
			s.size = at
			s.note(&r, int64(len(rec)))
			at = s.size
		}
		skip := resync(b[at:], at, s.salt, s.next, s.base+2*maxSegmentRecords)
		if at+skip >= size {
			break
		}
		l.damaged(Damage{segmentName(s.base), at, skip, ErrDamaged})
		at += skip
	}
	rest := b[s.size:]
	if len(rest) >= 4 && !zeros(rest) {
		err := ErrTorn
		if !last || binary.LittleEndian.Uint32(rest) == footerMark {
			err = ErrDamaged
		}
		l.damaged(Damage{segmentName(s.base), s.size, int64(len(rest)), err})
	}
	if last {
		// Its end may be lost, with numbers that were given out: use none of them again.
		s.next = max(s.next, s.base+maxSegmentRecords)
	}
	s.sealed, s.footed = true, true
	s.committed, s.visible = s.size, s.next
	// A disk too full for the footer only means another scan next time.
	if file.Truncate(s.size) == nil {
		_, _ = file.WriteAt(appendFooter(nil, s.footer()), s.size)
		_ = file.Sync()
	}
	return s, nil
}

// goodRecord returns the record at offset at of the segment's bytes if it is whole,
// passes its checksum, and follows those before it.
func (l *Log) goodRecord(b []byte, at int64, s *segment) []byte {
	rec := nextRecord(b[at:])
	if rec == nil || !recordOK(rec, s.salt, at) {
		return nil
	}
	if seq := binary.LittleEndian.Uint64(rec[8:]); seq < s.next {
		return nil
	}
	return rec
}

func (l *Log) damaged(d Damage) {
	if l.opts.OnDamage != nil {
		l.opts.OnDamage(d)
	}
}

// resync returns how far behind the start of b, which stands at offset off, the next
// good record is, or len(b) when there is none. Only records with a sequence number
// in [from, to) are believed; so nearly no checksum is computed in vain.
func resync(b []byte, off int64, salt, from, to uint64) int64 {
	for at := 1; at+recordFixed <= len(b); at++ {
		seq := binary.LittleEndian.Uint64(b[at+8:])
		if seq < from || seq >= to {
			continue
		}
		if rec := nextRecord(b[at:]); rec != nil && recordOK(rec, salt, off+int64(at)) {
			return int64(at)
		}
	}
	return int64(len(b))
}

func allZero(file vfs.File, size int64) (bool, error) {
	b := make([]byte, size)
	if _, err := file.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return zeros(b), nil
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
