package seglog_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// firstAfterPowerLoss opens what disk is after a power loss, and again after a clean
// stop, and returns the first number that is given out then.
func firstAfterPowerLoss(t *testing.T, disk *vfs.Mem) uint64 {
	t.Helper()
	disk = disk.Crash()
	must(t, mustOpen(t, disk, seglog.SyncAlways).close())
	return mustOpen(t, disk, seglog.SyncAlways).put(t, "next").First
}

func writeFile(t *testing.T, fs vfs.FS, name, data string) {
	t.Helper()
	f, err := fs.Create(dir + "/" + name)
	must(t, err)
	_, err = f.WriteAt([]byte(data), 0)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	must(t, fs.SyncDir(dir))
}

// Without syncs the records are lost with the power, but readers have seen them.
func TestNumbersThatReadersHaveSeenAreNotUsedAgain(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, disk *vfs.Mem, o *opened)
	}{
		{"records lost", func(*testing.T, *vfs.Mem, *opened) {}},
		{"another's file behind the segments", func(t *testing.T, disk *vfs.Mem, _ *opened) {
			writeFile(t, disk, "ledger", "not ours")
			writeFile(t, disk, "FFFFFFFFFFFFFFFF.seg", "nor is this")
		}},
		{"the next segment's file was just created", func(t *testing.T, disk *vfs.Mem, o *opened) {
			writeFile(t, disk, fmt.Sprintf("%016x.seg", o.End()), "")
		}},
		{"the next segment's header was not yet on the disk", func(t *testing.T, disk *vfs.Mem, o *opened) {
			writeFile(t, disk, fmt.Sprintf("%016x.seg", o.End()), strings.Repeat("\x00", 128))
		}},
		{"the next segment's header was half on the disk", func(t *testing.T, disk *vfs.Mem, o *opened) {
			whole := filesOf(t, disk)[filesOf(t, disk).names()[0]]
			writeFile(t, disk, fmt.Sprintf("%016x.seg", o.End()), string(whole[:100]))
		}},
		{"what is full was consumed, and what comes next is in memory", func(t *testing.T, disk *vfs.Mem, o *opened) {
			o.put(t, strings.Repeat("y", 2000))
			for base := range o.End() {
				must(t, o.Remove(base))
			}
			must(t, disk.SyncDir(dir))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := newDisk(t)
			o := mustOpen(t, disk, seglog.SyncNever)
			for range 20 {
				o.add(t, "seen")
			}
			seen := o.read(t, 1)
			c.do(t, disk, o)
			if next := firstAfterPowerLoss(t, disk); next <= seen[len(seen)-1].Seq {
				t.Errorf("number %d is given out again, %d was seen", next, seen[len(seen)-1].Seq)
			}
		})
	}
}

// Wherever the last write was cut, what is before it stands, and what is left of it goes,
// as torn and not as damaged: nobody was promised anything.
func TestATornEndIsCutAndReportedAsTorn(t *testing.T) {
	_, unclosed, bodies := smallLog(t)
	name := unclosed.names()[1]
	whole := unclosed[name]
	recs := recordsOf(whole)
	last := recs[len(recs)-1]
	for cut := last.begin; cut < last.end; cut++ {
		unclosed[name] = whole[:cut]
		disk := unclosed.disk(t)
		for again := range 2 {
			o := mustOpen(t, disk, seglog.SyncAlways)
			if got := o.bodies(t); len(got) != len(bodies)-1 {
				t.Fatalf("cut at %d: %d records are left of %d", cut, len(got), len(bodies))
			}
			want := seglog.Damage{File: name, Offset: last.begin, Bytes: cut - last.begin, Err: seglog.ErrTorn}
			if d := o.reported(); cut == last.begin || again > 0 {
				if len(d) > 0 {
					t.Fatalf("cut at %d: reported %v, nothing was cut", cut, d)
				}
			} else if len(d) != 1 || d[0] != want {
				t.Fatalf("cut at %d: reported %v, want %v", cut, d, want)
			}
			must(t, o.close())
		}
	}
}

// What cannot be read for another reason than damage is an error: it might be there again
// the next time, and nothing may be cut off or left out until then.
func TestOpenFailsWhenTheDiskDoes(t *testing.T) {
	_, unclosed, bodies := smallLog(t)
	for failing := 1; ; failing++ {
		disk, n := unclosed.disk(t), 0
		o, err := open(inject(disk, func(op vfs.Op) error {
			if changes(op) {
				return nil
			}
			if n++; n == failing {
				return errInjected
			}
			return nil
		}), seglog.SyncAlways)
		if n < failing {
			o.stop()
			return
		}
		if !errors.Is(err, errInjected) {
			t.Fatalf("call %d failed, Open returned %v", failing, err)
		}
		if got := mustOpen(t, disk, seglog.SyncAlways).bodies(t); len(got) != len(bodies) {
			t.Fatalf("call %d failed, and then %d records are there", failing, len(got))
		}
	}
}

// Where a segment has holes, Count is off by no more than it says.
func TestCountWithHoles(t *testing.T) {
	const records, each = 4000, 34 + 99
	disk := newDisk(t)
	o := mustOpen(t, disk, seglog.SyncNever, func(opts *seglog.Options) { opts.SegmentSize = 1 << 20 })
	for range records {
		o.put(t, strings.Repeat("x", 100))
	}
	must(t, o.Commit(o.put(t, "last")))
	r := rand.New(rand.NewPCG(1, 2))
	name := filesOf(t, disk).names()[0]
	for range 300 {
		disk.FlipBit(dir+"/"+name, (128+r.Int64N(records*each))*8)
	}
	o = mustOpen(t, disk, seglog.SyncNever)
	var before [records + 3]int64 // by sequence number, how many have a lower one
	left := o.read(t, 1)
	for _, rec := range left {
		before[rec.Seq+1] = 1
	}
	for seq := range before[1:] {
		before[seq+1] += before[seq]
	}
	if n := o.Count(0, o.End()); n != int64(len(left)) || n > records-200 {
		t.Errorf("Count of all is %d, %d are left", n, len(left))
	}
	for range 2000 {
		from, to := r.Uint64N(records+2), r.Uint64N(records+2)
		from, to = min(from, to), max(from, to)
		if off := o.Count(from, to) - (before[to] - before[from]); max(off, -off) > (64<<10)/each {
			t.Fatalf("Count(%d, %d) is off by %d", from, to, off)
		}
	}
}

func TestWhatACallerMayAndMayNot(t *testing.T) {
	for _, fs := range []vfs.FS{nil, newDisk(t)} {
		o := mustOpen(t, fs, seglog.SyncAlways)
		if tk := o.add(t); tk.First != tk.End {
			t.Errorf("nothing was appended, as %v", tk)
		}
		r := o.NewReader(0)
		defer r.Close()
		o.add(t, "one")
		if n, err := r.Read(nil); n != 0 || err != nil {
			t.Errorf("Read into nothing: %d, %v", n, err)
		}
		if err := o.Remove(1); err != nil || o.Count(0, 10) != 1 {
			t.Errorf("Remove of the only segment: %v, %d records are left", err, o.Count(0, 10))
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("an entry above MaxEntry was appended")
				}
			}()
			_, _ = o.Append(1, 1, func(int) seglog.Entry { return seglog.Entry{Body: make([]byte, seglog.MaxEntry+1)} })
		}()
		must(t, o.Close())
		must(t, o.Close())
		if _, err := o.Append(1, 1, func(int) seglog.Entry { return seglog.Entry{} }); !errors.Is(err, seglog.ErrClosed) {
			t.Errorf("Append after Close: %v", err)
		}
	}
}
