package drivers_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/driver/nats"
)

// nothing makes sure that nothing comes for that long.
func (u natsUser) nothing(sub millrace.Subscription, wait time.Duration) {
	u.Helper()
	ctx, cancel := context.WithTimeout(u.Context(), wait)
	defer cancel()
	buf := make([]millrace.Delivery, 10)
	if n, err := sub.Receive(ctx, buf); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		u.Errorf("got %d messages and %v, want none", n, err)
	}
}

// inFlight waits until so many messages of t/c are held.
func (u natsUser) inFlight(want int64) {
	u.Helper()
	var got millrace.Depth
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var err error
		got, err = u.Depth(u.Context(), "t", "c")
		u.must(err)
		if got.InFlight == want {
			return
		}
	}
	u.Errorf("depth is %+v, want %d in flight", got, want)
}

// What has come and is not received goes to others when the prefetch becomes less.
func TestNATSGivesBackWhatItMayHoldNoMore(t *testing.T) {
	t.Parallel()
	u := useNATS(t, startNATS(t, nil).URL)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 10, Lease: time.Minute})
	u.publish("t", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
	u.inFlight(10)
	sub.SetPrefetch(2)
	first := u.receive(sub, 2)
	u.wantBodies(first, "0", "1")
	u.nothing(sub, 50*time.Millisecond)
	other := u.subscribe("t", "c", millrace.SubscribeOptions{Lease: time.Minute})
	u.wantBodies(u.receive(other, 8), "2", "3", "4", "5", "6", "7", "8", "9")
	u.must(sub.Ack(t.Context(), first...))
	u.publish("t", "10", "11", "12")
	u.must(other.Close())
	u.receive(sub, 2)
	u.nothing(sub, 50*time.Millisecond)
}

// A lower prefetch that is soon raised again tosses no message about.
func TestNATSKeepsWhatItMayHoldSoonAgain(t *testing.T) {
	t.Parallel()
	u := useNATS(t, startNATS(t, nil).URL)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 10, Lease: time.Minute})
	u.publish("t", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
	u.inFlight(10)
	sub.SetPrefetch(2)
	ds := u.receive(sub, 2)
	time.Sleep(20 * time.Millisecond) // less than it waits before it gives any back
	sub.SetPrefetch(10)
	for _, d := range append(ds, u.receive(sub, 8)...) {
		if d.Attempt != 1 {
			t.Errorf("message %s came %d times", d.Body, d.Attempt)
		}
	}
}

// What a paused subscription had asked for before is not sent to it first.
func TestNATSPausedTakesNothing(t *testing.T) {
	t.Parallel()
	u := useNATS(t, startNATS(t, nil).URL)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{})
	u.publish("t", "1")
	u.must(sub.Ack(t.Context(), u.receive(sub, 1)...))
	sub.SetPrefetch(0)
	time.Sleep(200 * time.Millisecond)
	u.publish("t", "2")
	d := u.receive(u.subscribe("t", "c", millrace.SubscribeOptions{}), 1)[0]
	if d.Attempt != 1 {
		t.Errorf("it was delivered %d times before", d.Attempt-1)
	}
}

// A message that has waited in the subscription comes with a whole lease; one that has
// waited for longer than a lease is somebody else's.
func TestNATSDeliversWithAWholeLease(t *testing.T) {
	t.Parallel()
	const lease = time.Second
	u := useNATS(t, startNATS(t, nil).URL)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
	u.publish("t", "1")
	u.inFlight(1)
	time.Sleep(lease * 6 / 10)
	ds := u.receive(sub, 1)
	other := u.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
	u.nothing(other, lease*7/10)
	u.must(sub.Ack(t.Context(), ds...))
	u.nothing(other, lease*6/10)

	u.must(other.Close())
	u.publish("t", "2")
	u.inFlight(1)
	other = u.subscribe("t", "c", millrace.SubscribeOptions{Lease: time.Minute})
	ds = u.receive(other, 1)
	u.nothing(sub, 50*time.Millisecond)
	u.must(other.Ack(t.Context(), ds...))
}

// Subscriptions of one channel each have the lease that they asked for, whichever came
// first.
func TestNATSLeasesOfDifferentLengths(t *testing.T) {
	t.Parallel()
	n := startNATS(t, nil)
	for _, shortFirst := range []bool{true, false} {
		u := useNATS(t, n.URL)
		u.must(u.Delete(t.Context(), "t", ""))
		short, long := millrace.SubscribeOptions{Lease: 400 * time.Millisecond, Prefetch: 1}, millrace.SubscribeOptions{Lease: time.Minute, Prefetch: 1}
		first, second := long, short
		if shortFirst {
			first, second = short, long
		}
		a := u.subscribe("t", "c", first)
		time.Sleep(100 * time.Millisecond) // the channel's lease is what the first one wants
		b := u.subscribe("t", "c", second)
		u.publish("t", "1", "2")
		start := time.Now()
		da, db := u.receive(a, 1), u.receive(b, 1)
		watcher := u.subscribe("t", "c", long)
		lost := u.receive(watcher, 1)
		if took := time.Since(start); took < 350*time.Millisecond || took > 2*time.Second {
			t.Errorf("short first: %v: it came again after %v", shortFirst, took)
		}
		mine, his := da, db
		if shortFirst {
			mine, his = db, da
		}
		u.wantBodies(lost, string(his[0].Body))
		keeper, loser := a, b
		if shortFirst {
			keeper, loser = b, a
		}
		u.must(loser.Close()) // now the watcher gets whatever comes again
		u.must(watcher.Ack(t.Context(), lost...))
		u.must(keeper.Extend(t.Context(), mine...))
		u.nothing(watcher, 800*time.Millisecond)
		u.must(keeper.Ack(t.Context(), mine...))
		u.must(u.Close()) // else the keeper is there when the channel is made anew, and takes what comes
	}
}

// Who neither asks for a message nor holds one when another subscription comes, which gets
// the channel's lease changed, has the one that he asked for all the same.
func TestNATSAnotherLeaseComesUnseen(t *testing.T) {
	t.Parallel()
	n := startNATS(t, nil)
	for _, lease := range []time.Duration{3 * time.Second, time.Minute} {
		u := useNATS(t, n.URL)
		u.must(u.Delete(t.Context(), "t", ""))
		sub := u.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease, Prefetch: 1})
		u.publish("t", "taken away")
		full := u.receive(sub, 1) // so that it asks for nothing
		stream, err := natsStreams(t, n.URL).Stream(t.Context(), nats.Stream("t"))
		u.must(err)
		u.must(stream.Purge(t.Context()))
		u.inFlight(0)
		u.must(sub.Extend(t.Context(), full...)) // and goes on to ask for nothing
		another := 400 * time.Millisecond
		if lease < time.Minute {
			another = time.Minute
		}
		other := u.subscribe("t", "c", millrace.SubscribeOptions{Lease: another})
		c, err := stream.Consumer(t.Context(), nats.Consumer("c"))
		u.must(err)
		if c.CachedInfo().Config.AckWait != another {
			t.Errorf("the lease of the channel is not %v: the test proves nothing", another)
		}
		u.must(other.Close())
		u.must(sub.Ack(t.Context(), full...))
		u.publish("t", "x")
		start := time.Now()
		ds := u.receive(sub, 1)
		watcher := u.subscribe("t", "c", millrace.SubscribeOptions{Lease: another})
		if another < lease {
			u.nothing(watcher, 2*another)
			u.must(sub.Ack(t.Context(), ds...))
		} else if u.receive(watcher, 1); time.Since(start) < lease*9/10 {
			t.Errorf("it came again after %v", time.Since(start))
		}
		u.must(u.Close())
	}
}

// A message with a delay has its first attempt when the delay is over, and counts on from
// there; it waits for whoever comes.
func TestNATSDelaysAreNotAttempts(t *testing.T) {
	t.Parallel()
	u := useNATS(t, startNATS(t, nil).URL)
	u.must(u.Declare(t.Context(), "t", "c"))
	start := time.Now()
	u.must(u.Publish(t.Context(), "t", millrace.Message{Body: []byte("later"), Delay: 500 * time.Millisecond}))
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{Lease: time.Minute})
	for attempt := uint32(1); attempt <= 3; attempt++ {
		d := u.receive(sub, 1)[0]
		if d.Attempt != attempt || time.Since(start) < 490*time.Millisecond || d.Delay != 0 {
			t.Errorf("attempt %d after %v, want %d", d.Attempt, time.Since(start), attempt)
		}
		u.must(sub.Nack(t.Context(), 0, d))
	}
}

// Nothing of a broker that was closed goes on. Not parallel, because it looks at all
// goroutines.
func TestNATSLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	n := startNATS(t, nil)
	u := useNATS(t, n.URL)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{})
	u.subscribe("t", "d"+millrace.EphemeralSuffix, millrace.SubscribeOptions{})
	u.publish("t", "1")
	u.receive(sub, 1)
	u.must(u.Close())
	u.must(n.Stop())
	u = useNATS(t, func() string { u.must(n.Start()); return n.URL }())
	u.subscribe("t", "c", millrace.SubscribeOptions{})
	u.must(n.Stop()) // under its hands
	u.must(u.Close())
	goleak.VerifyNone(t, before)
}
