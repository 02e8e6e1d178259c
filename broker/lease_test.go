package broker_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

const lease = 10 * time.Second

func TestALeaseThatEndsGivesTheMessageToAnotherConsumer(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		first := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		b.publish("t", "a", "b")
		held := receive(t, first, 2)
		wantDeliveries(t, held, "a@1 b@1")
		second := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		start := time.Now()
		again := receive(t, second, 2)
		wantDeliveries(t, again, "a@2 b@2")
		if waited := time.Since(start); waited < lease || waited > lease+50*time.Millisecond {
			t.Errorf("redelivered after %v, the lease was %v", waited, lease)
		}
		ack(t, second, again...)
		nothing(t, first, 10*lease)
	})
}

func TestTheSameConsumerGetsBackWhatItLost(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		// With Prefetch 1 it also has no room before the lease ends: both must wake it.
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease, Prefetch: 1})
		b.publish("t", "a", "b")
		wantDeliveries(t, receive(t, c, 1), "a@1")
		wantDeliveries(t, receive(t, c, 1), "a@2")
	})
}

func TestALateAckSaysWhichLeasesWereLost(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		b.publish("t", "a", "b", "c", "d")
		ds := receive(t, c, 4)
		time.Sleep(lease / 2)
		if err := c.Extend(t.Context(), ds[1], ds[3]); err != nil {
			t.Error(err)
		}
		time.Sleep(lease/2 + time.Second)
		wantLost(t, c.Extend(t.Context(), ds...), 0, 2)
		wantLost(t, c.Ack(t.Context(), ds...), 0, 2)
		wantLost(t, c.Nack(t.Context(), 0, ds...), 0, 1, 2, 3)
		wantDeliveries(t, receive(t, c, 2), "a@2 c@2")
		if d := b.depth("t", "c"); d != (millrace.Depth{InFlight: 2}) {
			t.Errorf("%+v", d)
		}
	})
}

func wantLost(t *testing.T, err error, lost ...int) {
	t.Helper()
	var leases *millrace.LeaseError
	if !errors.As(err, &leases) || !errors.Is(err, millrace.ErrLeaseLost) || !slices.Equal(leases.Lost, lost) {
		t.Errorf("got %v (%+v), want the leases %v lost", err, leases, lost)
	}
}

func TestAnExtendedLeaseLastsAWholeLeaseFromThen(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		b.publish("t", "a")
		ds := receive(t, c, 1)
		for range 20 {
			time.Sleep(lease - time.Millisecond)
			if err := c.Extend(t.Context(), ds...); err != nil {
				t.Fatal(err)
			}
		}
		nothing(t, c, lease-time.Millisecond)
		wantDeliveries(t, receive(t, c, 1), "a@2")
	})
}

// A fenced consumer must not ack what another one works on now.
func TestAnAckWithAnOldAttemptChangesNothing(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		slow := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: time.Second})
		b.publish("t", "a")
		old := receive(t, slow, 1)
		time.Sleep(2 * time.Second)
		quick := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		now := receive(t, quick, 1)
		wantLost(t, slow.Ack(t.Context(), old...), 0)
		wantLost(t, slow.Extend(t.Context(), old...), 0)
		wantLost(t, slow.Nack(t.Context(), 0, old...), 0)
		wantLost(t, slow.Ack(t.Context(), now...), 0) // somebody else's
		if err := quick.Extend(t.Context(), now...); err != nil {
			t.Error(err)
		}
		time.Sleep(lease - time.Second)
		ack(t, quick, now...)
		nothing(t, quick, 3*lease)
	})
}

func TestAClosedConsumersMessagesGoToOthersAtOnce(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		first := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: time.Hour})
		second := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: time.Hour})
		b.publish("t", "a", "b", "c")
		ds := receive(t, first, 3)
		got := make(chan []millrace.Delivery)
		go func() { got <- receive(t, second, 2) }()
		synctest.Wait()
		ack(t, first, ds[1])
		start := time.Now()
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		wantDeliveries(t, <-got, "a@2 c@2")
		if time.Since(start) != 0 {
			t.Errorf("redelivered after %v", time.Since(start))
		}
		for what, err := range map[string]error{
			"Ack":    first.Ack(t.Context(), ds[0]),
			"Nack":   first.Nack(t.Context(), time.Second, ds[0]),
			"Extend": first.Extend(t.Context(), ds[0]),
		} {
			if !errors.Is(err, millrace.ErrClosed) {
				t.Errorf("%s after Close: %v", what, err)
			}
		}
	})
}

func TestANackedMessageComesAgainAfterItsDelay(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "a", "b", "c")
		ds := receive(t, c, 3)
		if err := errors.Join(
			c.Nack(t.Context(), 0, ds[0]),
			c.Nack(t.Context(), time.Hour, ds[1]),
			c.Nack(t.Context(), -time.Hour, ds[2]),
		); err != nil {
			t.Error(err)
		}
		again := receive(t, c, 2)
		wantDeliveries(t, again, "a@2 c@2")
		ack(t, c, again...)
		if d := b.depth("t", "c"); d != (millrace.Depth{Deferred: 1}) {
			t.Errorf("%+v", d)
		}
		nothing(t, c, time.Hour-time.Millisecond)
		wantDeliveries(t, receive(t, c, 1), "b@2")
	})
}

func TestAMessageIsDeferredByItsDelayFromPublishing(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		start := time.Now()
		msgs := messages("hour", "now", "minute", "never")
		msgs[0].Delay, msgs[2].Delay, msgs[3].Delay = time.Hour, time.Minute, 1<<63-1
		if err := b.Publish("t", msgs); err != nil {
			t.Fatal(err)
		}
		var order []string
		for range 3 {
			d := receiveWithin(t, time.Hour, c, 1)[0]
			if d.Attempt != 1 || d.Delay != 0 || d.Published != start.UnixNano() {
				t.Errorf("%+v", d)
			}
			order = append(order, string(d.Body)+" "+time.Since(start).String())
			ack(t, c, d)
		}
		if want := []string{"now 0s", "minute 1m0s", "hour 1h0m0s"}; !slices.Equal(order, want) {
			t.Errorf("got %q, want %q", order, want)
		}
		nothing(t, c, 1000*time.Hour)
	})
}

func TestDeferredMessagesSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		msgs := messages("published", "nacked")
		msgs[0].Delay = time.Hour
		if err := b.Publish("t", msgs); err != nil {
			t.Fatal(err)
		}
		if err := c.Nack(t.Context(), 2*time.Hour, receive(t, c, 1)...); err != nil {
			t.Fatal(err)
		}
		disk = disk.Crash() // before the housekeeper has come along
		time.Sleep(time.Minute)
		b = open(t, broker.Options{Dir: "data"}.On(disk))
		c = b.subscribe("t", "c", millrace.SubscribeOptions{})
		nothing(t, c, 58*time.Minute)
		ds := receiveWithin(t, 2*time.Minute, c, 1)
		wantDeliveries(t, ds, "published@1")
		ack(t, c, ds...)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = open(t, broker.Options{Dir: "data"}.On(disk))
		c = b.subscribe("t", "c", millrace.SubscribeOptions{})
		nothing(t, c, 59*time.Minute)
		// It waits already when the time comes: the alarm of a loaded channel is set.
		wantDeliveries(t, receiveWithin(t, 2*time.Minute, c, 1), "nacked@2")
	})
}

func TestReceiveEndsWithItsContextAndLosesNothing(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		var buf [1]millrace.Delivery
		if n, err := c.Receive(ctx, buf[:]); n != 0 || !errors.Is(err, why) {
			t.Errorf("%d, %v", n, err)
		}
		b.publish("t", "a")
		if n, err := c.Receive(ctx, buf[:]); n != 0 || !errors.Is(err, why) {
			t.Errorf("with an ended context: %d, %v", n, err)
		}
		wantDeliveries(t, receive(t, c, 1), "a@1")
	})
}
