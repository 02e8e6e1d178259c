package seglog_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// Whichever call fails, once, the log goes on: what was committed stays, what failed is
// seen by no reader, and there is no third kind.
func TestAFailedCallTakesNothingThatWasCommitted(t *testing.T) {
	for _, interval := range []time.Duration{seglog.SyncAlways, viaRedo, seglog.SyncNever, time.Hour} {
		for failing, done := 1, false; !done; failing++ {
			disk, h := newDisk(t), newHistory()
			n, when := 0, ""
			fs := inject(disk, func(op vfs.Op) error {
				if n++; n != failing {
					return nil
				}
				when = fmt.Sprintf("interval %v, call %d, %v", interval, n, op)
				if op.Kind == vfs.OpClose {
					return nil // it would leak the handle, and nobody looks at its error
				}
				return errInjected
			})
			h.work(t, fs, interval, rand.New(rand.NewPCG(1, 1)))
			done = when == ""
			// Whatever was not synced because its sync failed was not committed, or with
			// an interval was reported; nothing is lost with the process.
			crash{when, disk, h, true, true}.check(t)
			if interval == seglog.SyncAlways || interval == viaRedo {
				crash{when, disk.Crash(), h, true, false}.check(t)
			}
		}
	}
}

// The disk fills up at any byte of a workload that rolls segments.
func TestAFullDiskRefusesAndRecovers(t *testing.T) {
	body := func(i int) string { return strings.Repeat(fmt.Sprintf("%03d ", i), 30) }
	for free := int64(0); free < 2600; free += 7 {
		disk := newDisk(t)
		o := mustOpen(t, disk, seglog.SyncAlways)
		want := []string{"before"}
		o.add(t, want...)
		disk.SetFree(free)
		refused := 0
		for i := 0; refused < 3; i++ {
			err := o.Commit(o.put(t, body(i), body(i)))
			switch {
			case err == nil:
				want = append(want, body(i), body(i))
			case errors.Is(err, syscall.ENOSPC):
				refused++
			default:
				t.Fatalf("free %d: %v, want ENOSPC", free, err)
			}
			if got := o.bodies(t); !slices.Equal(got, want) {
				t.Fatalf("free %d: a reader sees %q, want %q", free, got, want)
			}
			if n := o.Count(0, o.End()); n != int64(len(want)) {
				t.Fatalf("free %d: Count is %d, want %d", free, n, len(want))
			}
		}
		full := disk.Crash() // the power fails while the disk is full
		disk.SetFree(1 << 20)
		want = append(want, "after")
		o.add(t, "after")
		must(t, o.close())
		after := mustOpen(t, disk, seglog.SyncAlways)
		if got := after.bodies(t); !slices.Equal(got, want) {
			t.Fatalf("free %d: reopened it has %q, want %q", free, got, want)
		}
		d := slices.DeleteFunc(after.reported(), func(d seglog.Damage) bool { return errors.Is(d.Err, seglog.ErrNoEnd) })
		if len(d) > 0 { // but that there was no room for footers
			t.Fatalf("free %d: reopened it reports %v", free, d)
		}
		again := mustOpen(t, full, seglog.SyncAlways)
		if got := again.bodies(t); !slices.Equal(got, want[:len(want)-1]) {
			t.Fatalf("free %d: after a crash it has %q, want %q", free, got, want[:len(want)-1])
		}
	}
}

func TestCloseOnAFullDiskSaysSo(t *testing.T) {
	disk := newDisk(t)
	o := mustOpen(t, disk, seglog.SyncAlways)
	o.add(t, "kept")
	tk := o.put(t, strings.Repeat("x", 500))
	disk.SetFree(100)
	if err := o.close(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Close returned %v, want ENOSPC", err)
	}
	disk.SetFree(1 << 20)
	o = mustOpen(t, disk, seglog.SyncAlways)
	if got := o.bodies(t); !slices.Equal(got, []string{"kept"}) || o.End() < tk.First {
		t.Fatalf("reopened it has %q and ends at %d", got, o.End())
	}
}

// Records that were appended while the round before theirs failed stand behind a gap.
// Whoever appended them learns why they are gone, although his own round was fine.
func TestWhoCameAfterAFailedWriteIsToldTheTruth(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpSyncDir} {
		t.Run(kind.String(), func(t *testing.T) {
			var o *opened
			var meanwhile seglog.Ticket
			disk := newDisk(t)
			armed := false
			o = mustOpen(t, inject(disk, func(op vfs.Op) error {
				if !armed || op.Kind != kind {
					return nil
				}
				armed = false
				meanwhile = o.put(t, "behind the gap")
				return &errNoSpace{}
			}), seglog.SyncAlways)
			if kind == vfs.OpWrite || kind == vfs.OpSync {
				o.add(t, "before") // so that there is a file
			}
			before := o.bodies(t)
			armed = true
			if err := o.Commit(o.put(t, "fails")); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Commit of what could not be written: %v, want ENOSPC", err)
			}
			next := o.put(t, "next")
			if err := o.Commit(meanwhile); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Commit of what stood behind it: %v, want ENOSPC", err)
			}
			if err := o.Commit(next); err != nil {
				t.Errorf("Commit of what came later: %v", err)
			}
			if err := o.Commit(meanwhile); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Commit asked again: %v, want ENOSPC", err)
			}
			want := append(slices.Clone(before), "next")
			if got := o.bodies(t); !slices.Equal(got, want) {
				t.Errorf("it has %q, want %q", got, want)
			}
			if next.First <= meanwhile.First {
				t.Errorf("number %d is given out again", next.First)
			}
		})
	}
}

type errNoSpace struct{}

func (*errNoSpace) Error() string { return "injected: no space" }
func (*errNoSpace) Unwrap() error { return syscall.ENOSPC }

// A batch that runs over from one segment to the next is visible as a whole or not at all.
func TestABatchAcrossSegmentsFailsAsAWhole(t *testing.T) {
	disk := newDisk(t)
	creates := 0
	o := mustOpen(t, inject(disk, func(op vfs.Op) error {
		if op.Kind == vfs.OpCreate {
			if creates++; creates == 2 {
				return errInjected
			}
		}
		return nil
	}), seglog.SyncAlways)
	o.add(t, "before")
	var batch []string
	for i := range 30 {
		batch = append(batch, fmt.Sprintf("%d %s", i, strings.Repeat("-", 80)))
	}
	if err := o.Commit(o.put(t, batch...)); !errors.Is(err, errInjected) {
		t.Fatalf("Commit: %v, want the injected error", err)
	}
	if got := o.bodies(t); !slices.Equal(got, []string{"before"}) {
		t.Fatalf("of a batch that failed %d records are visible", len(got)-1)
	}
	o.add(t, batch...)
	if got := o.bodies(t); !slices.Equal(got, append([]string{"before"}, batch...)) {
		t.Fatalf("the second attempt left %d records", len(got))
	}
}

// After a sync that failed the disk may have dropped what it was to write, and the next
// sync, of the same file, would not say so.
func TestASegmentWhoseSyncFailedIsNotWrittenToAgain(t *testing.T) {
	for _, interval := range []time.Duration{seglog.SyncAlways, time.Second} {
		t.Run(fmt.Sprint(interval), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { abandonAfterFailedSync(t, interval) })
		})
	}
}

func abandonAfterFailedSync(t *testing.T, interval time.Duration) {
	armed, bad := false, ""
	o := mustOpen(t, inject(newDisk(t), func(op vfs.Op) error {
		if armed && op.Kind == vfs.OpSync {
			armed, bad = false, op.Name
			return errInjected
		}
		if op.Kind == vfs.OpWrite && op.Name == bad && op.Len > 1000 { // the footer is shorter
			t.Errorf("%v after its sync failed", op)
		}
		return nil
	}), interval, func(opts *seglog.Options) { opts.SegmentSize = 1 << 20 })
	o.add(t, "first")
	time.Sleep(2 * time.Second)
	synctest.Wait()
	armed = true
	err := o.Commit(o.put(t, "second"))
	time.Sleep(2 * time.Second)
	synctest.Wait()
	want := []string{"first"}
	if interval == seglog.SyncAlways {
		if !errors.Is(err, errInjected) {
			t.Errorf("Commit: %v, want the injected error", err)
		}
	} else {
		want = append(want, "second")
		must(t, err)
		if d := o.reported(); len(d) != 1 || !errors.Is(d[0].Err, errInjected) {
			t.Errorf("reported %v, want the injected error", d)
		}
	}
	if bad == "" {
		t.Fatal("nothing was synced")
	}
	want = append(want, strings.Repeat("third", 300))
	o.add(t, want[len(want)-1])
	if got := o.bodies(t); !slices.Equal(got, want) {
		t.Errorf("it has %q, want %q", got, want)
	}
	must(t, o.close())
}

// With an interval, what was not synced yet is by Close, and Close knows if it was not.
func TestCloseSyncsWhatTheIntervalHasNot(t *testing.T) {
	disk := newDisk(t)
	fail := false
	fs := inject(disk, func(op vfs.Op) error {
		if fail && op.Kind == vfs.OpSync {
			return errInjected
		}
		return nil
	})
	o := mustOpen(t, fs, time.Hour)
	o.add(t, "first")
	must(t, o.close())
	if got := mustOpen(t, disk.Crash(), seglog.SyncAlways).bodies(t); !slices.Equal(got, []string{"first"}) {
		t.Errorf("after Close and a power loss it has %q", got)
	}
	o = mustOpen(t, fs, time.Hour)
	o.add(t, "second")
	fail = true
	if err := o.close(); !errors.Is(err, errInjected) {
		t.Errorf("Close, when a sync failed: %v", err)
	}
}

// The file of a write that failed may wait for its sync in the background.
func TestAFailedWriteDoesNotTroubleTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk(t)
		o := mustOpen(t, disk, time.Second)
		o.add(t, "first")
		disk.SetFree(10)
		if err := o.Commit(o.put(t, "second")); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Commit: %v, want ENOSPC", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if d := o.reported(); len(d) > 0 {
			t.Errorf("reported %v", d)
		}
		if got := mustOpen(t, disk.Crash(), seglog.SyncAlways).bodies(t); !slices.Equal(got, []string{"first"}) {
			t.Errorf("%q is safe after the interval", got)
		}
	})
}

// The syncer may be in the middle of a slow sync of the file that Close is about to close.
func TestCloseWaitsForASyncInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		o := mustOpen(t, vfs.Inject(newDisk(t), func(op vfs.Op) error {
			if op.Kind == vfs.OpSync && slow.CompareAndSwap(true, false) {
				time.Sleep(10 * time.Second)
			}
			return nil
		}), time.Second)
		o.add(t, "x")
		slow.Store(true)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		must(t, o.Close())
		time.Sleep(20 * time.Second)
		if d := o.reported(); len(d) > 0 {
			t.Errorf("reported %v", d)
		}
	})
}
