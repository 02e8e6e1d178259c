package seglog_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// files are the contents of a log's directory.
type files map[string][]byte

func filesOf(t testing.TB, fs vfs.FS) files {
	t.Helper()
	names, err := fs.List(dir)
	must(t, err)
	all := files{}
	for _, name := range names {
		f, err := fs.Open(dir + "/" + name)
		must(t, err)
		size, err := f.Size()
		must(t, err)
		all[name] = make([]byte, size)
		if _, err := f.ReadAt(all[name], 0); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		f.Close()
	}
	return all
}

// disk is a new one with these files.
func (all files) disk(t testing.TB) *vfs.Mem {
	t.Helper()
	disk := newDisk(t)
	for name, data := range all {
		f, err := disk.Create(dir + "/" + name)
		must(t, err)
		if len(data) > 0 {
			_, err = f.WriteAt(data, 0)
			must(t, err)
		}
		must(t, f.Sync())
		f.Close()
	}
	must(t, disk.SyncDir(dir))
	return disk
}

func (all files) names() []string {
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// recordAt is where a record of a file begins, and where it ends.
type recordAt struct {
	seq        uint64
	begin, end int64
}

// recordsOf finds the records of a file that is whole.
func recordsOf(file []byte) (all []recordAt) {
	at := int64(128)
	for at+16 <= int64(len(file)) {
		n := binary.LittleEndian.Uint32(file[at:])
		if n == 0xFFFFFFFF {
			break
		}
		end := at + 8 + int64(n)
		all = append(all, recordAt{binary.LittleEndian.Uint64(file[at+8:]), at, end})
		at = end
	}
	return all
}

// smallLog makes a log of two segments and returns its files as they are when it was
// closed, and when it was not but the power failed.
func smallLog(t *testing.T) (closed, unclosed files, bodies map[uint64]string) {
	t.Helper()
	disk := newDisk(t)
	o := mustOpen(t, disk, seglog.SyncAlways, func(opts *seglog.Options) { opts.SegmentSize = 300 })
	bodies = map[uint64]string{}
	for i := range 7 {
		body := fmt.Sprintf("message %d", i)
		bodies[o.add(t, body).First] = body
	}
	unclosed = filesOf(t, disk.Crash())
	must(t, o.close())
	closed = filesOf(t, disk)
	if len(closed) != 2 || len(unclosed) != 2 {
		t.Fatalf("want two segments, got %v", closed.names())
	}
	return closed, unclosed, bodies
}

func TestEveryFlippedBitIsReportedAndHarmsOneRecordAtMost(t *testing.T) {
	closed, unclosed, bodies := smallLog(t)
	for name, data := range closed {
		for bit := range int64(len(data)) * 8 {
			checkFlip(t, closed, name, bit, bodies, false)
		}
	}
	for name, data := range unclosed {
		for bit := range int64(len(data)) * 8 {
			checkFlip(t, unclosed, name, bit, bodies, name == unclosed.names()[1])
		}
	}
}

// checkFlip opens the log with one bit flipped. Only in the last record of a log that was
// not closed may it look like a torn write.
func checkFlip(t *testing.T, all files, name string, bit int64, bodies map[uint64]string, tearable bool) {
	t.Helper()
	disk := all.disk(t)
	disk.FlipBit(dir+"/"+name, bit)
	o, err := open(disk, seglog.SyncAlways)
	must(t, err)
	defer o.stop()
	got := map[uint64]string{}
	for _, rec := range o.read(t, 1) {
		if got[rec.Seq] = string(rec.Body); bodies[rec.Seq] != got[rec.Seq] {
			t.Fatalf("bit %d of %s: record %d is %q, was appended as %q", bit, name, rec.Seq, rec.Body, bodies[rec.Seq])
		}
	}
	hit, torn := recordAt{}, false
	for _, r := range recordsOf(all[name]) {
		if r.begin <= bit/8 && bit/8 < r.end {
			hit, torn = r, tearable && r.end == int64(len(all[name]))
		}
	}
	for seq := range bodies {
		if _, ok := got[seq]; ok == (seq == hit.seq) {
			t.Fatalf("bit %d of %s, in record %d: of record %d is read: %v", bit, name, hit.seq, seq, ok)
		}
	}
	reported := slices.Compact(o.reported()) // by the scan and by the reader
	if len(reported) != 1 {
		t.Fatalf("bit %d of %s: reported %v", bit, name, reported)
	}
	d := reported[0]
	if d.File != name || bit/8 < d.Offset || bit/8 >= d.Offset+d.Bytes {
		t.Fatalf("bit %d of %s is in byte %d: reported %v", bit, name, bit/8, d)
	}
	if !errors.Is(d.Err, seglog.ErrDamaged) && !(torn && errors.Is(d.Err, seglog.ErrTorn)) {
		t.Fatalf("bit %d of %s: reported as %v", bit, name, d.Err)
	}
	if hit.seq != 0 && !torn && (d.Offset != hit.begin || d.Bytes != hit.end-hit.begin) {
		t.Fatalf("bit %d of %s hits [%d, %d): reported %v", bit, name, hit.begin, hit.end, d)
	}
	if tk := o.add(t, "more"); bodies[tk.First] != "" {
		t.Fatalf("bit %d of %s: number %d is given out again", bit, name, tk.First)
	}
}

// A segment whose two headers are both gone cannot be read: that is reported, the other
// segments are read, and its numbers are not given out again.
func TestASegmentWithoutHeadersIsReported(t *testing.T) {
	_, unclosed, bodies := smallLog(t)
	name := unclosed.names()[1]
	disk := unclosed.disk(t)
	disk.FlipBit(dir+"/"+name, 100)
	disk.FlipBit(dir+"/"+name, 64*8+100)
	for range 2 {
		o := mustOpen(t, disk, seglog.SyncAlways)
		lost := len(recordsOf(unclosed[name]))
		if got := o.bodies(t); len(got) != len(bodies)-lost {
			t.Errorf("%d records are left, want %d", len(got), len(bodies)-lost)
		}
		d := o.reported()
		if len(d) != 1 || d[0].File != name || d[0].Bytes != int64(len(unclosed[name])) || !errors.Is(d[0].Err, seglog.ErrDamaged) {
			t.Errorf("reported %v", d)
		}
		if tk := o.put(t, "more"); bodies[tk.First] != "" {
			t.Errorf("number %d is given out again", tk.First)
		}
	}
}

// In a footed segment they are gone without harm: the footer has the salt too.
func TestAFooterStandsInForTheHeaders(t *testing.T) {
	closed, _, bodies := smallLog(t)
	name := closed.names()[0]
	disk := closed.disk(t)
	disk.FlipBit(dir+"/"+name, 100)
	disk.FlipBit(dir+"/"+name, 64*8+100)
	o := mustOpen(t, disk, seglog.SyncAlways)
	if got := o.bodies(t); len(got) != len(bodies) {
		t.Errorf("%d records are left, want %d", len(got), len(bodies))
	}
	if d := o.reported(); len(d) != 1 || d[0].Bytes != 128 {
		t.Errorf("reported %v", d)
	}
}

func TestOnlyAnIntactHeaderOfALaterVersionIsOne(t *testing.T) {
	for _, c := range []struct {
		name   string
		header int // which of the two has another version
		intact bool
		newer  bool
	}{
		{"first, checksum broken", 0, false, false},
		{"second, checksum broken", 1, false, false},
		{"first, intact", 0, true, true},
		{"second, intact", 1, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			closed, _, bodies := smallLog(t)
			name := closed.names()[1]
			h := closed[name][64*c.header:][:64]
			h[8] = seglog.FormatVersion + 1
			if c.intact {
				binary.LittleEndian.PutUint32(h[60:], crc32.Checksum(h[:60], crc32.MakeTable(crc32.Castagnoli)))
			}
			disk := closed.disk(t)
			o, err := open(disk, seglog.SyncAlways)
			if c.newer {
				if !errors.Is(err, seglog.ErrNewerVersion) {
					t.Fatalf("Open: %v, want ErrNewerVersion", err)
				}
				if after := filesOf(t, disk); string(after[name]) != string(closed[name]) {
					t.Fatal("the file was changed")
				}
				return
			}
			must(t, err)
			defer o.stop()
			if got := o.bodies(t); len(got) != len(bodies) || len(o.reported()) != 1 {
				t.Fatalf("%d records, reported %v", len(got), o.reported())
			}
		})
	}
}

// A payload may hold anything, also records of this very segment as they stand in its
// file, and they are not taken for records: not even when the record that they are in is
// damaged, and every byte of it is looked at.
func TestACopyOfARecordInAPayloadIsNotARecord(t *testing.T) {
	disk := newDisk(t)
	o := mustOpen(t, disk, seglog.SyncAlways, func(opts *seglog.Options) {
		opts.SegmentSize, opts.Tail = 1<<20, seglog.NewTail(0)
	})
	o.add(t, "first", "second")
	name := filesOf(t, disk).names()[0]
	copied := string(filesOf(t, disk)[name])
	o.add(t, strings.Repeat(copied, 30))
	o.add(t, copied[128:])
	o.add(t, "last")
	all := filesOf(t, disk)
	recs := recordsOf(all[name])
	for _, hit := range recs[2:4] {
		for _, bit := range []int64{0, 5, 17, 31, 40, 70, 12 * 8, 20 * 8, 32 * 8, 40 * 8} {
			disk := all.disk(t)
			disk.FlipBit(dir+"/"+name, hit.begin*8+bit)
			o := mustOpen(t, disk, seglog.SyncAlways) // scans
			want := []uint64{1, 2, 3, 4, 5}
			want = slices.DeleteFunc(want, func(seq uint64) bool { return seq == hit.seq })
			for range 2 { // the second time with a footer, by the reader
				var got []uint64
				for _, rec := range o.read(t, 1) {
					got = append(got, rec.Seq)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("bit %d of record %d flipped: read %v, want %v", bit, hit.seq, got, want)
				}
				must(t, o.close())
				o = mustOpen(t, disk, seglog.SyncAlways)
			}
		}
	}
}

// A payload at the end of an unclosed segment may look like a footer, also a real one of
// another segment, or one made up for this very place by somebody who does not know the
// segment's salt.
func TestAPayloadIsNotTakenForAFooter(t *testing.T) {
	closed, _, _ := smallLog(t)
	real := closed[closed.names()[0]]
	end := recordsOf(real)
	real = real[end[len(end)-1].end:]
	forge := func(at int64) string {
		f := slices.Clone(real)
		binary.LittleEndian.PutUint64(f[16:], 1) // the base of this segment
		binary.LittleEndian.PutUint64(f[len(f)-24:], uint64(at))
		binary.LittleEndian.PutUint32(f[len(f)-12:], crc32.Checksum(f[:len(f)-12], crc32.MakeTable(crc32.Castagnoli)))
		return string(f)
	}
	for _, payload := range []string{string(real), forge(128 + 33), forge(128)} {
		disk := newDisk(t)
		o := mustOpen(t, disk, seglog.SyncAlways)
		o.add(t, payload)
		o = mustOpen(t, disk.Crash(), seglog.SyncAlways)
		if got := o.bodies(t); !slices.Equal(got, []string{payload}) || len(o.reported()) > 0 {
			t.Errorf("read %q, reported %v", got, o.reported())
		}
	}
}
