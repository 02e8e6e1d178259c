package seglog_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// fleet is some logs that share a committer with a redo log.
type fleet struct {
	c       *seglog.Committer
	logs    []*seglog.Log
	damage  []seglog.Damage
	written int // bodies, so that each is another
}

const fleetSize = 5

// openFleet opens the logs. Rounds of two logs go to the redo log, whose files hold some.
func openFleet(fs vfs.FS, limit int64) (*fleet, error) {
	f := &fleet{}
	report := func(d seglog.Damage) { f.damage = append(f.damage, d) }
	redo, err := seglog.OpenRedo(fs, ".", report)
	if err != nil {
		return nil, err
	}
	f.c = seglog.NewStillCommitter(redo.ForRoundsOf(2, limit))
	for i := range fleetSize {
		l, err := seglog.Open(seglog.Options{
			FS: fs, Dir: logDir(i), SegmentSize: 1024, Committer: f.c, Tail: seglog.NewTail(2048), OnDamage: report,
		})
		if err != nil {
			f.c.Close()
			return nil, err
		}
		f.logs = append(f.logs, l)
	}
	return f, nil
}

func logDir(i int) string { return filepath.Join("logs", fmt.Sprintf("%d.topic", i)) }

func fleetDisk(t testing.TB) *vfs.Mem {
	t.Helper()
	disk := vfs.NewMem()
	for i := range fleetSize {
		must(t, disk.MkdirAll(logDir(i)))
	}
	must(t, disk.SyncDir("logs"))
	must(t, disk.SyncDir("."))
	return disk
}

// commit commits a record to each of these logs in one round, and returns what was.
func (f *fleet) commit(t testing.TB, r *rand.Rand, which ...int) map[string]bool {
	t.Helper()
	var logs []*seglog.Log
	var tickets []seglog.Ticket
	var bodies []string
	for _, i := range which {
		f.written++
		bodies = append(bodies, fmt.Sprintf("log %d, record %d %s", i, f.written, strings.Repeat("x", r.IntN(150))))
		tk, err := f.logs[i].Append(1, 1, func(int) seglog.Entry { return seglog.Entry{Body: []byte(bodies[len(bodies)-1])} })
		must(t, err)
		logs, tickets = append(logs, f.logs[i]), append(tickets, tk)
	}
	done := map[string]bool{}
	for i, err := range seglog.CommitTogether(f.c, logs, tickets) {
		if err == nil {
			done[bodies[i]] = true
		}
	}
	return done
}

// bodies reads all that the logs have.
func (f *fleet) bodies(t testing.TB) map[string]bool {
	t.Helper()
	got := map[string]bool{}
	for _, l := range f.logs {
		r := l.NewReader(1)
		for dst := make([]seglog.Record, 5); ; {
			n, err := r.Read(dst)
			must(t, err)
			if n == 0 {
				break
			}
			for _, rec := range dst[:n] {
				got[string(rec.Body)] = true
			}
		}
		r.Close()
	}
	return got
}

// live does rounds of some or all logs, with what the syncer does in between.
func (f *fleet) live(t testing.TB, r *rand.Rand, rounds int, committed func(map[string]bool)) {
	t.Helper()
	for n := range rounds {
		which := r.Perm(fleetSize)[:1+r.IntN(fleetSize)]
		committed(f.commit(t, r, which...))
		if n%13 == 12 {
			f.c.SyncAll(n%2 == 0)
		}
	}
}

func (f *fleet) close(t testing.TB) {
	t.Helper()
	for _, l := range f.logs {
		must(t, l.Close())
	}
	f.c.Close()
}

// has fails the test unless all of want is there, and nothing that was not written.
func (f *fleet) has(t testing.TB, when string, want map[string]bool) {
	t.Helper()
	got := f.bodies(t)
	for body := range want {
		if !got[body] {
			t.Fatalf("%s: %.30q was committed and is missing", when, body)
		}
	}
	for body := range got {
		if !strings.HasPrefix(body, "log ") {
			t.Fatalf("%s: %.30q was never written", when, body)
		}
	}
}

// Before each call that changes the disk the power goes.
func TestNoRoundOfManyLogsIsLostByAPowerLoss(t *testing.T) {
	for seed := range uint64(3) {
		type moment struct {
			when string
			disk *vfs.Mem
			want map[string]bool
		}
		var moments []moment
		disk, want := fleetDisk(t), map[string]bool{}
		fs := inject(disk, func(op vfs.Op) error {
			if changes(op) {
				for day := range uint64(3) {
					bad := disk.CrashKeeping(rand.New(rand.NewPCG(seed, day+uint64(len(moments)))))
					moments = append(moments, moment{fmt.Sprintf("seed %d, call %d, %v, day %d", seed, len(moments), op, day), bad, maps.Clone(want)})
				}
			}
			return nil
		})
		f, err := openFleet(fs, 6000)
		must(t, err)
		f.live(t, rand.New(rand.NewPCG(seed, 0)), 50, func(done map[string]bool) { maps.Copy(want, done) })
		f.close(t)
		for _, m := range moments {
			for again := range 2 { // what is restored survives the next power loss
				after, err := openFleet(m.disk, 6000)
				if err != nil {
					t.Fatalf("%s: %v", m.when, err)
				}
				after.has(t, fmt.Sprintf("%s, opened for the %d. time", m.when, again+1), m.want)
				after.c.Close()
				m.disk = m.disk.Crash()
			}
		}
	}
}

// Whichever call fails, once, what was committed stays, also after a power loss.
func TestAFailedCallTakesNoRoundOfManyLogs(t *testing.T) {
	for failing, done := 1, false; !done; failing++ {
		disk, want := fleetDisk(t), map[string]bool{}
		n, when := 0, ""
		var over atomic.Bool
		fs := inject(disk, func(op vfs.Op) error {
			if n++; n != failing || over.Load() {
				return nil
			}
			when = fmt.Sprintf("call %d, %v", n, op)
			if op.Kind == vfs.OpClose {
				return nil // it would leak the handle
			}
			return errInjected
		})
		f, err := openFleet(fs, 6000)
		if err == nil {
			f.live(t, rand.New(rand.NewPCG(1, 1)), 20, func(done map[string]bool) { maps.Copy(want, done) })
			over.Store(true)
			f.has(t, when, want)
			f.c.Close()
		}
		done = when == ""
		for _, left := range []*vfs.Mem{disk, disk.Crash()} {
			after, err := openFleet(left, 6000)
			must(t, err)
			after.has(t, when, want)
			after.c.Close()
		}
	}
}

// A round of many logs costs one sync, and is safe after a power loss that takes all that
// was not synced from the logs' own files.
func TestARoundOfManyLogsCostsOneSync(t *testing.T) {
	disk := fleetDisk(t)
	var syncs atomic.Int64
	f, err := openFleet(vfs.Inject(disk, func(op vfs.Op) error {
		if op.Kind == vfs.OpSync {
			syncs.Add(1)
		}
		return nil
	}), 1<<20)
	must(t, err)
	r := rand.New(rand.NewPCG(1, 2))
	all := []int{0, 1, 2, 3, 4}
	want := f.commit(t, r, all...) // which makes their files
	before := syncs.Load()
	maps.Copy(want, f.commit(t, r, all...))
	if n := syncs.Load() - before; n != 1 {
		t.Errorf("a round of %d logs took %d syncs", len(all), n)
	}
	after, err := openFleet(disk.Crash(), 1<<20)
	must(t, err)
	after.has(t, "after a power loss", want)
	after.c.Close()
	f.close(t)
}

// An idle redo log takes no space, and a closed one is gone.
func TestAnIdleRedoLogGivesItsSpaceBack(t *testing.T) {
	disk := fleetDisk(t)
	f, err := openFleet(disk, 1<<20)
	must(t, err)
	r := rand.New(rand.NewPCG(1, 3))
	for range 3 {
		f.commit(t, r, 0, 1, 2)
	}
	if redoBytes(t, disk) == 0 {
		t.Error("the redo log was not used")
	}
	f.c.SyncAll(true)
	if n := redoBytes(t, disk); n != 0 {
		t.Errorf("the redo log still has %d bytes", n)
	}
	f.commit(t, r, 0, 1, 2)
	f.close(t)
	names, err := disk.List(".")
	must(t, err)
	if !slices.Equal(names, []string{"logs"}) {
		t.Errorf("after Close there are %q", names)
	}
}

func redoBytes(t testing.TB, fs vfs.FS) (bytes int64) {
	t.Helper()
	names, err := fs.List(".")
	must(t, err)
	for _, name := range names {
		if strings.HasPrefix(name, "REDO-") {
			file, err := fs.Open(name)
			must(t, err)
			size, err := file.Size()
			must(t, err)
			bytes += size
			must(t, file.Close())
		}
	}
	return bytes
}

// When the redo log finds no room, or cannot be synced, the logs' own files are.
func TestWithoutARedoLogEachFileIsSynced(t *testing.T) {
	for name, fails := range map[string]vfs.OpKind{"no room": vfs.OpWrite, "no sync": vfs.OpSync, "no file": vfs.OpCreate} {
		t.Run(name, func(t *testing.T) {
			disk := fleetDisk(t)
			var broken atomic.Bool
			f, err := openFleet(vfs.Inject(disk, func(op vfs.Op) error {
				if broken.Load() && op.Kind == fails && strings.HasPrefix(filepath.Base(op.Name), "REDO-") {
					return syscall.ENOSPC
				}
				return nil
			}), 1<<20)
			must(t, err)
			r := rand.New(rand.NewPCG(1, 4))
			broken.Store(fails == vfs.OpCreate)
			want := f.commit(t, r, 0, 1, 2, 3)
			maps.Copy(want, f.commit(t, r, 0, 1, 2, 3))
			broken.Store(true)
			maps.Copy(want, f.commit(t, r, 0, 1, 2, 3))
			if len(want) != 12 {
				t.Errorf("%d of 12 were committed", len(want))
			}
			after, err := openFleet(disk.Crash(), 1<<20)
			must(t, err)
			after.has(t, name, want)
			after.c.Close()
			f.close(t)
		})
	}
}

// One flipped bit takes at most the round that it is in, and that only when the power goes,
// and is reported unless the round was the last.
func TestAFlippedBitInTheRedoLog(t *testing.T) {
	disk := fleetDisk(t)
	f, err := openFleet(disk, 1<<20)
	must(t, err)
	r := rand.New(rand.NewPCG(1, 5))
	want := f.commit(t, r, 0, 1, 2) // makes the files: not in the redo log
	var rounds []map[string]bool
	for range 4 {
		rounds = append(rounds, f.commit(t, r, 0, 1, 2))
	}
	size := redoBytes(t, disk)
	for bit := int64(512 * 8); bit < size*8; bit++ {
		for _, left := range []*vfs.Mem{disk.CrashKeeping(rand.New(rand.NewPCG(1, 0))), disk.Crash()} {
			file, err := left.Open("REDO-0")
			must(t, err)
			b := make([]byte, 1)
			_, err = file.ReadAt(b, bit/8)
			must(t, err)
			b[0] ^= 1 << (bit % 8)
			_, err = file.WriteAt(b, bit/8)
			must(t, err)
			must(t, file.Close())
			after, err := openFleet(left, 1<<20)
			must(t, err)
			got := after.bodies(t)
			after.has(t, "flipped", want)
			lost := 0
			for i, round := range rounds {
				whole := true
				for body := range round {
					whole = whole && got[body]
				}
				if !whole {
					lost++
					told := slices.ContainsFunc(after.damage, func(d seglog.Damage) bool { return d.File == "REDO-0" })
					if i < len(rounds)-1 && !told {
						t.Fatalf("bit %d: round %d is lost, and nothing was reported", bit, i)
					}
				}
			}
			if lost > 1 {
				t.Fatalf("bit %d: %d rounds are lost", bit, lost)
			}
			after.c.Close()
		}
		bit += 3 // every other bit or so is as good as all
	}
	f.close(t)
}

// When a log's file cannot be synced in the background, the redo log is all that has its
// records, and is kept until they are restored.
func TestWhatCannotBeSyncedLaterStaysInTheRedoLog(t *testing.T) {
	disk := fleetDisk(t)
	var broken atomic.Bool
	f, err := openFleet(vfs.Inject(disk, func(op vfs.Op) error {
		if broken.Load() && op.Kind == vfs.OpSync && strings.HasPrefix(op.Name, logDir(0)) {
			return syscall.EIO
		}
		return nil
	}), 1<<20)
	must(t, err)
	r := rand.New(rand.NewPCG(1, 6))
	want := f.commit(t, r, 0, 1, 2)
	maps.Copy(want, f.commit(t, r, 0, 1, 2))
	broken.Store(true)
	f.c.SyncAll(true)
	broken.Store(false)
	for range 3 { // the doubtful segment is ended, and new ones are begun
		maps.Copy(want, f.commit(t, r, 0, 1, 2))
		f.c.SyncAll(true)
	}
	now := disk.Crash()
	f.close(t)
	for when, left := range map[string]*vfs.Mem{"before Close": now, "after Close": disk} {
		// What the sync has lost is nowhere else: the disk that failed it has the old bytes.
		lose(t, left, logDir(0), "log 0, record 4 ")
		after, err := openFleet(left, 1<<20)
		must(t, err)
		after.has(t, when, want)
		after.c.Close()
	}
}

// lose overwrites the start of a body in the first segment of a log.
func lose(t testing.TB, fs vfs.FS, dir, body string) {
	t.Helper()
	names, err := fs.List(dir)
	must(t, err)
	file, err := fs.Open(filepath.Join(dir, names[0]))
	must(t, err)
	size, err := file.Size()
	must(t, err)
	b := make([]byte, size)
	_, _ = file.ReadAt(b, 0)
	if at := strings.Index(string(b), body); at > 0 { // else it is lost already
		_, err = file.WriteAt(make([]byte, 20), int64(at))
		must(t, err)
	}
	must(t, file.Close())
}

// A log that was deleted and made again has other segments under the same names.
func TestTheRedoLogKnowsItsSegments(t *testing.T) {
	disk := fleetDisk(t)
	f, err := openFleet(disk, 1<<20)
	must(t, err)
	r := rand.New(rand.NewPCG(1, 7))
	f.commit(t, r, 0, 1)
	f.commit(t, r, 0, 1)
	must(t, disk.RemoveAll(logDir(0)))
	must(t, disk.MkdirAll(logDir(0)))
	c := seglog.NewCommitter(seglog.SyncAlways, nil)
	l, err := seglog.Open(seglog.Options{FS: disk, Dir: logDir(0), SegmentSize: 1024, Committer: c, Tail: seglog.NewTail(2048)})
	must(t, err)
	want := map[string]bool{}
	for i := range 3 {
		body := fmt.Sprintf("log 0, new %d", i)
		tk, err := l.Append(1, 1, func(int) seglog.Entry { return seglog.Entry{Body: []byte(body)} })
		must(t, err)
		must(t, l.Commit(tk))
		want[body] = true
	}
	c.Close()
	after, err := openFleet(disk, 1<<20)
	must(t, err)
	after.has(t, "made again", want)
	if len(after.damage) > 0 {
		t.Errorf("damage: %v", after.damage)
	}
	after.c.Close()
	f.c.Close()
}

// A round that failed was cut off from its log, and stays cut off.
func TestTheRedoLogDoesNotBringBackWhatFailed(t *testing.T) {
	disk := fleetDisk(t)
	var broken atomic.Bool
	f, err := openFleet(vfs.Inject(disk, func(op vfs.Op) error {
		if broken.Load() && op.Kind == vfs.OpWrite && strings.HasPrefix(op.Name, logDir(1)) {
			broken.Store(false)
			return syscall.ENOSPC
		}
		return nil
	}), 1<<20)
	must(t, err)
	r := rand.New(rand.NewPCG(1, 8))
	want := f.commit(t, r, 0, 1, 2)
	maps.Copy(want, f.commit(t, r, 0, 1, 2))
	broken.Store(true)
	if done := f.commit(t, r, 0, 1, 2); len(done) != 2 {
		t.Fatalf("%d of 3 were committed, want 2", len(done))
	} else {
		maps.Copy(want, done)
	}
	after, err := openFleet(disk.CrashKeeping(rand.New(rand.NewPCG(7, 7))), 1<<20)
	must(t, err)
	after.has(t, "after a crash", want)
	after.c.Close()
	killed, err := openFleet(disk, 1<<20)
	must(t, err)
	killed.has(t, "killed", want)
	if got := killed.bodies(t); len(got) != len(want) {
		t.Errorf("%d records are there, %d were committed", len(got), len(want))
	}
	for _, d := range killed.damage {
		t.Errorf("damage: %v", d)
	}
	killed.c.Close()
	f.c.Close()
}
