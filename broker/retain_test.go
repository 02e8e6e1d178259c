package broker_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// segments returns how many segments the topic has on the disk.
func segments(t *testing.T, disk *vfs.Mem, topic string) int {
	t.Helper()
	n := 0
	for _, file := range listFiles(t, disk, "data/topics/"+topic+".topic") {
		if strings.HasSuffix(file, ".seg") {
			n++
		}
	}
	return n
}

// consumed publishes so many messages, and takes and acks them all.
func (b bench) consumed(topic string, n int) {
	b.t.Helper()
	c := b.subscribe(topic, "c", millrace.SubscribeOptions{Prefetch: n})
	b.publish(topic, numbers(0, n)...)
	ack(b.t, c, receive(b.t, c, n)...)
	_ = c.Close()
}

func TestConsumedSegmentsStayForTheTimeAndThenGoByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, opts := vfs.NewMem(), broker.Options{Dir: "data", Retain: time.Hour}.WithSegments(1000)
		b := open(t, opts.On(disk))
		b.consumed("t", 100)
		time.Sleep(30 * time.Minute)
		b.consumed("t", 100)
		all := segments(t, disk, "t")
		time.Sleep(29 * time.Minute)
		s := b.Lookup("t").Stats()
		if n := segments(t, disk, "t"); n != all || all < 6 || s.RetainedBytes < s.StoredBytes*3/4 {
			t.Errorf("%d segments of %d are left; %+v", n, all, s)
		}
		time.Sleep(2 * time.Minute) // nothing happens in the topic, and the first half is old enough
		if n := segments(t, disk, "t"); n > all/2+1 || n < all/2-1 {
			t.Errorf("%d segments of %d are left after an hour", n, all)
		}
		if now := b.Lookup("t").Stats(); now.RetainedBytes >= s.RetainedBytes*2/3 || now.RetainedBytes == 0 {
			t.Errorf("%+v, before that %+v", now, s)
		}
		time.Sleep(time.Hour)
		if n, s := segments(t, disk, "t"), b.Lookup("t").Stats(); n != 1 || s.RetainedBytes != 0 {
			t.Errorf("%d segments are left when all is old; %+v", n, s)
		}
	})
}

// What is retained when a broker is closed is retained by the next, which needs no traffic
// to let it go.
func TestRetentionGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, opts := vfs.NewMem(), broker.Options{Dir: "data", Retain: time.Hour}.WithSegments(1000)
		b := open(t, opts.On(disk))
		b.consumed("t", 100)
		time.Sleep(30 * time.Minute)
		b.must(b.Close())
		b = open(t, opts.On(disk))
		time.Sleep(29 * time.Minute)
		if s := b.Lookup("t").Stats(); s.StoredBytes < 3000 || s.RetainedBytes != s.StoredBytes {
			t.Errorf("all is retained, also the last segment, which takes no more: %+v", s)
		}
		time.Sleep(2 * time.Minute)
		if s := b.Lookup("t").Stats(); s.StoredBytes != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A segment with few messages left stays whole for the time, and is rewritten then.
func TestWhatIsRetainedIsNotRewritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data", Retain: time.Hour}.WithSegments(32<<10).On(disk))
		someDeferred(t, b)
		before := b.Lookup("t").Stats()
		time.Sleep(59 * time.Minute)
		if s := b.Lookup("t").Stats(); s.StoredBytes != before.StoredBytes {
			t.Errorf("%+v, before it was %+v", s, before)
		}
		time.Sleep(2 * time.Minute)
		if s := b.Lookup("t").Stats(); s.StoredBytes > 33<<10 {
			t.Errorf("%+v", s)
		}
	})
}

// Nothing else makes the housekeeper come when the time of such a segment is over.
func TestWhatWasRetainedIsRewrittenWithoutTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, broker.Options{Dir: "data", Retain: time.Hour}.WithSegments(10_000).On(vfs.NewMem()))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
		for range 10 { // a message in each segment is deferred
			b.must(b.Publish("t", []millrace.Message{{Body: []byte("later"), Delay: 24 * time.Hour}}))
			b.publish("t", slices.Repeat([]string{strings.Repeat("x", 100)}, 68)...)
			ack(t, c, receive(t, c, 68)...)
		}
		time.Sleep(59 * time.Minute)
		if s := b.Lookup("t").Stats(); s.StoredBytes < 90_000 || s.RetainedBytes > 0 {
			t.Errorf("%+v", s)
		}
		time.Sleep(2 * time.Minute)
		if s := b.Lookup("t").Stats(); s.StoredBytes > 20_000 {
			t.Errorf("%+v", s)
		}
	})
}

// Retained messages are a promise, which a full disk does not break: publishing fails until
// the time is over.
func TestAFullDiskDoesNotEndRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data", Retain: time.Hour, Logger: quiet()}.On(disk).WithSegments(1000))
		b.consumed("t", 100)
		disk.SetFree(0)
		if err := b.Publish("t", messages("x")); !errors.Is(err, millrace.ErrNoSpace) {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Minute)
		s := b.Lookup("t").Stats()
		if err := b.Publish("t", messages("x")); !errors.Is(err, millrace.ErrNoSpace) || s.RetainedBytes != s.StoredBytes || s.StoredBytes < 3000 {
			t.Errorf("%v; %+v", err, s)
		}
		time.Sleep(2 * time.Minute)
		if s := b.Lookup("t").Stats(); s.StoredBytes != 0 || s.RetainedBytes != 0 {
			t.Errorf("%+v", s)
		}
		b.publish("t", "x")
	})
}

func TestNothingIsRetainedInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, broker.Options{Retain: time.Hour}.WithSegments(1000))
		b.consumed("t", 100)
		time.Sleep(time.Second)
		if s := b.Lookup("t").Stats(); s.RetainedBytes != 0 || s.StoredBytes > 1000 {
			t.Errorf("%+v", s)
		}
		b = open(t, broker.Options{Dir: "data", Retain: time.Hour}.WithSegments(1000).On(vfs.NewMem()))
		b.consumed("t#ephemeral", 100)
		time.Sleep(time.Second)
		if topic := b.Lookup("t#ephemeral"); topic != nil && topic.Stats().StoredBytes > 1000 {
			t.Errorf("%+v", topic.Stats())
		}
	})
}

// A channel that is behind needs its messages longer than they are retained.
func TestRetentionTakesNothingFromAChannelThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data", Retain: time.Hour}.WithSegments(1000).On(disk))
		b.channel("t", "behind")
		b.consumed("t", 100)
		time.Sleep(2 * time.Hour)
		if got := drain(t, b.Broker, "t", "behind"); len(got) != 100 {
			t.Errorf("%d of 100 messages came", len(got))
		}
	})
}
