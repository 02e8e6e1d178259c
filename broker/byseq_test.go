package broker_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace"
)

func seqsOf(ds []millrace.Delivery) []uint64 {
	seqs := make([]uint64, len(ds))
	for i, d := range ds {
		seqs[i] = d.Seq
	}
	return seqs
}

func TestAConsumerSettlesByNumberWhatItHoldsAndNothingElse(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		one := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease, Prefetch: 2})
		two := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease, Prefetch: 2})
		b.publish("t", "a", "b", "c", "d")
		mine, others := seqsOf(receive(t, one, 2)), seqsOf(receive(t, two, 2))
		all := append(append([]uint64{}, others...), mine...)
		wantLost(t, one.ExtendSeqs(lease, 0, all...), 0, 1)
		wantLost(t, one.AckSeqs(all), 0, 1)
		wantLost(t, one.AckSeqs(mine), 0, 1)
		wantLost(t, two.NackSeqs(0, all...), 2, 3)
		wantLost(t, two.NackSeqs(0, 999, 1<<60), 0, 1)
		if d := b.depth("t", "c"); d != (millrace.Depth{Ready: 2}) {
			t.Errorf("the channel holds %+v, want 2 ready", d)
		}
		wantDeliveries(t, receive(t, one, 2), "c@2 d@2") // it has room again
		if held := one.Held(); held != 2 {
			t.Errorf("the consumer holds %d, want 2", held)
		}
	})
}

func TestALeaseThatEndedIsNotSettledByNumberForWhoGotTheMessageNext(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		one := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		b.publish("t", "a")
		seqs := seqsOf(receive(t, one, 1))
		two := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		again := receive(t, two, 1)
		wantLost(t, one.AckSeqs(seqs), 0)
		wantLost(t, one.NackSeqs(time.Second, seqs...), 0)
		wantLost(t, one.ExtendSeqs(lease, 0, seqs...), 0)
		ack(t, two, again...)
	})
}

func TestANackByNumberWithADelayDefers(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		b.publish("t", "a", "b")
		if err := c.NackSeqs(time.Minute, seqsOf(receive(t, c, 2))...); err != nil {
			t.Error(err)
		}
		nothing(t, c, time.Minute-time.Second)
		wantDeliveries(t, receive(t, c, 2), "a@2 b@2")
	})
}

func TestExtendingByNumberEndsAtTheLimitAfterTheDelivery(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		const limit = 25 * time.Second
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		b.publish("t", "a")
		for attempt := range 2 { // each has its own limit
			ds := receive(t, c, 1)
			start := time.Now()
			for time.Since(start) < limit-lease/4 {
				if err := c.ExtendSeqs(lease, limit, ds[0].Seq); err != nil {
					t.Fatalf("attempt %d, after %v: %v", attempt, time.Since(start), err)
				}
				time.Sleep(lease / 4)
			}
			time.Sleep(limit - time.Since(start) - time.Second)
			if err := c.ExtendSeqs(lease, limit, ds[0].Seq); err != nil {
				t.Errorf("attempt %d, a second before the limit: %v", attempt, err)
			}
			time.Sleep(time.Second + 50*time.Millisecond)
			wantLost(t, c.ExtendSeqs(lease, limit, ds[0].Seq), 0)
		}
	})
}

func TestWhatIsInFlightAnywhereInTheChannelIsTold(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		b.publish("t", "a")
		ds := receive(t, c, 1)
		ch := b.Lookup("t").Lookup("c")
		if !ch.InFlight(ds[0].Seq) || ch.InFlight(ds[0].Seq+1) {
			t.Error("the message that was delivered is in flight, and no other")
		}
		ack(t, c, ds...)
		if ch.InFlight(ds[0].Seq) {
			t.Error("a message that was acked is in flight")
		}
	})
}
