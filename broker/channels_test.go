package broker_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

func TestTheFirstChannelGetsTheBacklogAndLaterOnesOnlyWhatComesAfter(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		b.publish("t", "a", "b")
		if n := b.Lookup("t").Depth(); n != 2 {
			t.Errorf("%d messages wait in the topic, want 2", n)
		}
		first := b.subscribe("t", "first", millrace.SubscribeOptions{})
		wantDeliveries(t, receive(t, first, 2), "a@1 b@1")
		second := b.subscribe("t", "second", millrace.SubscribeOptions{})
		b.publish("t", "c")
		wantDeliveries(t, receive(t, first, 1), "c@1")
		wantDeliveries(t, receive(t, second, 1), "c@1")
		if n := b.Lookup("t").Depth(); n != 0 {
			t.Errorf("%d messages wait in the topic, want 0", n)
		}
		nothing(t, second, time.Second)
	})
}

func TestEveryChannelGetsEveryMessage(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		var cs []*broker.Consumer
		for _, name := range []string{"x", "y", "z"} {
			cs = append(cs, b.subscribe("t", name, millrace.SubscribeOptions{}))
		}
		b.publish("t", numbers(0, 10)...)
		for i, c := range cs {
			ds := receive(t, c, 10)
			if got := describe(ds); got != "0@1 1@1 2@1 3@1 4@1 5@1 6@1 7@1 8@1 9@1" {
				t.Errorf("channel %d got %s", i, got)
			}
			ack(t, c, ds[:i]...)
		}
		for i, name := range []string{"x", "y", "z"} {
			if d := b.depth("t", name); d != (millrace.Depth{InFlight: int64(10 - i)}) {
				t.Errorf("%s: %+v", name, d)
			}
		}
	})
}

func TestDepthFollowsTheMessages(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		want := func(ready, inFlight, deferred int64) {
			t.Helper()
			if d := b.depth("t", "c"); d != (millrace.Depth{Ready: ready, InFlight: inFlight, Deferred: deferred}) {
				t.Errorf("%+v, want %d ready, %d in flight, %d deferred", d, ready, inFlight, deferred)
			}
		}
		want(0, 0, 0)
		b.publish("t", numbers(0, 10)...)
		want(10, 0, 0)
		ds := receive(t, c, 4)
		want(6, 4, 0)
		ack(t, c, ds[0])
		want(6, 3, 0)
		_ = c.Nack(t.Context(), 0, ds[1])
		want(7, 2, 0)
		_ = c.Nack(t.Context(), time.Minute, ds[2])
		want(7, 1, 1)
		time.Sleep(2 * time.Minute) // its lease is over as well
		want(9, 0, 0)
		_ = c.Close()
		want(9, 0, 0)
		if _, err := b.Depth("t", "d"); !errors.Is(err, millrace.ErrNotFound) {
			t.Error(err)
		}
		if _, err := b.Depth("u", "c"); !errors.Is(err, millrace.ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestADeletedChannelEndsItsConsumersAndNoOthers(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		other := b.subscribe("t", "other", millrace.SubscribeOptions{})
		b.publish("t", "a", "b")
		ds := receive(t, c, 1)
		w := b.waiter(millrace.SubscribeOptions{Prefetch: 1})
		if err := b.DeleteChannel("t", "c"); err != nil {
			t.Fatal(err)
		}
		<-w.done
		if !errors.Is(w.err, millrace.ErrClosed) || !strings.Contains(w.err.Error(), "deleted") {
			t.Error(w.err)
		}
		if err := c.Ack(t.Context(), ds...); !errors.Is(err, millrace.ErrClosed) {
			t.Error(err)
		}
		if _, err := b.Depth("t", "c"); !errors.Is(err, millrace.ErrNotFound) {
			t.Error(err)
		}
		wantDeliveries(t, receive(t, other, 2), "a@1 b@1")
		// Made again, it is another channel.
		c = b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "c")
		wantDeliveries(t, receive(t, c, 1), "c@1")
		nothing(t, c, time.Second)
	})
}

func TestADeletedTopicIsGoneAndItsNameFree(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		for i := range 3 {
			c := b.subscribe("t", "c", millrace.SubscribeOptions{})
			b.publish("t", numbers(i, i+5)...)
			if ds := receive(t, c, 2); string(ds[0].Body) != numbers(i, i+1)[0] {
				t.Errorf("round %d: %s", i, describe(ds))
			}
			if err := b.DeleteTopic("t"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Receive(t.Context(), make([]millrace.Delivery, 1)); !errors.Is(err, millrace.ErrClosed) {
				t.Error(err)
			}
			if b.Lookup("t") != nil || len(b.Topics()) != 0 || b.MemoryHeld() != 0 {
				t.Errorf("round %d: %v, %d bytes", i, b.Topics(), b.MemoryHeld())
			}
		}
	})
}

func TestDeletingWhatDoesNotExistIsNoError(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		b.publish("t", "a")
		if err := errors.Join(b.DeleteTopic("u"), b.DeleteChannel("u", "c"), b.DeleteChannel("t", "c")); err != nil {
			t.Error(err)
		}
	})
}

// What the last channel has got stays gone, also after a restart or a power loss.
func TestAfterItsLastChannelATopicKeepsOnlyWhatComesLater(t *testing.T) {
	for name, restart := range map[string]func(b bench, disk *vfs.Mem) *vfs.Mem{
		"close": func(b bench, disk *vfs.Mem) *vfs.Mem { _ = b.Close(); return disk },
		"crash": func(_ bench, disk *vfs.Mem) *vfs.Mem { return disk.Crash() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := vfs.NewMem()
				b := open(t, broker.Options{Dir: "data"}.On(disk))
				b.publish("t", "before")
				b.subscribe("t", "c", millrace.SubscribeOptions{})
				b.publish("t", "during")
				if err := b.DeleteChannel("t", "c"); err != nil {
					t.Fatal(err)
				}
				b.publish("t", "after")
				b = open(t, broker.Options{Dir: "data"}.On(restart(b, disk)))
				c := b.subscribe("t", "d", millrace.SubscribeOptions{})
				wantDeliveries(t, receive(t, c, 1), "after@1")
				nothing(t, c, time.Second)
			})
		})
	}
}

func TestAnEphemeralChannelGoesWithItsLastConsumer(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		const name = "c" + millrace.EphemeralSuffix
		one := b.subscribe("t", name, millrace.SubscribeOptions{})
		two := b.subscribe("t", name, millrace.SubscribeOptions{})
		b.publish("t", "a")
		_ = one.Close()
		wantDeliveries(t, receive(t, two, 1), "a@1")
		_ = two.Close()
		if _, err := b.Depth("t", name); !errors.Is(err, millrace.ErrNotFound) {
			t.Error(err)
		}
		if b.Lookup("t") == nil {
			t.Error("the topic went with it")
		}
	})
}

func TestAnEphemeralTopicGoesWithItsLastChannel(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		const name = "t" + millrace.EphemeralSuffix
		b.publish(name, "a")
		c := b.subscribe(name, "c", millrace.SubscribeOptions{})
		wantDeliveries(t, receive(t, c, 1), "a@1")
		if err := b.DeleteChannel(name, "c"); err != nil {
			t.Error(err)
		}
		if b.Lookup(name) != nil || b.MemoryHeld() != 0 {
			t.Errorf("it is still there, with %d bytes", b.MemoryHeld())
		}
		_ = b.subscribe(name, "c"+millrace.EphemeralSuffix, millrace.SubscribeOptions{}).Close()
		if b.Lookup(name) != nil {
			t.Error("it did not go with its ephemeral channel")
		}
	})
}

func TestNothingEphemeralOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		c := b.subscribe("t", "c"+millrace.EphemeralSuffix, millrace.SubscribeOptions{})
		b.publish("t", "a")
		receive(t, c, 1)
		b.publish("u"+millrace.EphemeralSuffix, "a")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = open(t, broker.Options{Dir: "data"}.On(disk))
		if ts := b.Topics(); len(ts) != 1 || len(ts[0].Channels()) != 0 {
			t.Errorf("%v", ts)
		}
		c = b.subscribe("t", "d", millrace.SubscribeOptions{})
		nothing(t, c, time.Hour)
	})
}

func TestBadNamesAreRefused(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		_, noChannel := b.Channel("t", "a/b")
		_, noTopic := b.Topic("../x")
		for _, err := range []error{noChannel, noTopic, b.Publish("", nil)} {
			if !errors.Is(err, millrace.ErrBadName) {
				t.Error(err)
			}
		}
	})
}

func TestEverythingIsRefusedAfterClose(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "a")
		ds := receive(t, c, 1)
		topic := b.Lookup("t")
		if err := errors.Join(b.Close(), b.Close()); err != nil {
			t.Fatal(err)
		}
		_, subscribe := b.Subscribe("t", "c", millrace.SubscribeOptions{})
		_, receive := c.Receive(t.Context(), make([]millrace.Delivery, 1))
		_, make1 := b.Topic("t")
		_, make2 := topic.Channel("d")
		_, depth := b.Depth("t", "c")
		for what, err := range map[string]error{
			"Publish": b.Publish("t", messages("b")), "Publish to a new topic": b.Publish("u", messages("b")),
			"Topic.Publish": topic.Publish(messages("b")), "Subscribe": subscribe, "Receive": receive,
			"Ack": c.Ack(t.Context(), ds...), "Topic": make1, "Channel": make2, "Depth": depth,
			"DeleteTopic": b.DeleteTopic("t"), "DeleteChannel": b.DeleteChannel("t", "c"),
		} {
			if !errors.Is(err, millrace.ErrClosed) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}
