package seglog_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// compactLog has 100 records in some segments of which all but the last few are full.
func compactLog(t *testing.T, fs vfs.FS, change ...func(*seglog.Options)) *opened {
	t.Helper()
	o := mustOpen(t, fs, seglog.SyncAlways, change...)
	for i := 1; i <= 100; i++ {
		o.add(t, fmt.Sprintf("record %d", i))
	}
	return o
}

// few are the records that are kept: some in each of the first segments, some in a row.
var few = []uint64{3, 4, 5, 19, 33, 34}

// compact keeps only few in the sealed segments that they are in.
func (o *opened) compact() error {
	for _, s := range o.Sealed() {
		if s.Base > few[len(few)-1] {
			return nil
		}
		keep := slices.DeleteFunc(slices.Clone(few), func(seq uint64) bool { return seq < s.Base || seq >= s.Next })
		if err := o.Compact(s.Base, keep); err != nil {
			return err
		}
	}
	return errors.New("all segments were compacted")
}

// holdsFew checks that the kept records are there, and all behind them. Where the old files
// may be there, others are too.
func (o *opened) holdsFew(t *testing.T, others bool) {
	t.Helper()
	first := uint64(0)
	for _, s := range o.Sealed() {
		if first == 0 && s.Base > few[len(few)-1] {
			first = s.Base
		}
	}
	want := slices.Clone(few)
	for seq := first; seq <= 100; seq++ {
		want = append(want, seq)
	}
	var got []uint64
	for _, r := range o.read(t, 1) {
		if string(r.Body) != fmt.Sprintf("record %d", r.Seq) {
			t.Errorf("record %d has body %q", r.Seq, r.Body)
		}
		if !others || slices.Contains(want, r.Seq) {
			got = append(got, r.Seq)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log holds %v, want %v", got, want)
	}
	if damage := o.reported(); len(damage) > 0 {
		t.Errorf("damage: %v", damage)
	}
}

func TestACompactedSegmentHoldsWhatWasKept(t *testing.T) {
	disk := newDisk(t)
	o := compactLog(t, disk)
	before, was := o.Size(), o.Sealed()
	must(t, o.compact())
	o.holdsFew(t, false)
	for i, s := range o.Sealed() {
		if s.Base != was[i].Base || s.Next != was[i].Next || s.LastTime != was[i].LastTime {
			t.Errorf("%+v is said to be %+v", was[i], s)
		}
	}
	if after := o.Size(); after > before*3/4 {
		t.Errorf("%d bytes of %d are left", after, before)
	}
	for _, seq := range few { // each is found by its number, too
		if got := o.read(t, seq); got[0].Seq != seq {
			t.Errorf("at %d there is %d", seq, got[0].Seq)
		}
	}
	must(t, o.compact()) // once more changes nothing
	o.holdsFew(t, false)
	end := o.End()
	must(t, o.close())
	o = mustOpen(t, disk, seglog.SyncAlways)
	o.holdsFew(t, false)
	if o.End() != end {
		t.Errorf("the log ends at %d, not at %d", o.End(), end)
	}
}

// What has the old segment's memory or file goes on in the new one, wherever it is.
func TestReadersGoOnInACompactedSegment(t *testing.T) {
	for _, budget := range []int64{0, 1 << 20} { // from files and from memory
		o := compactLog(t, newDisk(t), func(o *seglog.Options) { o.Tail = seglog.NewTail(budget) })
		var readers []*seglog.Reader
		for i := range uint64(40) {
			r := o.NewReader(1)
			t.Cleanup(r.Close)
			for range i {
				_, err := r.Read(make([]seglog.Record, 1))
				must(t, err)
			}
			readers = append(readers, r)
		}
		must(t, o.compact())
		for i, r := range readers {
			var one [1]seglog.Record
			_, err := r.Read(one[:])
			must(t, err)
			at, _ := slices.BinarySearch(few, uint64(i+1))
			if at < len(few) && one[0].Seq > few[at] {
				t.Errorf("a reader that had read %d went on with %d", i, one[0].Seq)
			}
		}
		o.holdsFew(t, false)
	}
}

// renamed calls do after each Rename, before whoever renamed can know that it has happened.
type renamed struct {
	vfs.FS
	do func()
}

func (r renamed) Rename(from, to string) error {
	err := r.FS.Rename(from, to)
	r.do()
	return err
}

func TestAReaderThatComesWhileAFileIsReplacedTakesNothingForDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o *opened
		var came int
		got := make(chan uint64, 10)
		fs := renamed{newDisk(t), func() {
			came++
			go func() {
				r := o.NewReader(3)
				defer r.Close()
				var one [1]seglog.Record
				_, _ = r.Read(one[:])
				got <- one[0].Seq
			}()
			synctest.Wait() // until it has read, or waits
		}}
		o = compactLog(t, fs, func(o *seglog.Options) { o.Tail = seglog.NewTail(0) })
		must(t, o.compact())
		for range came {
			if seq := <-got; seq != 3 {
				t.Errorf("read %d", seq)
			}
		}
		o.holdsFew(t, false)
	})
}

func TestPowerLossWhileASegmentIsCompactedLosesNothingThatIsKept(t *testing.T) {
	disk := newDisk(t)
	var disks []*vfs.Mem
	armed := false
	o := compactLog(t, inject(disk, func(op vfs.Op) error {
		if armed && (changes(op) || op.Kind == vfs.OpRename) {
			disks = append(disks, disk.Crash())
			for day := range uint64(5) {
				disks = append(disks, disk.CrashKeeping(rand.New(rand.NewPCG(1, day))))
			}
		}
		return nil
	}))
	armed = true
	must(t, o.compact())
	armed = false
	disks = append(disks, disk.Crash())
	if len(disks) < 60 {
		t.Errorf("only %d crashes", len(disks))
	}
	for i, disk := range disks {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			after := mustOpen(t, disk, seglog.SyncAlways)
			var got []uint64
			for _, r := range after.read(t, 1) {
				got = append(got, r.Seq)
			}
			for _, seq := range append(slices.Clone(few), 100) {
				if !slices.Contains(got, seq) {
					t.Errorf("record %d is missing in %v", seq, got)
				}
			}
			for _, d := range after.reported() {
				if !errors.Is(d.Err, seglog.ErrTorn) {
					t.Error(d)
				}
			}
		})
	}
}

func TestACompactionThatFailsLeavesAllAsItWas(t *testing.T) {
	broken := errors.New("broken")
	for n := 1; ; n++ {
		disk := newDisk(t)
		left, failed := 0, ""
		o := compactLog(t, inject(disk, func(op vfs.Op) error {
			if left > 0 && op.Kind != vfs.OpRemove && op.Kind != vfs.OpClose {
				if left--; left == 0 {
					failed = op.String()
					return broken
				}
			}
			return nil
		}), func(o *seglog.Options) { o.Tail = seglog.NewTail(0) })
		left = n
		err := o.compact()
		left = 0
		if failed == "" {
			if n < 10 {
				t.Errorf("only %d calls", n)
			}
			return
		}
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", failed, err)
		}
		names, _ := disk.List(dir)
		if slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, seglog.TempSuffix) }) {
			t.Errorf("%s: left %v", failed, names)
		}
		o.holdsFew(t, true)
		must(t, o.compact())
		o.holdsFew(t, false)
		must(t, o.close())
	}
}

func TestCompactingKeepsWhatStandsAroundDamage(t *testing.T) {
	disk := newDisk(t)
	o := compactLog(t, disk, func(o *seglog.Options) { o.Tail = seglog.NewTail(0) })
	name := dir + "/" + "0000000000000001.seg"
	file, err := disk.Open(name)
	must(t, err)
	size, _ := file.Size()
	b := make([]byte, size)
	_, err = file.ReadAt(b, 0)
	must(t, err)
	at := strings.Index(string(b), "record 5") // what follows it is not to be kept
	_, err = file.WriteAt([]byte("X"), int64(at))
	must(t, err)
	must(t, file.Close())
	must(t, o.compact())
	if damage := o.reported(); len(damage) == 0 {
		t.Error("the damage was not reported")
	}
	var got []uint64
	for _, r := range o.read(t, 1)[:5] {
		got = append(got, r.Seq)
	}
	if !slices.Equal(got, []uint64{3, 4, 19, 33, 34}) {
		t.Errorf("%v", got)
	}
}

// The last segment tells which numbers were given out, and one that is not sealed grows.
func TestOnlySealedSegmentsAreCompacted(t *testing.T) {
	o := compactLog(t, newDisk(t))
	sealed := o.Sealed()
	last := sealed[len(sealed)-1].Next
	before := len(o.read(t, last))
	must(t, o.Compact(last, []uint64{last}))
	if after := len(o.read(t, last)); after != before || before == 0 {
		t.Errorf("%d records of %d", after, before)
	}
}

func TestALogInMemoryIsNotCompacted(t *testing.T) {
	o := mustOpen(t, nil, 0)
	for range 100 {
		o.add(t, strings.Repeat("x", 100))
	}
	before := o.Size()
	for _, s := range o.Sealed() {
		must(t, o.Compact(s.Base, []uint64{s.Base}))
	}
	if o.Size() != before {
		t.Error("it was")
	}
}
