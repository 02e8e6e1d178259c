package seglog_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// Whatever the sizes, holes and segments, the time is found where a look at every record
// finds it, also when those who publish at the same time overtake each other.
func TestATimeIsFoundAtTheFirstRecordThatIsNotBeforeIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var fs vfs.FS
		if rapid.Bool().Draw(t, "in files") {
			disk := vfs.NewMem()
			must(t, disk.MkdirAll(dir))
			fs = disk
		}
		change := func(opts *seglog.Options) {
			opts.SegmentSize = rapid.SampledFrom([]int64{2000, 300_000, 1 << 20}).Draw(t, "segment size")
			opts.Tail = seglog.NewTail(rapid.SampledFrom([]int64{0, 1 << 20}).Draw(t, "tail"))
		}
		o, err := open(fs, seglog.SyncAlways, change)
		must(t, err)
		defer func() { o.stop() }()
		now := int64(1000)
		for range rapid.IntRange(0, 60).Draw(t, "batches") {
			now += rapid.Int64Range(0, 20).Draw(t, "later")
			at := now - rapid.SampledFrom([]int64{0, 0, 0, 1, 3}).Draw(t, "overtaken by")
			body := strings.Repeat("x", rapid.SampledFrom([]int{0, 10, 500, 30_000}).Draw(t, "bytes"))
			tk, err := o.Append(at, rapid.IntRange(1, 4).Draw(t, "records"), func(int) seglog.Entry {
				return seglog.Entry{Body: []byte(body)}
			})
			must(t, err)
			must(t, o.Commit(tk))
		}
		for _, s := range o.Sealed() {
			switch rapid.IntRange(0, 3).Draw(t, "what becomes of the segment") {
			case 0:
				must(t, o.Remove(s.Base))
			case 1:
				must(t, o.Compact(s.Base, []uint64{s.Base + (s.Next-s.Base)/2}))
			}
		}
		if fs != nil && rapid.Bool().Draw(t, "open again") {
			must(t, o.close())
			o, err = open(fs, seglog.SyncAlways, change)
			must(t, err)
		}
		checkTimes(t, o, now)
	})
}

func checkTimes(t *rapid.T, o *opened, now int64) {
	var all []seglog.Record
	r := o.NewReader(0)
	defer r.Close()
	for dst := make([]seglog.Record, 100); ; {
		n, err := r.Read(dst)
		must(t, err)
		if n == 0 {
			break
		}
		all = append(all, dst[:n]...)
	}
	first := o.End()
	if len(all) > 0 {
		first = all[0].Seq
	}
	if got := o.First(); got != first {
		t.Fatalf("First is %d, want %d", got, first)
	}
	if !slices.IsSortedFunc(all, func(a, b seglog.Record) int { return int(a.Time - b.Time) }) {
		t.Fatalf("times do not ascend")
	}
	for time := int64(990); time <= now+10; time += 1 + (now-990)/40 {
		want := o.End()
		if i := slices.IndexFunc(all, func(r seglog.Record) bool { return r.Time >= time }); i >= 0 {
			want = all[i].Seq
		}
		if got, err := o.SeqAt(time); got != want || err != nil {
			t.Fatalf("%d is at %d (%v), want %d", time, got, err, want)
		}
	}
}

// A search in a big segment reads little of it.
func TestATimeIsFoundWithoutReadingTheSegment(t *testing.T) {
	disk := newDisk(t)
	var read int64
	o := mustOpen(t, inject(disk, func(op vfs.Op) error {
		if op.Kind == vfs.OpRead {
			read += op.Len
		}
		return nil
	}), seglog.SyncNever, func(opts *seglog.Options) { opts.SegmentSize = 64 << 20 })
	body := []byte(strings.Repeat("x", 1000))
	for i := range 320 {
		tk, err := o.Append(int64(i), 100, func(int) seglog.Entry { return seglog.Entry{Body: body} })
		must(t, err)
		must(t, o.Commit(tk))
	}
	for range 20 {
		read = 0
		i := rand.Int64N(320)
		if got, err := o.SeqAt(i); err != nil || got != uint64(i)*100+1 {
			t.Errorf("the time %d is at %d, %v", i, got, err)
		}
		if read > 2<<20 {
			t.Errorf("%d bytes were read of 33 million", read)
		}
	}
}

func TestATimeThatCannotBeReadIsAnError(t *testing.T) {
	disk := newDisk(t)
	broken := false
	o := mustOpen(t, inject(disk, func(op vfs.Op) error {
		if op.Kind == vfs.OpRead && broken {
			return syscall.EIO
		}
		return nil
	}), seglog.SyncAlways, func(opts *seglog.Options) { opts.Tail = seglog.NewTail(0) })
	o.add(t, strings.Split(strings.Repeat("x", 200), "")...)
	broken = true
	if seq, err := o.SeqAt(0); !errors.Is(err, syscall.EIO) {
		t.Errorf("%d, %v", seq, err)
	}
}
