package broker_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// replay replays the channel and checks what that is said to bring back.
func (b bench) replay(ch *broker.Channel, from uint64, want broker.Replayed) {
	b.t.Helper()
	got, err := ch.Replay(from)
	if err != nil {
		b.t.Fatal(err)
	}
	if got != want {
		b.t.Errorf("replay from %d: %+v, want %+v", from, got, want)
	}
}

func TestAReplayDeliversAgainWhatIsFromThereOnAndNothingBelow(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		ch, other := b.channel("t", "c"), b.channel("t", "other")
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", numbers(1, 11)...)
		ds := receive(t, c, 10)
		ack(t, c, ds[0], ds[2])
		ack(t, c, ds[4:9]...) // 2, 4 and 10 are in flight
		b.replay(ch, 5, broker.Replayed{From: 5, Messages: 6})
		if got, want := b.depth("t", "c"), (millrace.Depth{Ready: 6, InFlight: 2}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		if s := ch.Stats(); s.Finished != 7 || s.Messages != 10 {
			t.Errorf("%+v", s)
		}
		again := receive(t, c, 6)
		if got, want := describe(again), "5@1 6@1 7@1 8@1 9@1 10@1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		ack(t, c, again...)
		ack(t, c, ds[1], ds[3]) // whose leases hold
		nothing(t, c, time.Hour)
		if n := other.Depth().Ready; n != 10 {
			t.Errorf("the other channel has %d messages", n)
		}
	})
}

// What was held when the replay came is not held any more: whoever held it has room again,
// and his late ack ends nobody's lease, although the attempt has the same number.
func TestLeasesEndWithAReplay(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		ch := b.channel("t", "c")
		first := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 2})
		b.publish("t", "1", "2", "3", "4")
		old := receive(t, first, 2)
		b.replay(ch, 1, broker.Replayed{From: 1, Messages: 2})
		if n := first.Held(); n != 0 {
			t.Errorf("it holds %d messages", n)
		}
		second := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 2})
		now := receive(t, second, 2)
		wantDeliveries(t, now, "1@1 2@1")
		var lost *millrace.LeaseError
		if err := first.Ack(t.Context(), old...); !asLeaseError(err, &lost) || len(lost.Lost) != 2 {
			t.Errorf("a late ack: %v", err)
		}
		if err := first.Extend(t.Context(), old...); !asLeaseError(err, &lost) || len(lost.Lost) != 2 {
			t.Errorf("a late extension: %v", err)
		}
		if err := first.Nack(t.Context(), 0, old...); !asLeaseError(err, &lost) || len(lost.Lost) != 2 {
			t.Errorf("a late nack: %v", err)
		}
		wantDeliveries(t, receive(t, first, 2), "3@1 4@1")
		ack(t, second, now...)
		if got, want := b.depth("t", "c"), (millrace.Depth{InFlight: 2}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}

// A consumer that waits for room, and one that waits for messages, are woken.
func TestAReplayWakesThoseWhoWait(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		for _, prefetch := range []int{1, 10} {
			topic := fmt.Sprint("t", prefetch)
			c := b.subscribe(topic, "c", millrace.SubscribeOptions{Prefetch: prefetch, Lease: 24 * time.Hour})
			b.publish(topic, "1")
			receive(t, c, 1)
			got := make(chan []millrace.Delivery)
			go func() { got <- receiveWithin(t, time.Hour, c, 1) }()
			synctest.Wait()
			b.replay(b.channel(topic, "c"), 1, broker.Replayed{From: 1, Messages: 1})
			wantDeliveries(t, <-got, "1@1")
		}
	})
}

func TestADelayThatIsNotOverIsWaitedForAgain(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		ch := b.channel("t", "c")
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.must(b.Publish("t", []millrace.Message{{Body: []byte("later"), Delay: time.Hour}, {Body: []byte("now")}}))
		now := receive(t, c, 1)
		b.must(c.Nack(t.Context(), time.Hour, now...)) // its own delay has been over
		b.replay(ch, 1, broker.Replayed{From: 1, Messages: 2})
		again := receive(t, c, 1)
		wantDeliveries(t, again, "now@1")
		ack(t, c, again...)
		nothing(t, c, time.Hour-time.Second)
		wantDeliveries(t, receiveWithin(t, 2*time.Second, c, 1), "later@1")
		b.replay(ch, 1, broker.Replayed{From: 1, Messages: 2})
		wantDeliveries(t, receive(t, c, 2), "later@1 now@1")
	})
}

// Before anybody has consumed again, the counts are right.
func TestAReplayCountsWhatIsDeferred(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		ch := b.channel("t", "c")
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		for _, delay := range []time.Duration{0, time.Hour, time.Minute, 2 * time.Hour, 0} {
			b.must(b.Publish("t", []millrace.Message{{Body: []byte(delay.String()), Delay: delay}}))
		}
		ack(t, c, receive(t, c, 2)...)
		for _, want := range []millrace.Depth{{Ready: 2, Deferred: 3}, {Ready: 3, Deferred: 2}} {
			if _, err := ch.Replay(1); err != nil {
				t.Fatal(err)
			}
			if got := ch.Depth(); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			time.Sleep(2 * time.Minute)
		}
		if got, want := b.look(ch, 0, 10), "0s:ready:0: 1h0m0s:deferred:0:56m0s 1m0s:ready:0: 2h0m0s:deferred:0:1h56m0s 0s:ready:0:"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		// What is overdue comes in its turn.
		if got, want := describe(receive(t, c, 3)), "0s@1 1m0s@1 0s@1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestAReplayGoesBackToATime(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		ch := b.channel("t", "c")
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		start := time.Now()
		for i := range 5 {
			b.publish("t", fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		ack(t, c, receive(t, c, 5)...)
		for since, want := range map[time.Duration]string{
			-time.Hour:                       "0@1 1@1 2@1 3@1 4@1",
			0:                                "0@1 1@1 2@1 3@1 4@1",
			time.Minute:                      "1@1 2@1 3@1 4@1",
			time.Minute + 1:                  "2@1 3@1 4@1",
			4 * time.Minute:                  "4@1",
			4*time.Minute + 1:                "",
			time.Since(start):                "",
			time.Since(start) + 24*time.Hour: "",
		} {
			got, err := ch.ReplaySince(start.Add(since))
			n := len(strings.Fields(want))
			if err != nil || got != (broker.Replayed{From: uint64(6 - n), Messages: int64(n)}) {
				t.Errorf("since %v: %+v, %v", since, got, err)
			}
			ds := receive(t, c, n)
			if describe(ds) != want {
				t.Errorf("since %v: got %s, want %s", since, describe(ds), want)
			}
			ack(t, c, ds...)
		}
	})
}

func TestAReplayCannotGoForwards(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		ch := b.channel("t", "c")
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1})
		b.publish("t", "1", "2", "3")
		ack(t, c, receive(t, c, 1)...)
		b.replay(ch, 2, broker.Replayed{From: 2})
		_, err := ch.Replay(3)
		if !errors.Is(err, broker.ErrAhead) {
			t.Errorf("%v", err)
		}
		wantSentence(t, err, "channel c of topic t", "message 2 is the next", "go back to 3")
		b.must(b.DeleteChannel("t", "c"))
		if _, err := ch.Replay(1); !errors.Is(err, millrace.ErrClosed) {
			t.Errorf("of a channel that was deleted: %v", err)
		}
		if _, err := ch.ReplaySince(time.Time{}); !errors.Is(err, millrace.ErrClosed) {
			t.Errorf("of a channel that was deleted: %v", err)
		}
	})
}

// What was emptied comes again too, and what was published before there was the channel;
// what waits in a paused topic does not come before its time.
func TestAReplayBringsWhatTheLogHolds(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		b.channel("t", "first")
		b.publish("t", "1", "2")
		ch := b.channel("t", "c")
		b.publish("t", "3")
		b.must(ch.Empty())
		topic := b.Lookup("t")
		b.must(topic.Pause())
		b.publish("t", "4")
		b.must(topic.Empty())
		b.publish("t", "5")
		b.replay(ch, 0, broker.Replayed{From: 1, Messages: 4})
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		wantDeliveries(t, receive(t, c, 4), "1@1 2@1 3@1 4@1")
		nothing(t, c, time.Second)
		b.must(topic.Unpause())
		wantDeliveries(t, receive(t, c, 1), "5@1")
	})
}

func TestAReplaySaysWhenTheBeginningIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, retain := range []time.Duration{0, time.Hour} {
			b := open(t, broker.Options{Dir: "data", Retain: retain}.On(vfs.NewMem()).WithSegments(1000))
			start := time.Now()
			b.consumed("t", 100)
			time.Sleep(time.Minute)
			ch := b.channel("t", "c")
			got, err := ch.Replay(1)
			since, sinceErr := ch.ReplaySince(start)
			since.Messages += got.Messages // the second time, the channel has not come past any
			if err != nil || sinceErr != nil || got != since {
				t.Errorf("from 1: %+v, %v; from its time: %+v, %v", got, err, since, sinceErr)
			}
			if cut := retain == 0; got.Cut != cut || got.Messages != int64(101-got.From) || (got.From > 1) != cut {
				t.Errorf("%+v when %v is retained", got, retain)
			}
			c := b.subscribe("t", "c", millrace.SubscribeOptions{})
			if got, want := receive(t, c, int(got.Messages)), numbers(int(got.From)-1, 100); describe(got) != strings.Join(want, "@1 ")+"@1" {
				t.Errorf("%s", describe(got))
			}
		}
	})
}

// A consumer that reads the log at the moment of the replay does not take the channel
// forwards over what is to come again.
func TestAReplayWhileTheLogIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", numbers(1, 11)...)
		ack(t, c, receiveExactly(t, c, 5)...)
		b.must(b.Close())

		var block atomic.Bool
		blocked := make(chan struct{})
		b = open(t, broker.Options{Dir: "data"}.On(vfs.Inject(disk, func(op vfs.Op) error {
			if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".seg") && block.CompareAndSwap(true, false) {
				<-blocked
			}
			return nil
		})))
		c = b.subscribe("t", "c", millrace.SubscribeOptions{})
		block.Store(true)
		got := make(chan []millrace.Delivery)
		go func() { got <- receive(t, c, 10) }()
		synctest.Wait()
		b.replay(b.channel("t", "c"), 1, broker.Replayed{From: 1, Messages: 5})
		close(blocked)
		if got, want := describe(<-got), strings.Join(numbers(1, 11), "@1 ")+"@1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// receiveExactly lets the consumer hold no more than n messages while it receives them.
func receiveExactly(t *testing.T, c *broker.Consumer, n int) []millrace.Delivery {
	t.Helper()
	c.SetPrefetch(n)
	ds := receive(t, c, n)
	c.SetPrefetch(0)
	return ds
}

// Consumers take and ack while the channel is replayed again and again: after each replay
// from the beginning, every message comes.
func TestReplaysAmongConsumers(t *testing.T) {
	const total = 500
	for _, opts := range []broker.Options{
		{}, // in one segment, because in memory nothing is retained
		broker.Options{Dir: t.TempDir(), Sync: broker.SyncNever, Retain: time.Hour}.WithSegments(5000),
	} {
		b := open(t, opts)
		ch := b.channel("t", "c")
		b.publish("t", numbers(0, total)...)
		var mu sync.Mutex
		came := make(map[string]bool)
		var consumers sync.WaitGroup
		for range 3 {
			c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 50})
			consumers.Go(func() {
				buf := make([]millrace.Delivery, 20)
				for {
					n, err := c.Receive(t.Context(), buf)
					if err != nil {
						return
					}
					mu.Lock()
					for _, d := range buf[:n] {
						came[string(d.Body)] = true
					}
					mu.Unlock()
					if err := c.Ack(t.Context(), buf[:n]...); err != nil && !errors.Is(err, millrace.ErrLeaseLost) {
						return
					}
				}
			})
		}
		for range 20 {
			for range 10 {
				if _, err := ch.Replay(rand.Uint64N(total)); err != nil && !errors.Is(err, broker.ErrAhead) {
					t.Fatal(err)
				}
			}
			mu.Lock() // so that nobody notes now what he was delivered after the replay
			_, err := ch.Replay(1)
			clear(came)
			mu.Unlock()
			b.must(err)
			for ch.Depth() != (millrace.Depth{}) {
				time.Sleep(time.Millisecond)
			}
			mu.Lock()
			for i := range total {
				if !came[fmt.Sprint(i)] {
					t.Errorf("message %d did not come after the replay", i)
				}
			}
			mu.Unlock()
		}
		b.must(b.DeleteChannel("t", "c"))
		consumers.Wait()
	}
}

// The time from which on a client may have a message is that of its new delivery.
func TestExtensionsAreCountedFromTheDeliveryAfterTheReplay(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: time.Minute})
		b.publish("t", "1")
		receive(t, c, 1)
		b.must(c.ExtendSeqs(time.Minute, 5*time.Minute, 1))
		time.Sleep(50 * time.Second)
		b.replay(b.channel("t", "c"), 1, broker.Replayed{From: 1, Messages: 1})
		receive(t, c, 1)
		for range 5 { // each time for a minute, up to 5 minutes after the delivery
			b.must(c.ExtendSeqs(time.Minute, 5*time.Minute, 1))
			time.Sleep(59 * time.Second)
		}
		if !b.channel("t", "c").InFlight(1) {
			t.Error("the lease has ended too soon")
		}
	})
}
