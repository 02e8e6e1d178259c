package broker_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// stuckOn is a broker whose disk does not come back from a call, until it is released.
func stuckOn(t *testing.T, stuck func(vfs.Op) bool) (b bench, release func()) {
	wait := make(chan struct{})
	b = open(t, broker.Options{Dir: "data"}.On(vfs.Inject(vfs.NewMem(), func(op vfs.Op) error {
		if stuck(op) {
			<-wait
		}
		return nil
	})))
	return b, func() { close(wait); synctest.Wait() }
}

// Who has subscribed to an ephemeral channel keeps it, though its deletion was waiting.
func TestAnEphemeralChannelIsNotDeletedUnderANewConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var acked atomic.Bool
		b, release := stuckOn(t, func(op vfs.Op) bool {
			return acked.Load() && op.Kind == vfs.OpWrite && strings.Contains(op.Name, ".ledger")
		})
		const name = "c" + millrace.EphemeralSuffix
		old := b.subscribe("t", name, millrace.SubscribeOptions{})
		durable := b.subscribe("t", "durable", millrace.SubscribeOptions{})
		b.publish("t", "a")
		time.Sleep(time.Second)
		acked.Store(true)
		ack(t, durable, receive(t, durable, 1)...)
		time.Sleep(time.Second) // the housekeeper has the topic's turn and is stuck
		go old.Close()
		synctest.Wait()
		c := b.subscribe("t", name, millrace.SubscribeOptions{})
		release()
		wantDeliveries(t, receive(t, c, 1), "a@1")
		b.publish("t", "b")
		wantDeliveries(t, receive(t, c, 1), "b@1")
	})
}

// Who deletes, or publishes to, a topic that somebody else is deleting waits for that.
func TestADeletionIsOverBeforeTheNameIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, release := stuckOn(t, func(op vfs.Op) bool {
			return op.Kind == vfs.OpRename && strings.HasSuffix(op.To, ".gone")
		})
		b.publish("t", "old")
		done := make(chan string, 3)
		start := func(name string, call func() error) {
			go func() {
				if err := call(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				done <- name
			}()
			synctest.Wait()
		}
		start("delete", func() error { return b.DeleteTopic("t") })
		start("delete again", func() error { return b.DeleteTopic("t") })
		start("publish", func() error { return b.Publish("t", messages("new")) })
		if len(done) > 0 {
			t.Errorf("%s was over before the old files were gone", <-done)
		}
		release()
		wantDeliveries(t, receive(t, b.subscribe("t", "c", millrace.SubscribeOptions{}), 1), "new@1")
	})
}
