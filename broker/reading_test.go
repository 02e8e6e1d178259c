package broker_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// slowDisk is a disk whose reads wait, as long as it is slow.
type slowDisk struct {
	*vfs.Mem
	slow   atomic.Bool
	resume chan struct{}
}

func (d *slowDisk) before(op vfs.Op) error {
	if op.Kind == vfs.OpRead && d.slow.Load() {
		<-d.resume
	}
	return nil
}

// backlog is a broker whose channel has messages that have to be read from the disk: one
// to be delivered again, and others.
func backlog(t *testing.T) (bench, *slowDisk) {
	disk := &slowDisk{Mem: vfs.NewMem(), resume: make(chan struct{})}
	b := open(t, broker.Options{Dir: "data"}.On(disk.Mem))
	b.publish("t", "a", "b", "c")
	receive(t, b.subscribe("t", "c", millrace.SubscribeOptions{}), 1)
	closed(b, disk.Mem)
	b = open(t, broker.Options{Dir: "data"}.On(vfs.Inject(disk.Mem, disk.before)))
	disk.slow.Store(true)
	return b, disk
}

func TestAConsumerThatIsClosedWhileItReadsTakesNothingAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, disk := backlog(t)
		w := b.waiter(millrace.SubscribeOptions{Lease: time.Hour})
		other := b.waiter(millrace.SubscribeOptions{Lease: time.Hour})
		_ = w.Close()
		synctest.Wait()
		disk.slow.Store(false)
		close(disk.resume)
		w.wants(t, "")
		other.wants(t, "a@3 b@1 c@1")
	})
}

func TestAChannelMayEndWhileItIsRead(t *testing.T) {
	for name, end := range map[string]func(b bench) error{
		"delete channel": func(b bench) error { return b.DeleteChannel("t", "c") },
		"delete topic":   func(b bench) error { return b.DeleteTopic("t") },
		"close":          func(b bench) error { return b.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, disk := backlog(t)
				w := b.waiter(millrace.SubscribeOptions{})
				other := b.waiter(millrace.SubscribeOptions{})
				if err := end(b); err != nil { // waits for no reader
					t.Error(err)
				}
				disk.slow.Store(false)
				close(disk.resume)
				<-w.done
				<-other.done
				w.wants(t, "")
				other.wants(t, "")
			})
		})
	}
}
