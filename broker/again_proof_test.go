package broker_test

import (
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// onABreakingDisk runs a test with a broker on a disk of which some calls fail while broken
// is set. What was acknowledged and what was done again is to hold after a power loss.
func onABreakingDisk(t *testing.T, fails func(vfs.Op) bool, test func(t *testing.T, b bench, broken *atomic.Bool, disk *vfs.Mem)) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data", Logger: quiet()}.On(vfs.Inject(disk, func(op vfs.Op) error {
			if broken.Load() && fails(op) {
				return syscall.EIO
			}
			return nil
		})))
		test(t, b, &broken, disk)
	})
}

func TestAChannelThatCouldNotBeDeletedCanBeDeletedAgain(t *testing.T) {
	for name, kind := range map[string]vfs.OpKind{"the file stays": vfs.OpRemove, "nobody knows": vfs.OpSyncDir} {
		t.Run(name, func(t *testing.T) {
			onABreakingDisk(t, func(op vfs.Op) bool { return op.Kind == kind }, func(t *testing.T, b bench, broken *atomic.Bool, disk *vfs.Mem) {
				b.channel("t", "c")
				b.publish("t", "a")
				broken.Store(true)
				for range 2 {
					if b.DeleteChannel("t", "c") == nil {
						t.Error("it was deleted on a broken disk")
					}
				}
				broken.Store(false)
				b.must(b.DeleteChannel("t", "c"))
				after := open(t, broker.Options{Dir: "data"}.On(disk.Crash()))
				if n := len(after.Lookup("t").Channels()); n != 0 {
					t.Errorf("%d channels are there again", n)
				}
			})
		})
	}
}

func TestATopicThatCouldNotBeDeletedDoesNotComeBack(t *testing.T) {
	for name, kind := range map[string]vfs.OpKind{"it keeps its name": vfs.OpRename, "nobody knows": vfs.OpSyncDir} {
		t.Run(name, func(t *testing.T) {
			onABreakingDisk(t, func(op vfs.Op) bool { return op.Kind == kind }, func(t *testing.T, b bench, broken *atomic.Bool, disk *vfs.Mem) {
				b.channel("t", "c")
				b.publish("t", "a")
				broken.Store(true)
				for range 2 {
					if b.DeleteTopic("t") == nil {
						t.Error("it was deleted on a broken disk")
					}
				}
				if err := b.Publish("t", messages("b")); err == nil {
					t.Error("another has its name, before it is gone")
				}
				broken.Store(false)
				b.publish("t", "b") // to a new one
				if n := len(b.Lookup("t").Channels()); n != 0 {
					t.Errorf("%d channels of the old one are there", n)
				}
				wantDeliveries(t, receive(t, b.subscribe("t", "d", millrace.SubscribeOptions{}), 1), "b@1")
				b.must(b.DeleteTopic("t"))
				if after := open(t, broker.Options{Dir: "data"}.On(disk.Crash())); len(after.Topics()) != 0 {
					t.Error("it is there again")
				}
			})
		})
	}
}

// What a process has written that died before it was safe, is made safe by the next one that
// says so.
func TestWhatWasFoundIsMadeSafeBeforeItIsSaidToBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		b.channel("t", "c")
		b.publish("t", "a")
		b.must(b.channel("t", "c").Empty())
		b.must(b.Lookup("t").Pause())
		left := vfs.NewMem()
		copyTree(t, disk, left, "data") // of which nothing is safe but the message
		segment, err := left.Open("data/topics/t.topic/0000000000000001.seg")
		b.must(err)
		b.must(segment.Sync())
		b.must(segment.Close())
		b = open(t, broker.Options{Dir: "data"}.On(left))
		b.must(b.channel("t", "c").Empty())
		b.must(b.Lookup("t").Pause())
		b = open(t, broker.Options{Dir: "data"}.On(left.Crash()))
		if !b.Lookup("t").Paused() {
			t.Error("it is not paused")
		}
		nothing(t, b.subscribe("t", "c", millrace.SubscribeOptions{}), time.Hour)
	})
}

// The parent of the data directory was not synced when the process died that made it.
func TestADataDirectoryThatWasJustMadeIsMadeSafe(t *testing.T) {
	for _, dir := range []string{"data", "some/where/data"} {
		synctest.Test(t, func(t *testing.T) {
			disk := vfs.NewMem()
			if err := disk.MkdirAll(dir); err != nil {
				t.Fatal(err)
			}
			if dir != "data" { // one made the directories above, another one this
				if err := disk.SyncDir("."); err != nil {
					t.Fatal(err)
				}
				if err := disk.SyncDir("some"); err != nil {
					t.Fatal(err)
				}
			}
			b := open(t, broker.Options{Dir: dir}.On(disk))
			b.publish("t", "a")
			after := open(t, broker.Options{Dir: dir}.On(disk.Crash()))
			wantDeliveries(t, receive(t, after.subscribe("t", "c", millrace.SubscribeOptions{}), 1), "a@1")
		})
	}
}
