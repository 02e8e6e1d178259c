package seglog_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// changes says whether a call may change what is on the disk.
func changes(op vfs.Op) bool {
	switch op.Kind {
	case vfs.OpCreate, vfs.OpRemove, vfs.OpSyncDir, vfs.OpWrite, vfs.OpSync, vfs.OpTruncate, vfs.OpClose:
		return true
	default:
		return false
	}
}

// A crash is what a power loss left, and what had been done until then.
type crash struct {
	when string
	disk *vfs.Mem
	h    *history
	kept bool // everything that was committed must be there
	dies bool // only the process did: the disk may still have writes to sync
}

// crashes runs the workload once and takes what a power loss would leave before each
// call that changes something, on a good day and on some bad ones.
func crashes(t *testing.T, interval time.Duration, seed uint64) []crash {
	t.Helper()
	disk, h := newDisk(t), newHistory()
	kept := interval == seglog.SyncAlways || interval == viaRedo
	var all []crash
	n := 0
	fs := inject(disk, func(op vfs.Op) error {
		if !changes(op) {
			return nil
		}
		n++
		when := fmt.Sprintf("seed %d, call %d, %v", seed, n, op)
		all = append(all, crash{when, disk.Crash(), h.clone(), kept, false})
		for day := range uint64(5) {
			bad := disk.CrashKeeping(rand.New(rand.NewPCG(seed, day)))
			all = append(all, crash{fmt.Sprintf("%s, bad day %d", when, day), bad, h.clone(), kept, false})
		}
		return nil
	})
	h.work(t, fs, interval, rand.New(rand.NewPCG(seed, 0)))
	return append(all, crash{"after the end", disk.Crash(), h.clone(), kept, false})
}

func TestNoCommittedRecordIsLostByAPowerLoss(t *testing.T) {
	for _, interval := range []time.Duration{seglog.SyncAlways, viaRedo} {
		for seed := range uint64(2) {
			for _, c := range crashes(t, interval, seed) {
				c.check(t)
			}
		}
	}
}

// Without a sync before Commit returns, a power loss may take records, but no number is
// ever given out for a second time, and what is left is as it was appended.
func TestNoNumberIsUsedTwiceAfterAPowerLossThatTakesRecords(t *testing.T) {
	for _, interval := range []time.Duration{seglog.SyncNever, time.Hour} {
		for seed := range uint64(2) {
			for _, c := range crashes(t, interval, seed) {
				c.check(t)
			}
		}
	}
}

// check opens what a crash left, appends, and lets it happen again and again.
func (c crash) check(t *testing.T) {
	t.Helper()
	h := c.h
	for again := range 3 {
		o, err := open(c.disk, seglog.SyncAlways)
		if err != nil {
			t.Fatalf("%s: %v", c.when, err)
		}
		recs := o.read(t, 1)
		seen := map[uint64]bool{}
		for _, rec := range recs {
			seen[rec.Seq] = true
			h.top = max(h.top, rec.Seq+1)
		}
		h.checkContents(t, recs)
		if c.kept {
			h.checkKept(t, seen)
		}
		if again > 0 { // once, nothing is appended between the crashes
			tk := o.put(t, "after the crash", "and another")
			if tk.First < h.top {
				t.Errorf("number %d is given out again, %d was the last", tk.First, h.top-1)
			}
			for seq := tk.First; seq < tk.End; seq++ {
				delete(h.appended, seq) // its first owner was never told that he has it
			}
			must(t, o.Commit(tk))
			h.appended[tk.First] = contents(seglog.Record{Body: []byte("after the crash")})
			h.appended[tk.First+1] = contents(seglog.Record{Body: []byte("and another")})
			h.settle(tk.First, tk.End, nil)
		}
		if len(recs) > 0 && o.Count(recs[0].Seq, o.End()) < int64(len(recs)) {
			t.Errorf("Count is %d of %d records", o.Count(recs[0].Seq, o.End()), len(recs))
		}
		o.stop()
		if !c.dies {
			c.disk = c.disk.Crash()
		}
		if t.Failed() {
			t.Fatalf("that was: %s (opened for the %d. time)", c.when, again+1)
		}
	}
}

// When only the process dies, everything that was committed is there, whatever the
// policy: its files are still the system's.
func TestNoCommittedRecordIsLostWhenTheProcessDies(t *testing.T) {
	for _, interval := range []time.Duration{seglog.SyncAlways, viaRedo, seglog.SyncNever, time.Hour} {
		for dies, done := 1, false; !done; dies++ {
			disk, h := newDisk(t), newHistory()
			n := 0
			var before *history // nil while it lives
			fs := inject(disk, func(op vfs.Op) error {
				if n++; n < dies {
					return nil
				}
				if before == nil {
					before = h.clone()
				}
				return errInjected
			})
			h.work(t, fs, interval, rand.New(rand.NewPCG(1, 1)))
			if done = before == nil; !done {
				crash{fmt.Sprintf("%v, call %d", interval, dies), disk, before, true, true}.check(t)
			}
		}
	}
}
