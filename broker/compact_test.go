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

// afterItsDeath opens what a broker leaves whose process dies now.
func afterItsDeath(t *testing.T, disk *vfs.Mem, opts broker.Options) bench {
	t.Helper()
	left := vfs.NewMem()
	copyTree(t, disk, left, opts.Dir)
	return open(t, opts.On(left))
}

// someDeferred publishes much, of which two messages far apart are deferred for a day, and
// consumes the rest.
func someDeferred(t *testing.T, b bench) {
	t.Helper()
	c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
	body := strings.Repeat("x", 100)
	for i := range 20 {
		b.publish("t", strings.Fields(strings.Repeat(body+" ", 100))...)
		if i == 3 || i == 10 {
			b.must(b.Publish("t", []millrace.Message{{Body: []byte("later"), Delay: 24 * time.Hour}}))
		}
		ack(t, c, receive(t, c, 100)...)
	}
	_ = c.Close()
}

func TestDeferredMessagesDoNotKeepThoseAroundIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, opts := vfs.NewMem(), broker.Options{Dir: "data"}.WithSegments(32<<10)
		b := open(t, opts.On(disk))
		other := b.channel("t", "other") // which needs nothing either, once it is emptied
		someDeferred(t, b)
		before := b.Lookup("t").Stats().StoredBytes
		time.Sleep(time.Minute)
		if s := b.Lookup("t").Stats(); s.StoredBytes != before {
			t.Errorf("%+v, before it was %d, and the other channel needs it all", s, before)
		}
		b.must(other.Empty())
		b.must(b.DeleteChannel("t", "other"))
		start := time.Now()
		time.Sleep(time.Minute)
		s := b.Lookup("t").Stats()
		if s.StoredBytes > 33<<10 { // what is left is the segment that is open, at most
			t.Errorf("%+v", s)
		}
		segments := 0
		names, _ := disk.List("data/topics/t.topic")
		for _, name := range names {
			if strings.HasSuffix(name, ".seg") {
				segments++
			}
		}
		if segments != 3 {
			t.Errorf("%v", names)
		}
		b = afterItsDeath(t, disk, opts)
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		nothing(t, c, time.Until(start.Add(23*time.Hour)))
		ds := receiveWithin(t, 2*time.Hour, c, 2)
		wantDeliveries(t, ds, "later@1 later@1")
		ack(t, c, ds...)
		time.Sleep(time.Minute)
		if s := b.Lookup("t").Stats(); s.StoredBytes > 32<<10 {
			t.Errorf("%+v", s)
		}
	})
}

// Nothing happens in the topic after the start, and yet its segments are looked at.
func TestSparseSegmentsAreFoundAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, opts := vfs.NewMem(), broker.Options{Dir: "data"}.WithSegments(32<<10)
		b := open(t, opts.On(disk))
		someDeferred(t, b)
		time.Sleep(time.Second) // until the acks are written, and well before compactAfter
		if s := b.Lookup("t").Stats(); s.StoredBytes < 32<<10 {
			t.Errorf("%+v", s)
		}
		b = afterItsDeath(t, disk, opts)
		time.Sleep(time.Minute)
		if s := b.Lookup("t").Stats(); s.StoredBytes > 10<<10 {
			t.Errorf("%+v", s)
		}
	})
}

// What is in flight for a moment is not worth a rewrite.
func TestSegmentsAreNotRewrittenForWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		var rewritten atomic.Int64
		b := open(t, broker.Options{Dir: "data"}.WithSegments(1000).On(vfs.Inject(disk, func(op vfs.Op) error {
			if op.Kind == vfs.OpRename && strings.HasSuffix(op.To, ".seg") {
				rewritten.Add(1)
			}
			return nil
		})))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000, Lease: time.Hour})
		for range 20 {
			b.publish("t", numbers(0, 100)...)
			ds := receive(t, c, 100)
			ack(t, c, ds[1:]...)
			time.Sleep(5 * time.Second)
			ack(t, c, ds[0])
		}
		if rewritten.Load() > 0 {
			t.Errorf("%d segments were rewritten", rewritten.Load())
		}
		b.publish("t", numbers(0, 100)...)
		ack(t, c, receive(t, c, 100)[1:]...)
		time.Sleep(time.Minute)
		if rewritten.Load() == 0 {
			t.Error("no segment was rewritten, though a message is in flight for long")
		}
	})
}
