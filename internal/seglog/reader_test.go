package seglog_test

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// model is what a log should hold: its visible records in order, and one reader.
type model struct {
	o       *opened
	fs      vfs.FS
	change  func(*seglog.Options)
	pending []seglog.Ticket
	bodies  map[uint64]string
	visible []uint64 // ascending
	r       *seglog.Reader
	want    uint64 // where the reader is
	next    int
}

// A reader sees exactly the visible records, in order, wherever they are: in memory, in
// files, in both; and Count counts them.
func TestReadersFollowTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{bodies: map[uint64]string{}}
		if rapid.Bool().Draw(t, "in files") {
			disk := vfs.NewMem()
			must(t, disk.MkdirAll(dir))
			m.fs = disk
		}
		size := rapid.Int64Range(200, 4000).Draw(t, "segment size")
		budget := rapid.SampledFrom([]int64{0, 8 << 10, 1 << 20}).Draw(t, "tail")
		m.change = func(opts *seglog.Options) {
			opts.SegmentSize, opts.Tail = size, seglog.NewTail(budget)
			opts.OnDamage = func(d seglog.Damage) { t.Errorf("reported %v", d) }
		}
		m.open(t)
		defer func() { m.r.Close(); m.o.stop() }()
		t.Repeat(map[string]func(*rapid.T){
			"append": m.append, "commit": m.commit, "read": m.read, "read one": m.readOne,
			"seek": m.seek, "remove": m.remove, "reopen": m.reopen, "": m.check,
		})
	})
}

func (m *model) open(t *rapid.T) {
	o, err := open(m.fs, seglog.SyncAlways, m.change)
	must(t, err)
	m.o, m.r = o, o.NewReader(m.want)
}

func (m *model) append(t *rapid.T) {
	n := rapid.IntRange(0, 5).Draw(t, "records")
	tk, err := m.o.Append(1, n, func(i int) seglog.Entry {
		length := rapid.SampledFrom([]int{0, 10, 100, 3000, 70_000}).Draw(t, "length")
		body := fmt.Sprint(m.next+i) + strings.Repeat(".", length)
		return seglog.Entry{Body: []byte(body)}
	})
	must(t, err)
	m.next += n
	m.pending = append(m.pending, tk)
	if m.fs == nil {
		m.commit(t)
	}
}

// commit commits the last ticket, which is to take all before it along.
func (m *model) commit(t *rapid.T) {
	if len(m.pending) == 0 {
		return
	}
	must(t, m.o.Commit(m.pending[len(m.pending)-1]))
	if m.pending[len(m.pending)-1].First == m.pending[len(m.pending)-1].End {
		must(t, m.o.Commit(m.pending[0])) // an empty ticket takes nothing along
		for _, tk := range m.pending {
			must(t, m.o.Commit(tk))
		}
	}
	for _, tk := range m.pending {
		for seq := tk.First; seq < tk.End; seq++ {
			m.visible = append(m.visible, seq)
		}
	}
	m.pending = nil
}

func (m *model) read(t *rapid.T) {
	m.readUpTo(t, rapid.IntRange(1, 40).Draw(t, "room"))
}

func (m *model) readOne(t *rapid.T) { m.readUpTo(t, 1) }

func (m *model) readUpTo(t *rapid.T, room int) {
	dst := make([]seglog.Record, room)
	n, err := m.r.Read(dst)
	must(t, err)
	at, _ := slices.BinarySearch(m.visible, m.want)
	ahead := m.visible[at:]
	if n == 0 && len(ahead) > 0 {
		t.Fatalf("at %d nothing is read, there are %v", m.want, ahead)
	}
	for i, rec := range dst[:n] {
		if i >= len(ahead) || rec.Seq != ahead[i] {
			t.Fatalf("at %d read %d, ahead are %v", m.want, rec.Seq, ahead)
		}
		number, _, _ := strings.Cut(string(rec.Body), ".")
		if have, ok := m.bodies[rec.Seq]; ok && have != number {
			t.Fatalf("record %d was %s and is %s", rec.Seq, have, number)
		}
		m.bodies[rec.Seq] = number
		if number != fmt.Sprint(rec.Seq-1) { // no number was left out in this test
			t.Fatalf("record %d has the body of %s", rec.Seq, number)
		}
		m.want = rec.Seq + 1
	}
}

func (m *model) seek(t *rapid.T) {
	m.want = rapid.Uint64Range(0, uint64(m.next)+3).Draw(t, "seq")
	m.r.Seek(m.want)
}

func (m *model) remove(t *rapid.T) {
	full := m.o.Sealed()
	if len(full) == 0 {
		return
	}
	s := full[rapid.IntRange(0, len(full)-1).Draw(t, "segment")]
	must(t, m.o.Remove(s.Base))
	before := len(m.visible)
	m.visible = slices.DeleteFunc(m.visible, func(seq uint64) bool { return s.Base <= seq && seq < s.Next })
	if gone := before - len(m.visible); int64(gone) != s.Records {
		t.Fatalf("a segment with %d records had %d", s.Records, gone)
	}
}

func (m *model) reopen(t *rapid.T) {
	if m.fs == nil {
		return
	}
	m.r.Close()
	must(t, m.o.close())
	for _, tk := range m.pending { // Close commits what was appended
		for seq := tk.First; seq < tk.End; seq++ {
			m.visible = append(m.visible, seq)
		}
	}
	m.pending = nil
	m.open(t)
}

// check compares the counts. All segments are dense here, so they are exact.
func (m *model) check(t *rapid.T) {
	end := uint64(1)
	if n := len(m.visible); n > 0 {
		end = m.visible[n-1] + 1
	}
	if got := m.o.End(); got < end {
		t.Fatalf("End is %d, want %d", got, end)
	}
	from := rapid.Uint64Range(0, uint64(m.next)+2).Draw(t, "from")
	to := rapid.Uint64Range(0, uint64(m.next)+2).Draw(t, "to")
	want := int64(0)
	for _, seq := range m.visible {
		if from <= seq && seq < to {
			want++
		}
	}
	if got := m.o.Count(from, to); got != want {
		t.Fatalf("Count(%d, %d) is %d, want %d", from, to, got, want)
	}
}

// Publishers, readers from anywhere and somebody who removes what was read, all at once.
func TestReadersBesidePublishersAndRemovals(t *testing.T) {
	for _, c := range []struct {
		name   string
		memory bool
		budget int64
		keep   bool
	}{
		{"in memory", true, 0, true},
		{"in memory, removed", true, 0, false},
		{"in files, no tail", false, 0, true},
		{"in files, small tail", false, 16 << 10, true},
		{"in files, small tail, removed", false, 16 << 10, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var fs vfs.FS
			if !c.memory {
				fs = newDisk(t)
			}
			o := mustOpen(t, fs, time.Millisecond, func(opts *seglog.Options) {
				opts.SegmentSize, opts.Tail = 16<<10, seglog.NewTail(c.budget)
				opts.OnDamage = func(d seglog.Damage) { t.Errorf("reported %v", d) }
			})
			besidePublishers(t, o, c.keep)
			must(t, o.close())
		})
	}
}

func besidePublishers(t *testing.T, o *opened, keep bool) {
	const publishers, batches = 2, 60
	total := uint64(publishers * batches * (batches + 1) / 2)
	var done atomic.Bool
	var publishing, reading sync.WaitGroup
	for p := range publishers {
		publishing.Go(func() {
			for i := 1; i <= batches; i++ {
				bodies := make([]string, i)
				for j := range bodies {
					bodies[j] = fmt.Sprintf("%d:%d:%d:%s", p, i, j, strings.Repeat("x", i*(j%3)))
				}
				o.add(t, bodies...)
			}
		})
	}
	for i := range 3 {
		reading.Go(func() {
			for again := true; again; {
				again = !done.Load() // and once more when all are there
				r := o.NewReader(0)
				readAlong(t, r, i+1, keep)
				if i == 2 {
					r.Seek(total / 2)
					readAlong(t, r, 100, false)
				}
				r.Close()
			}
		})
	}
	reading.Go(func() {
		for !keep && !done.Load() {
			if full := o.Sealed(); len(full) > 3 {
				must(t, o.Remove(full[len(full)/2].Base))
			}
			runtime.Gosched()
		}
	})
	publishing.Wait()
	done.Store(true)
	reading.Wait()
	if n := len(o.read(t, 0)); keep && uint64(n) != total {
		t.Errorf("%d records are left of %d", n, total)
	}
}

// readAlong reads to the end of what there is for now: sequence numbers without a gap
// when nothing is removed, and each publisher's records in the order of his appends.
func readAlong(t *testing.T, r *seglog.Reader, room int, dense bool) {
	last, lastOf := uint64(0), map[string]int{}
	for dst := make([]seglog.Record, room); ; {
		n, err := r.Read(dst)
		if n == 0 || err != nil {
			if err != nil {
				t.Error(err)
			}
			return
		}
		for _, rec := range dst[:n] {
			if rec.Seq <= last || dense && rec.Seq != last+1 {
				t.Errorf("record %d came after %d", rec.Seq, last)
			}
			last = rec.Seq
			parts := strings.SplitN(string(rec.Body), ":", 4)
			if len(parts) != 4 {
				t.Errorf("record %d is %q", rec.Seq, rec.Body)
				return
			}
			i, _ := strconv.Atoi(parts[1])
			j, _ := strconv.Atoi(parts[2])
			if i*1000+j < lastOf[parts[0]] || parts[3] != strings.Repeat("x", i*(j%3)) {
				t.Errorf("record %d is %q", rec.Seq, rec.Body)
			}
			lastOf[parts[0]] = i*1000 + j
		}
	}
}

// A crash may leave a segment of which only the header was written. Readers go past it.
func TestAReaderPassesASegmentThatACrashLeftEmpty(t *testing.T) {
	disk := newDisk(t)
	var left *vfs.Mem
	o := mustOpen(t, inject(disk, func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite && op.Off > 0 {
			left = disk.Crash()
		}
		return nil
	}), seglog.SyncAlways)
	o.add(t, "never synced")
	o = mustOpen(t, left, seglog.SyncAlways)
	o.add(t, "after it")
	r := o.NewReader(0)
	defer r.Close()
	var dst [2]seglog.Record
	if n, err := r.Read(dst[:]); n != 1 || err != nil || string(dst[0].Body) != "after it" {
		t.Errorf("read %d records, %v", n, err)
	}
	if d := o.reported(); len(d) > 0 {
		t.Errorf("reported %v", d)
	}
}

// Records larger than a read-ahead, and damage among them, are read and skipped in turn.
func TestLongRecordsAndDamageBetweenThem(t *testing.T) {
	disk := newDisk(t)
	long := func(c string) string { return strings.Repeat(c, 3<<20) }
	bodies := []string{"a", long("b"), "c", long("d"), long("e"), "f"}
	tail := func(opts *seglog.Options) { opts.SegmentSize, opts.Tail = 64<<20, seglog.NewTail(0) }
	o := mustOpen(t, disk, seglog.SyncNever, tail)
	for _, body := range bodies {
		o.add(t, body)
	}
	must(t, o.close())
	name := filesOf(t, disk).names()[0]
	recs := recordsOf(filesOf(t, disk)[name])
	for i, hit := range recs {
		bit := (hit.begin+hit.end)/2*8 + 1
		disk.FlipBit(dir+"/"+name, bit)
		o := mustOpen(t, disk, seglog.SyncNever, tail)
		if got, want := o.bodies(t), slices.Delete(slices.Clone(bodies), i, i+1); !slices.Equal(got, want) {
			t.Errorf("record %d damaged: %d records are read, want %d", i, len(got), len(want))
		}
		if d := o.reported(); len(d) != 1 || d[0].Offset != hit.begin || d[0].Bytes != hit.end-hit.begin {
			t.Errorf("record %d at [%d, %d) damaged: reported %v", i, hit.begin, hit.end, d)
		}
		disk.FlipBit(dir+"/"+name, bit)
	}
}
