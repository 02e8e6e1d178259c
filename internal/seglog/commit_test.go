package seglog_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// slowSyncs is fs with syncs that take a second, which counts them.
type slowSyncs struct {
	vfs.FS
	syncs, now, most atomic.Int64
}

func newSlowSyncs(fs vfs.FS) *slowSyncs {
	s := &slowSyncs{}
	s.FS = vfs.Inject(fs, func(op vfs.Op) error {
		if op.Kind == vfs.OpSync {
			s.syncs.Add(1)
			now := s.now.Add(1)
			for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); most = s.most.Load() {
			}
			time.Sleep(time.Second)
			s.now.Add(-1)
		}
		return nil
	})
	return s
}

func TestThoseWhoPublishAtTheSameTimeShareASync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const publishers, each = 50, 10
		fs := newSlowSyncs(newDisk(t))
		o := mustOpen(t, fs, seglog.SyncAlways, func(opts *seglog.Options) { opts.SegmentSize = 1 << 20 })
		o.add(t, "makes the file")
		before, start := fs.syncs.Load(), time.Now()
		var wg sync.WaitGroup
		for p := range publishers {
			wg.Go(func() {
				for i := range each {
					tk := o.put(t, fmt.Sprintf("%d/%d", p, i))
					if err := o.Commit(tk); err != nil || o.End() < tk.End {
						t.Errorf("Commit of %d: %v, visible to %d", tk.First, err, o.End())
					}
				}
			})
		}
		wg.Wait()
		// Who has the turn may sync alone; all that come meanwhile share the next.
		if n := fs.syncs.Load() - before; n > 2*each || time.Since(start) > 2*each*time.Second {
			t.Errorf("%d commits made %d syncs in %v", publishers*each, n, time.Since(start))
		}
	})
}

func TestTheLogsOfARoundSyncConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const logs = 20
		disk := newDisk(t)
		fs := newSlowSyncs(disk)
		c := seglog.NewCommitter(seglog.SyncAlways, nil)
		t.Cleanup(c.Close)
		tail := seglog.NewTail(0)
		var all []*opened
		for i := range logs {
			must(t, disk.MkdirAll(fmt.Sprint(i)))
			o := mustOpen(t, fs, seglog.SyncAlways, func(opts *seglog.Options) {
				opts.Dir, opts.Committer, opts.Tail = fmt.Sprint(i), c, tail
			})
			all = append(all, o)
		}
		round := func() time.Duration {
			start := time.Now()
			var wg sync.WaitGroup
			for _, o := range all {
				wg.Go(func() { o.add(t, "x") })
			}
			wg.Wait()
			return time.Since(start)
		}
		// The first to come is a round, with those who come along, and the others are the
		// second. New files take two syncs.
		if took := round(); took > 4*time.Second {
			t.Errorf("%d new logs took %v", logs, took)
		}
		if took := round(); took > 2*time.Second || fs.most.Load() < logs/2 {
			t.Errorf("%d logs took %v, at most %d syncs at a time", logs, took, fs.most.Load())
		}
	})
}

// Whoever looks at the disk in the moment in which Commit returns finds the record there.
func TestCommitDoesNotReturnBeforeItsSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk(t)
		o := mustOpen(t, newSlowSyncs(disk), seglog.SyncAlways)
		var wg sync.WaitGroup
		for p := range 8 {
			wg.Go(func() {
				for i := range 5 {
					body := fmt.Sprintf("%d/%d", p, i)
					o.add(t, body)
					after, err := open(disk.Crash(), seglog.SyncAlways)
					if err != nil {
						t.Error(err)
						return
					}
					if !slices.Contains(after.bodies(t), body) {
						t.Errorf("%s was committed and is not on the disk", body)
					}
					after.stop()
				}
			})
		}
		wg.Wait()
	})
}

func TestNothingIsVisibleBeforeItIsSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mustOpen(t, newSlowSyncs(newDisk(t)), seglog.SyncAlways)
		o.add(t, "first")
		go func() { _ = o.Commit(o.put(t, "second")) }()
		synctest.Wait() // in the middle of the sync
		if got := o.bodies(t); len(got) != 1 || o.End() != 2 || o.Count(0, 10) != 1 {
			t.Errorf("visible: %q, End %d, Count %d", got, o.End(), o.Count(0, 10))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := o.bodies(t); len(got) != 2 || o.End() != 3 {
			t.Errorf("visible after the sync: %q, End %d", got, o.End())
		}
	})
}

// The owner of a log knows of a record before its publisher does: a message that was
// published is counted. And he may use the log in turn.
func TestOnCommitComesBeforeCommitReturnsAndMayUseTheLog(t *testing.T) {
	for _, memory := range []bool{true, false} {
		var o *opened
		var told atomic.Uint64
		var fs vfs.FS
		if !memory {
			fs = newDisk(t)
		}
		var asked atomic.Bool
		o = mustOpen(t, fs, seglog.SyncAlways, func(opts *seglog.Options) {
			opts.OnCommit = func(end uint64) {
				for t := told.Load(); end > t && !told.CompareAndSwap(t, end); t = told.Load() {
				}
				if asked.CompareAndSwap(false, true) {
					o.add(t, "by the callback")
				}
				for _, s := range o.Sealed() {
					must(t, o.Remove(s.Base))
				}
			}
		})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					if tk := o.add(t, strings.Repeat("x", 50)); told.Load() < tk.End {
						t.Errorf("Commit of %d returned when %d had been told", tk.First, told.Load())
					}
				}
			})
		}
		wg.Wait()
	}
}

// That holds too for those who only learn that somebody else has led their round.
func TestNobodyReturnsBeforeTheOwnerIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Uint64
		o := mustOpen(t, newSlowSyncs(newDisk(t)), seglog.SyncAlways, func(opts *seglog.Options) {
			opts.OnCommit = func(end uint64) {
				time.Sleep(time.Second)
				told.Store(max(told.Load(), end))
			}
		})
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				for range 3 {
					if tk := o.add(t, "x"); told.Load() < tk.End {
						t.Errorf("Commit of %d returned when %d had been told", tk.First, told.Load())
					}
				}
			})
		}
		wg.Wait()
	})
}

// With an interval, syncs come that long after the first write, and not in between.
func TestAnIntervalSyncsInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk(t)
		o := mustOpen(t, disk, 2*time.Second)
		left := func() int { return len(mustOpen(t, disk.Crash(), seglog.SyncAlways).bodies(t)) }
		for i := range 5 {
			o.add(t, "a", "b")
			time.Sleep(1900 * time.Millisecond)
			o.add(t, "c")
			if n := left(); n != 3*i {
				t.Errorf("round %d: %d are safe before the interval is over", i, n)
			}
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
			if n := left(); n != 3*i+3 {
				t.Errorf("round %d: %d are safe after the interval", i, n)
			}
		}
		must(t, o.close())
	})
}

// These are all the calls that change something on the disk. A change here is a change
// to what a publish costs, and to what was thought about crashes.
func TestWhichStorageCallsAreMade(t *testing.T) {
	always := map[string]string{
		"first append": `create 1, write 1 +128 at 0, sync 1, syncdir, write 1 +34 at 128, sync 1`,
		"append":       `write 1 +34 at 162, sync 1`,
		"two appends":  `write 1 +68 at 196, sync 1`,
		"nothing":      ``,
		"roll": `write 1 +92 at 298, create 6, write 6 +128 at 0, sync 6, syncdir, ` +
			`write 6 +833 at 128, sync 1, sync 6, close 1`,
		"roll with records": `write 6 +34 at 961, sync 6, write 6 +92 at 995, ` +
			`create 8, write 8 +128 at 0, sync 8, syncdir, write 8 +833 at 128, sync 6, sync 8, close 6`,
		"remove":          `remove 1`,
		"close":           `write 8 +92 at 961, sync 8, close 8`,
		"reopen":          `close 8, close 6`,
		"append again":    `create 9, write 9 +128 at 0, sync 9, syncdir, write 9 +34 at 128, sync 9`,
		"after a crash":   `truncate 9 to 162, sync 9, write 9 +92 at 162, sync 9, close 9, close 8, close 6`,
		"after the crash": `close 9, close 8, close 6`,
	}
	never := map[string]string{
		"append":      `write 1 +34 at 162`,
		"two appends": `write 1 +68 at 196`,
		"first append": `create 1, write 1 +128 at 0, sync 1, syncdir, ` +
			`write 1 +34 at 128`,
		"roll": `write 1 +92 at 298, create 6, write 6 +128 at 0, sync 6, syncdir, ` +
			`write 6 +833 at 128, close 1`,
		"roll with records": `write 6 +34 at 961, write 6 +92 at 995, ` +
			`create 8, write 8 +128 at 0, sync 8, syncdir, write 8 +833 at 128, close 6`,
		"close":        `write 8 +92 at 961, close 8`,
		"append again": `create 9, write 9 +128 at 0, sync 9, syncdir, write 9 +34 at 128`,
	}
	for step, calls := range always {
		if _, ok := never[step]; !ok {
			never[step] = calls
		}
	}
	t.Run("always", func(t *testing.T) { checkCalls(t, seglog.SyncAlways, always) })
	t.Run("never", func(t *testing.T) { checkCalls(t, seglog.SyncNever, never) })
}

func checkCalls(t *testing.T, interval time.Duration, want map[string]string) {
	var calls []string
	disk := newDisk(t)
	fs := inject(disk, func(op vfs.Op) error {
		if changes(op) || op.Kind == vfs.OpRename {
			short := strings.NewReplacer("log/", "", "syncdir log", "syncdir", ".seg", "").Replace(op.String())
			if i := strings.LastIndex(short, strings.Repeat("0", 15)); i >= 0 {
				short = short[:i] + short[i+15:]
			}
			calls = append(calls, short)
		}
		return nil
	})
	var o *opened
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"first append", func() { o = mustOpen(t, fs, interval); o.add(t, "a") }},
		{"append", func() { o.add(t, "b") }},
		{"two appends", func() { o.put(t, "c"); o.add(t, "d") }},
		{"nothing", func() { must(t, o.Commit(seglog.Ticket{})) }},
		{"roll", func() { o.add(t, "e"); calls = nil; o.add(t, strings.Repeat("f", 800)) }},
		{"roll with records", func() { o.put(t, "g"); o.add(t, strings.Repeat("h", 800)) }},
		{"remove", func() { must(t, o.Remove(o.Sealed()[0].Base)) }},
		{"close", func() { must(t, o.close()) }},
		{"reopen", func() { o = mustOpen(t, fs, interval) }},
		{"append again", func() { o.add(t, "i") }},
		{"after a crash", func() { o = mustOpen(t, fs, interval) }},
		{"after the crash", func() { o = mustOpen(t, fs, interval) }},
	} {
		calls = nil
		step.do()
		if got := strings.Join(calls, ", "); got != want[step.name] {
			t.Errorf("%s:\n got %s\nwant %s", step.name, got, want[step.name])
		}
	}
}

// What was consumed before it was synced is never written to the disk: a topic that is drained as
// fast as it is filled would else be as slow as that.
func TestARemovedSegmentIsNotSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk(t)
		var synced atomic.Int64
		o := mustOpen(t, vfs.Inject(disk, func(op vfs.Op) error {
			if op.Kind == vfs.OpSync {
				synced.Add(1)
			}
			return nil
		}), 2*time.Second)
		for range 4 {
			o.add(t, strings.Repeat("x", 800))
		}
		sealed := o.Sealed()
		if len(sealed) != 3 {
			t.Fatalf("%d segments are full", len(sealed))
		}
		for _, s := range sealed {
			must(t, o.Remove(s.Base))
		}
		before := synced.Load() // for each file that was made
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n := synced.Load() - before; n != 1 {
			t.Errorf("%d files were synced, want the last one alone", n)
		}
		after := mustOpen(t, disk.Crash(), seglog.SyncAlways)
		if got := len(after.bodies(t)); got != 1 {
			t.Errorf("%d records are safe", got)
		}
		if d := after.reported(); len(d) > 0 {
			t.Errorf("they are back: %v", d)
		}
		must(t, o.close())
	})
}
