package seglog_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const dir = "log"

func newDisk(t testing.TB) *vfs.Mem {
	t.Helper()
	disk := vfs.NewMem()
	must(t, disk.MkdirAll(dir))
	must(t, disk.SyncDir("."))
	return disk
}

func must(t interface {
	Helper()
	Fatal(...any)
}, err error,
) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inject is vfs.Inject with calls of before one after the other.
func inject(fs vfs.FS, before func(vfs.Op) error) vfs.FS {
	var mu sync.Mutex
	return vfs.Inject(fs, func(op vfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		return before(op)
	})
}

// opened is a log with a committer of its own, and what it reported.
type opened struct {
	*seglog.Log
	c *seglog.Committer

	mu     sync.Mutex // guards damage
	damage []seglog.Damage
}

// viaRedo is SyncAlways with a redo log that takes every round, and is full after some.
const viaRedo time.Duration = -7

// open opens the log that fs has in dir, with segments of 1 KiB and a little memory for
// its tail; with a nil fs, one in memory.
func open(fs vfs.FS, interval time.Duration, change ...func(*seglog.Options)) (*opened, error) {
	o := &opened{}
	var redo *seglog.Redo
	if fs != nil {
		var err error
		redo, err = seglog.OpenRedo(fs, ".", func(d seglog.Damage) { o.damage = append(o.damage, d) })
		if err != nil {
			return nil, err
		}
	}
	if interval == viaRedo {
		o.c = seglog.NewStillCommitter(redo.ForRoundsOf(1, 4096))
	} else {
		o.c = seglog.NewCommitter(interval, nil)
	}
	opts := seglog.Options{
		FS: fs, Dir: dir, SegmentSize: 1024, Committer: o.c, Tail: seglog.NewTail(2048),
		OnDamage: func(d seglog.Damage) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.damage = append(o.damage, d)
		},
	}
	for _, f := range change {
		f(&opts)
	}
	var err error
	if o.Log, err = seglog.Open(opts); err != nil {
		o.c.Close()
		return nil, err
	}
	return o, nil
}

func mustOpen(t testing.TB, fs vfs.FS, interval time.Duration, change ...func(*seglog.Options)) *opened {
	t.Helper()
	o, err := open(fs, interval, change...)
	must(t, err)
	t.Cleanup(o.stop)
	return o
}

// stop ends the log's goroutines without closing it, as far as the disk can tell.
func (o *opened) stop() {
	if o.c != nil {
		o.c.Close()
		o.c = nil
	}
}

func (o *opened) close() error {
	err := o.Close()
	o.stop()
	return err
}

func (o *opened) reported() []seglog.Damage {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.damage)
}

// add appends bodies and commits them.
func (o *opened) add(t testing.TB, bodies ...string) seglog.Ticket {
	t.Helper()
	tk := o.put(t, bodies...)
	must(t, o.Commit(tk))
	return tk
}

func (o *opened) put(t testing.TB, bodies ...string) seglog.Ticket {
	t.Helper()
	tk, err := o.Append(time.Now().UnixNano(), len(bodies), func(i int) seglog.Entry {
		return seglog.Entry{Body: []byte(bodies[i])}
	})
	must(t, err)
	return tk
}

// read reads everything from seq on, and checks that sequence numbers ascend.
func (o *opened) read(t testing.TB, seq uint64) []seglog.Record {
	t.Helper()
	r := o.NewReader(seq)
	defer r.Close()
	var all []seglog.Record
	for dst := make([]seglog.Record, 5); ; {
		n, err := r.Read(dst)
		must(t, err)
		if n == 0 {
			return all
		}
		for _, rec := range dst[:n] {
			if rec.Seq < seq {
				t.Fatalf("read record %d after %d", rec.Seq, seq-1)
			}
			seq = rec.Seq + 1
			all = append(all, rec)
		}
	}
}

func (o *opened) bodies(t testing.TB) []string {
	t.Helper()
	var bodies []string
	for _, rec := range o.read(t, 1) {
		bodies = append(bodies, string(rec.Body))
	}
	return bodies
}

// history is what was done to a log, by sequence number.
type history struct {
	appended map[uint64]string // everything, committed or not
	acked    map[uint64]bool   // Commit returned nil
	failed   map[uint64]bool   // Commit did not
	removed  map[uint64]bool   // was in a segment that was removed
	top      uint64            // one above the last number that was given out
}

func newHistory() *history {
	return &history{
		appended: map[uint64]string{}, acked: map[uint64]bool{},
		failed: map[uint64]bool{}, removed: map[uint64]bool{}, top: 1,
	}
}

func (h *history) clone() *history {
	c := newHistory()
	for seq, body := range h.appended {
		c.appended[seq] = body
		c.acked[seq], c.failed[seq], c.removed[seq] = h.acked[seq], h.failed[seq], h.removed[seq]
	}
	c.top = h.top
	return c
}

func (h *history) append(o *opened, r *rand.Rand, n int) (seglog.Ticket, error) {
	var bodies []string
	tk, err := o.Append(1, n, func(int) seglog.Entry {
		e := seglog.Entry{Body: make([]byte, r.IntN(200)), Due: r.Int64()}
		for i := range e.Body {
			e.Body[i] = byte(r.Uint32())
		}
		if r.IntN(2) == 0 {
			e.Headers = fmt.Appendf(nil, "header %d", r.Uint64())
		}
		bodies = append(bodies, contents(seglog.Record{Headers: e.Headers, Body: e.Body, Due: e.Due}))
		return e
	})
	for i, body := range bodies {
		h.appended[tk.First+uint64(i)] = body
	}
	return tk, err
}

// contents is all of a record but its place, in one string.
func contents(r seglog.Record) string {
	return strconv.Itoa(len(r.Headers)) + " " + string(r.Headers) + string(r.Body) + " " + strconv.FormatInt(r.Due, 10)
}

// settle notes how the Commit of records [from, to) has ended.
func (h *history) settle(from, to uint64, err error) {
	for seq := from; seq < to; seq++ {
		if h.acked[seq] = err == nil; err != nil {
			h.failed[seq] = true
		}
	}
	if err == nil {
		h.top = max(h.top, to)
	}
}

// remove removes the i-th of the segments that can be.
func (h *history) remove(o *opened, i int) {
	if full := o.Sealed(); i < len(full) {
		for seq := full[i].Base; seq < full[i].Next; seq++ {
			if h.appended[seq] != "" {
				h.removed[seq] = true
			}
		}
		_ = o.Remove(full[i].Base) // it is gone from the log all the same
	}
}

// work does a bit of everything to a log, reopening it twice, and goes on after
// errors as a broker would. What a running reader sees is checked on the way.
func (h *history) work(t testing.TB, fs vfs.FS, interval time.Duration, r *rand.Rand) {
	for range 3 {
		o, err := open(fs, interval)
		if err != nil {
			continue
		}
		doubtful := h.clone().failed
		for step := range 8 {
			first, err := h.append(o, r, r.IntN(4))
			must(t, err)
			last := first
			if r.IntN(3) == 0 {
				last, err = h.append(o, r, 1)
				must(t, err)
			}
			err = o.Commit(last)
			h.settle(last.First, last.End, err)
			if last != first {
				h.settle(first.First, first.End, o.Commit(first))
			}
			if step%3 == 2 {
				h.remove(o, r.IntN(2))
				h.checkRunning(t, o, doubtful)
			}
			if interval == viaRedo && step%4 == 3 {
				o.c.SyncAll(step == 3)
			}
		}
		h.checkRunning(t, o, doubtful)
		tk, err := h.append(o, r, 2)
		must(t, err)
		h.settle(tk.First, tk.End, o.close())
	}
}

// checkRunning compares the log with the history. Records whose Commit failed may only
// be there if that was before the log was opened.
func (h *history) checkRunning(t testing.TB, o *opened, doubtful map[uint64]bool) {
	t.Helper()
	recs, err := o.tryRead()
	if errors.Is(err, errInjected) {
		return
	}
	must(t, err)
	seen := map[uint64]bool{}
	for _, rec := range recs {
		seen[rec.Seq] = true
		if !h.acked[rec.Seq] && !doubtful[rec.Seq] {
			t.Errorf("record %d is visible and was never committed", rec.Seq)
		}
	}
	h.checkKept(t, seen)
	h.checkContents(t, recs)
}

func (o *opened) tryRead() (all []seglog.Record, err error) {
	r := o.NewReader(0)
	defer r.Close()
	for dst := make([]seglog.Record, 5); ; {
		n, err := r.Read(dst)
		if n == 0 {
			return all, err
		}
		all = append(all, dst[:n]...)
	}
}

func (h *history) checkKept(t testing.TB, seen map[uint64]bool) {
	t.Helper()
	for seq, acked := range h.acked {
		if acked && !h.removed[seq] && !seen[seq] {
			t.Errorf("record %d was committed and is missing", seq)
		}
	}
}

func (h *history) checkContents(t testing.TB, recs []seglog.Record) {
	t.Helper()
	last := uint64(0)
	for _, rec := range recs {
		if rec.Seq <= last {
			t.Errorf("record %d came after %d", rec.Seq, last)
		}
		last = rec.Seq
		if body, ok := h.appended[rec.Seq]; !ok {
			t.Errorf("record %d was never appended", rec.Seq)
		} else if body != contents(rec) {
			t.Errorf("record %d is %q, was appended as %q", rec.Seq, contents(rec), body)
		}
	}
}

var errInjected = errors.New("injected")
