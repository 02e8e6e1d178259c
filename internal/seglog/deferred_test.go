package seglog_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// putDue appends n records, of which each tenth has a due time: ten times its number.
func (o *opened) putDue(t testing.TB, n int) seglog.Ticket {
	t.Helper()
	next := o.End()
	tk, err := o.Append(1, n, func(i int) seglog.Entry {
		e := seglog.Entry{Body: []byte("0123456789")}
		if seq := next + uint64(i); seq%10 == 0 {
			e.Due = int64(10 * seq)
		}
		return e
	})
	must(t, err)
	return tk
}

// survey finds out what has a due time in [from, to), as its user does.
func (o *opened) survey(t testing.TB, from, to uint64) (found []uint64, read int) {
	t.Helper()
	reader := o.NewReader(from)
	defer reader.Close()
	for {
		ds, ok := o.Deferred(from, to)
		if ok {
			for _, d := range ds {
				if d.Due != int64(10*d.Seq) {
					t.Errorf("%+v", d)
				}
				found = append(found, d.Seq)
			}
			return found, read
		}
		lo, hi := o.NextDeferred(from, to)
		if lo < from || lo >= hi || hi > to {
			t.Fatalf("NextDeferred(%d, %d) is %d to %d", from, to, lo, hi)
		}
		from = hi
		reader.Seek(lo)
		for lo < hi {
			var one [1]seglog.Record
			n, err := reader.Read(one[:])
			must(t, err)
			if n == 0 || one[0].Seq >= hi {
				break
			}
			if one[0].Due != 0 {
				found = append(found, one[0].Seq)
			}
			lo = one[0].Seq + 1
			read++
		}
	}
}

func tens(from, to uint64) (seqs []uint64) {
	for seq := from; seq < to; seq++ {
		if seq%10 == 0 {
			seqs = append(seqs, seq)
		}
	}
	return seqs
}

func TestRecordsWithADueTimeAreFoundWithoutReadingTheOthers(t *testing.T) {
	disk := newDisk(t)
	o := mustOpen(t, disk, seglog.SyncAlways)
	must(t, o.Commit(o.putDue(t, 500)))
	for range 10 {
		o.add(t, "plain", "plain", "plain")
	}
	next := o.End()
	must(t, o.Commit(o.putDue(t, 500)))
	end := o.End()
	want := append(tens(1, 501), tens(next, end)...)
	check := func(when string, o *opened) {
		t.Helper()
		for _, from := range []uint64{1, 7, 250, 501, next, next + 1, end - 1} {
			got, _ := o.survey(t, from, end)
			want := slices.DeleteFunc(slices.Clone(want), func(seq uint64) bool { return seq < from })
			if !slices.Equal(got, want) {
				t.Errorf("%s, from %d: %v, want %v", when, from, got, want)
			}
		}
		if got, read := o.survey(t, 501, next); len(got) > 0 || read > 25 { // what fills a segment
			t.Errorf("%s: %v, %d records read where none has one", when, got, read)
		}
		if got, _ := o.survey(t, 95, 106); !slices.Equal(got, []uint64{100}) {
			t.Errorf("%s: 95 to 106 has %v", when, got)
		}
	}
	check("when they were appended", o)
	crashed := mustOpen(t, disk.Crash(), time.Hour)
	check("after a scan", crashed)
	must(t, o.close())
	again := mustOpen(t, disk, time.Hour)
	check("by their footers", again)
	infos := again.Sealed()
	must(t, again.Compact(infos[0].Base, []uint64{3, 10, 12}))
	if got, _ := again.survey(t, 1, infos[0].Next); !slices.Equal(got, []uint64{10}) {
		t.Errorf("after compaction there are %v", got)
	}
}

// The owner is told of more and asks at once; the next time it asks for what it was not
// told before.
func TestWhatWasJustAppendedWithADueTimeNeedsNoReading(t *testing.T) {
	for _, files := range []bool{false, true} {
		t.Run(fmt.Sprintf("files=%t", files), func(t *testing.T) {
			var disk vfs.FS
			if files {
				disk = newDisk(t)
			}
			var o *opened
			var told []uint64
			from := uint64(1)
			o = mustOpen(t, disk, time.Hour, func(opts *seglog.Options) {
				opts.OnCommit = func(end uint64) {
					ds, ok := o.Deferred(from, end)
					if !ok {
						t.Errorf("%d to %d must be read", from, end)
					}
					for _, d := range ds {
						told = append(told, d.Seq)
					}
					from = end
				}
			})
			for range 20 {
				must(t, o.Commit(o.putDue(t, 33)))
			}
			if want := tens(1, 661); !slices.Equal(told, want) {
				t.Errorf("told of %v, want %v", told, want)
			}
			if _, ok := o.Deferred(1, 661); ok {
				t.Error("what it was told of is still in memory")
			}
		})
	}
}

func TestWhatWasTakenBackHasNoDueTime(t *testing.T) {
	disk := newDisk(t)
	fail := false
	var o *opened
	var told []seglog.Deferral
	o = mustOpen(t, inject(disk, func(op vfs.Op) error {
		if fail && op.Kind == vfs.OpWrite {
			return errors.New("no")
		}
		return nil
	}), time.Hour, func(opts *seglog.Options) {
		from := uint64(1)
		opts.OnCommit = func(end uint64) {
			ds, _ := o.Deferred(from, end)
			told, from = append(told, ds...), max(from, end)
		}
	})
	must(t, o.Commit(o.putDue(t, 15)))
	fail = true
	if o.Commit(o.putDue(t, 100)) == nil {
		t.Error("the write did not fail")
	}
	fail = false
	tk := o.add(t, "plain")
	if ds, ok := o.Deferred(tk.First, tk.End); len(ds) > 0 || !ok {
		t.Errorf("%v", ds)
	}
	must(t, o.Commit(o.putDue(t, 1)))
	for _, d := range told {
		if d.Seq > 10 && d.Seq < tk.First {
			t.Errorf("the owner was told of %+v, which was taken back", d)
		}
	}
	if got, _ := o.survey(t, 1, tk.End); !slices.Equal(got, []uint64{10}) {
		t.Errorf("found %v", got)
	}
}
