package nats

import (
	"testing"
	"time"

	"github.com/millrace/millrace"
)

// What the server is told last of a delivery holds. So it is told how long the lease is,
// where that is not the channel's, before somebody can receive the delivery and say anything
// else.
func TestADeliveryIsReadyWhenItsLeaseHasBeenTold(t *testing.T) {
	for _, ackWait := range []time.Duration{0, time.Second, time.Minute} {
		s := newSubscription(&broker{}, "t", "c", millrace.SubscribeOptions{Lease: time.Minute, Prefetch: 1})
		s.pull.ackWait = ackWait
		var a arrival
		word, done := s.accept(&a, "ack", false, time.Now())
		same := ackWait == time.Minute
		if done != same || (word == nil) != same || s.ready.len() == 1 != same {
			t.Errorf("of a channel with a lease of %v: %q, %v, and %d are ready", ackWait, word, done, s.ready.len())
		}
		if same {
			continue
		}
		if word, done = s.accept(&a, "ack", true, time.Now()); word != nil || !done || s.ready.len() != 1 {
			t.Errorf("then: %q, %v, and %d are ready", word, done, s.ready.len())
		}
	}
}

// What was asked before somebody has said that the channel has another lease is not believed.
func TestWhatWasSeenBeforeANoticeIsNotBelieved(t *testing.T) {
	s := newSubscription(&broker{}, "t", "c", millrace.SubscribeOptions{Lease: time.Minute, Prefetch: 1})
	now := time.Now()
	if s.seen(time.Minute, 0, now) || s.pull.ackWait != time.Minute {
		t.Errorf("the first look: %+v", s.pull)
	}
	s.unsettled(now)
	if s.seen(time.Minute, 0, now) || s.pull.ackWait != 0 || !s.pull.looked.IsZero() {
		t.Errorf("a look of before: %+v", s.pull)
	}
	if s.seen(time.Hour, 1, now) || s.pull.ackWait != time.Hour {
		t.Errorf("a look of after: %+v", s.pull)
	}
	if !s.seen(time.Minute, 1, now) {
		t.Error("that it has become another one is not seen")
	}
}
