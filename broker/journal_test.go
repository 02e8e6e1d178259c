package broker_test

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

const journalFile = "data/topics/t.topic/c.ledger"

func contents(t *testing.T, fsys vfs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, _ := f.Size()
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func overwrite(t *testing.T, fsys vfs.FS, name string, b []byte, off int64) {
	t.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// deferAll makes the journal grow by about ten kilobytes.
func deferAll(t *testing.T, c *broker.Consumer, ds []millrace.Delivery) []millrace.Delivery {
	t.Helper()
	if err := c.Nack(t.Context(), time.Second, ds...); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	return receive(t, c, len(ds))
}

// However much happens to few messages, their journal stays small.
func TestAJournalIsCompacted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000, Lease: time.Hour})
		b.publish("t", numbers(0, 1000)...)
		ds := receive(t, c, 1000)
		longest := 0
		for range 40 {
			ds = deferAll(t, c, ds)
			longest = max(longest, len(contents(t, disk, journalFile)))
		}
		if longest < 50<<10 || longest > 100<<10 {
			t.Errorf("the journal had up to %d bytes", longest)
		}
		ack(t, c, ds[:999]...)
		b = open(t, broker.Options{Dir: "data"}.On(closed(b, disk)))
		wantDeliveries(t, receive(t, b.subscribe("t", "c", millrace.SubscribeOptions{}), 1), string(ds[999].Body)+"@42")
	})
}

func closed(b bench, disk *vfs.Mem) *vfs.Mem {
	if err := b.Close(); err != nil {
		b.t.Error(err)
	}
	return disk
}

// When the journal cannot be written for a while, what was acked then is not forgotten.
func TestAcksWhoseWriteFailedAreWrittenLater(t *testing.T) {
	for name, fails := range map[string]func(vfs.Op) bool{
		"the next entry": func(op vfs.Op) bool { return op.Kind == vfs.OpWrite && strings.Contains(op.Name, ".ledger") },
		"the new file":   func(op vfs.Op) bool { return op.Kind == vfs.OpCreate && strings.HasSuffix(op.Name, ".tmp") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := vfs.NewMem()
				var armed atomic.Bool
				var failed atomic.Int64
				b := open(t, broker.Options{Dir: "data", Logger: quiet()}.On(vfs.Inject(disk, func(op vfs.Op) error {
					if armed.Load() && fails(op) {
						failed.Add(1)
						return syscall.ENOSPC
					}
					return nil
				})))
				c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000, Lease: time.Hour})
				b.publish("t", numbers(0, 1000)...)
				ds := receive(t, c, 1000)
				if name == "the new file" {
					// As long as the next entry makes it one. The housekeeper rests while we look.
					for synctest.Wait(); len(contents(t, disk, journalFile)) < 64<<10; synctest.Wait() {
						ds = deferAll(t, c, ds)
					}
				}
				armed.Store(true)
				ack(t, c, ds[:500]...)
				time.Sleep(100 * time.Millisecond)
				armed.Store(false)
				if failed.Load() == 0 {
					t.Fatal("nothing failed")
				}
				ack(t, c, ds[500:900]...)
				time.Sleep(5 * time.Second)
				b = open(t, broker.Options{Dir: "data"}.On(closed(b, disk)))
				c = b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
				receive(t, c, 100)
				nothing(t, c, time.Second)
			})
		})
	}
}

// Bytes of another journal, or of an older one in the same place, are not believed.
func TestEntriesOfAnotherJournalAreDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		b.publish("t", "a", "b")
		b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.subscribe("t", "d", millrace.SubscribeOptions{})
		b.publish("t", "c")
		closed(b, disk)
		other := contents(t, disk, "data/topics/t.topic/d.ledger")
		overwrite(t, disk, journalFile, other[80:], 80)
		told := &reports{}
		b = open(t, broker.Options{Dir: "data", Logger: slog.New(told)}.On(disk))
		if !slices.Contains(told.files, journalFile) {
			t.Errorf("damage was reported in %v", told.files)
		}
		wantDeliveries(t, receive(t, b.subscribe("t", "c", millrace.SubscribeOptions{}), 3), "a@1 b@1 c@1")
		// It is told once: the broker has made a new file.
		told = &reports{}
		open(t, broker.Options{Dir: "data", Logger: slog.New(told)}.On(closed(b, disk)))
		if len(told.files) > 0 {
			t.Errorf("damage was reported again in %v", told.files)
		}
	})
}

// An entry stands for what it says only in its own place.
func TestAnEntryInAnothersPlaceIsDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "a", "b", "c")
		var ends []int
		for _, d := range receive(t, c, 3) {
			time.Sleep(time.Second)
			ends = append(ends, len(contents(t, disk, journalFile)))
			ack(t, c, d)
		}
		closed(b, disk)
		file := contents(t, disk, journalFile)
		if ends[2]-ends[1] != len(file)-ends[2] {
			t.Fatalf("the last two entries are not as long as each other: %v, %d", ends, len(file))
		}
		overwrite(t, disk, journalFile, file[ends[1]:ends[2]], int64(ends[2]))
		told := &reports{}
		open(t, broker.Options{Dir: "data", Logger: slog.New(told)}.On(disk))
		if !slices.Contains(told.files, journalFile) {
			t.Errorf("damage was reported in %v", told.files)
		}
	})
}

// Whoever is told that a channel could not be made does not find it after a restart.
func TestAChannelThatCouldNotBeMadeIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		var armed atomic.Bool
		b := open(t, broker.Options{Dir: "data"}.On(vfs.Inject(disk, func(op vfs.Op) error {
			if armed.Load() && op.Kind == vfs.OpSyncDir {
				return syscall.EIO
			}
			return nil
		})))
		b.publish("t", "a")
		armed.Store(true)
		if _, err := b.Channel("t", "c"); !errors.Is(err, syscall.EIO) {
			t.Error(err)
		}
		armed.Store(false)
		b = open(t, broker.Options{Dir: "data"}.On(closed(b, disk)))
		if chs := b.Lookup("t").Channels(); len(chs) != 0 {
			t.Errorf("%v", chs)
		}
		wantDeliveries(t, receive(t, b.subscribe("t", "d", millrace.SubscribeOptions{}), 1), "a@1")
	})
}

// An entry that a newer version of package ledger wrote is intact, not damaged.
func TestAnEntryOfANewerVersionIsSaidToBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		b.subscribe("t", "c", millrace.SubscribeOptions{})
		closed(b, disk)
		file := contents(t, disk, journalFile)
		newer := slices.Clone(file)
		newer[80+8] = 99 // the entry's own version, behind its frame
		broker.SealEntry(newer, journalFile)
		if bytes.Equal(newer, file) {
			t.Fatal("it is the same")
		}
		overwrite(t, disk, journalFile, newer, 0)
		if _, err := broker.Open(broker.Options{Dir: "data", Logger: quiet()}.On(disk)); !errors.Is(err, broker.ErrNewerVersion) {
			t.Error(err)
		}
	})
}
