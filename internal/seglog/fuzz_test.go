package seglog

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/millrace/millrace/internal/vfs"
)

// fuzzSalt is in all seeds, so that what the fuzzer makes of them is often nearly right.
const fuzzSalt = 0x0123456789abcdef

// fuzzRecords are a few records as they stand at the start of a segment.
func fuzzRecords() (file []byte, s *segment) {
	s = newSegment(fuzzSalt, 1, 5)
	file = appendHeader(appendHeader(nil, s.header), s.header)
	for i, e := range []Entry{{}, {Body: []byte("body")}, {Headers: []byte("h"), Body: []byte("x"), Due: 7}, {Headers: []byte("only")}} {
		r := Record{Seq: uint64(i + 1), Time: 3, Due: e.Due, Headers: e.Headers, Body: e.Body}
		b := make([]byte, e.Size())
		putRecord(b, &r, s.salt, s.size)
		s.note(&r, int64(len(b)))
		file = append(file, b...)
	}
	return file, s
}

// mend sets right the checksums that stand where the format has them, so that the fuzzer
// gets past them: of the headers, of the records as far as their lengths lead from one to
// the next, and of the footer.
func mend(file []byte) {
	le := binary.LittleEndian
	for at := 0; at < headersSize && at+headerSize <= len(file); at += headerSize {
		copy(file[at:], headerMagic)
		le.PutUint32(file[at+12:], 0) // the owner, of a log without a name
		le.PutUint32(file[at+8:], FormatVersion)
		le.PutUint64(file[at+24:], 1)
		le.PutUint32(file[at+60:], crc32.Checksum(file[at:at+60], castagnoli))
	}
	at := headersSize
	for at < len(file) {
		rec := nextRecord(file[at:])
		if rec == nil {
			break
		}
		le.PutUint32(rec[4:], recordCRC(rec, le.Uint64(file[16:]), int64(at)))
		at += len(rec)
	}
	mendFooter(file[min(at, len(file)):], int64(at))
}

// mendFooter makes of b, if it is long enough, something that passes for a footer that
// stands at offset at.
func mendFooter(b []byte, at int64) {
	le := binary.LittleEndian
	body := len(b) - trailerSize
	if body < footerFixed {
		return
	}
	le.PutUint32(b, footerMark)
	le.PutUint64(b[body:], uint64(at)) //nolint:gosec // offsets are not negative
	le.PutUint32(b[body+8:], uint32(body))
	le.PutUint32(b[body+12:], crc32.Checksum(b[:body+12], castagnoli))
	copy(b[body+16:], trailerMagic)
}

// FuzzScan opens and reads arbitrary bytes as a segment. Whatever they are, nothing
// panics, and a record is only delivered if it stands in the bytes with a good checksum.
func FuzzScan(f *testing.F) {
	file, s := fuzzRecords()
	closed := appendFooter(slices.Clone(file), s.footer())
	hole := slices.Clone(file)
	hole[headersSize+recordFixed+2] ^= 0x40
	f.Add([]byte{}, false)
	f.Add(file[:headersSize], false)
	f.Add(file, false)
	f.Add(file[:len(file)-3], true)
	f.Add(hole, false)
	f.Add(closed, false)
	f.Add(closed, true)
	f.Fuzz(func(t *testing.T, file []byte, mended bool) {
		file = slices.Clone(file) // the fuzzer keeps its own
		if mended {
			mend(file)
		}
		// Once from what is there, and once more from what the first time has left.
		disk := vfs.NewMem()
		writeFile(t, disk, file)
		for range 2 {
			for _, rec := range readAll(t, disk) {
				if !standsIn(file, rec) {
					t.Errorf("%+v is not in the file", rec)
				}
			}
		}
	})
}

func writeFile(t *testing.T, disk *vfs.Mem, data []byte) {
	t.Helper()
	if err := disk.MkdirAll("log"); err != nil {
		t.Fatal(err)
	}
	f, err := disk.Create("log/" + segmentName(1))
	if err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// readAll opens the log and reads it. An error is fine; what was read before it counts.
func readAll(t *testing.T, disk *vfs.Mem) (all []Record) {
	t.Helper()
	c := NewCommitter(SyncNever, nil)
	defer c.Close()
	l, err := Open(Options{FS: disk, Dir: "log", Committer: c, Tail: NewTail(0)})
	if err != nil {
		return nil
	}
	r := l.NewReader(0)
	defer r.Close()
	last := uint64(0)
	for dst := make([]Record, 2); ; {
		n, err := r.Read(dst)
		if n == 0 || err != nil {
			break
		}
		for _, rec := range dst[:n] {
			if rec.Seq < last {
				t.Errorf("record %d came after %d", rec.Seq, last)
			}
			last = rec.Seq + 1
		}
		all = append(all, dst[:n]...)
	}
	next := l.next
	tk, err := l.Append(1, 1, func(int) Entry { return Entry{} })
	if err != nil || tk.First < max(last, next) {
		t.Errorf("number %d is given out after %d: %v", tk.First, last, err)
	}
	return all
}

// standsIn looks for the record at every offset, with every salt that is in the file.
func standsIn(file []byte, r Record) bool {
	var salts []uint64
	for _, at := range []int{16, headerSize + 16} {
		if len(file) >= headersSize {
			salts = append(salts, binary.LittleEndian.Uint64(file[at:]))
		}
	}
	if offset, length, err := parseTrailer(file[max(len(file)-trailerSize, 0):], int64(len(file))); err == nil {
		if foot, err := parseFooter(file[offset:][:length]); err == nil {
			salts = append(salts, foot.salt)
		}
	}
	seq := binary.LittleEndian.AppendUint64(nil, r.Seq)
	for at := headersSize; at+recordFixed <= len(file); at++ {
		if !bytes.Equal(file[at+8:at+16], seq) {
			continue
		}
		for _, salt := range salts {
			var have Record
			rec := expected{salt, 0, 1 << 63}.goodRecord(file[at:], int64(at))
			if rec != nil && decodeRecord(rec, &have) && bytes.Equal(have.Body, r.Body) &&
				bytes.Equal(have.Headers, r.Headers) && have.Due == r.Due && have.Time == r.Time {
				return true
			}
		}
	}
	return false
}

// FuzzParseFooter reads arbitrary bytes as a footer. What is taken for one leads no
// reader out of its segment, and is the same when it is written and read again.
func FuzzParseFooter(f *testing.F) {
	_, s := fuzzRecords()
	f.Add([]byte{}, false)
	f.Add(appendFooter(nil, s.footer()), false)
	s.marks = append(s.marks, mark{3, 200, 2}, mark{4, 240, 3})
	f.Add(appendFooter(nil, s.footer()), true)
	f.Fuzz(func(t *testing.T, b []byte, mended bool) {
		b = slices.Clone(b)
		if mended {
			mendFooter(b, 10_000)
		}
		foot, err := parseFooter(b)
		if err != nil {
			return
		}
		last := mark{seq: foot.base, offset: headersSize}
		for _, m := range foot.marks {
			if m.seq < last.seq || m.seq >= foot.next || m.offset < last.offset || m.offset >= foot.end || m.count < last.count {
				t.Fatalf("mark %+v after %+v of %+v", m, last, foot)
			}
			last = m
		}
		again, err := parseFooter(appendFooter(nil, foot))
		if err != nil || again.next != foot.next || again.header != foot.header || !slices.Equal(again.marks, foot.marks) {
			t.Fatalf("%+v is read again as %+v, %v", foot, again, err)
		}
	})
}
