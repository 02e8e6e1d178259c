package drivertest

import (
	"errors"
	"slices"
	"time"

	"github.com/millrace/millrace"
)

// soon is well before a lease ends, and long enough for something to happen that must not.
const soon = 100 * time.Millisecond

func (s *suite) short() millrace.SubscribeOptions {
	return millrace.SubscribeOptions{Lease: s.h.Lease}
}

// comesAfter receives one message, and makes sure that it comes at the time.
func (s *suite) comesAfter(sub millrace.Subscription, start time.Time, wait time.Duration) millrace.Delivery {
	s.Helper()
	d := s.receive(sub, 1)[0]
	if took := time.Since(start); took < wait-wait/20 || took > wait+s.h.Slack {
		s.Errorf("message %q came after %v, want %v", d.Body, took, wait)
	}
	return d
}

func expiry(s *suite) {
	silent := s.subscribe("c", s.short())
	s.publish("1")
	start := time.Now()
	s.receive(silent, 1)
	other := s.subscribe("c", millrace.SubscribeOptions{})
	d := s.comesAfter(other, start, s.h.Lease)
	s.wantBodies([]millrace.Delivery{d}, "1")
	s.ack(other, d)
	s.nothing(other, s.h.Lease+soon)
}

func extension(s *suite) {
	sub := s.subscribe("c", s.short())
	s.publish("1")
	ds := s.receive(sub, 1)
	for start := time.Now(); time.Since(start) < 3*s.h.Lease; time.Sleep(s.h.Lease / 4) {
		s.must(sub.Extend(s.Context(), ds...))
	}
	watcher := s.subscribe("c", millrace.SubscribeOptions{})
	s.must(sub.Extend(s.Context(), ds...))
	s.nothing(watcher, s.h.Lease/2)
	s.ack(sub, ds...)
	s.nothing(watcher, s.h.Lease+soon)
}

func lateAck(s *suite) {
	sub := s.subscribe("c", s.short())
	s.publish("1", "2")
	late := s.receive(sub, 2)
	other := s.subscribe("c", millrace.SubscribeOptions{})
	now := s.receive(other, 2)
	for what, err := range map[string]error{
		"Ack":    sub.Ack(s.Context(), late...),
		"Nack":   sub.Nack(s.Context(), 0, late...),
		"Extend": sub.Extend(s.Context(), late...),
	} {
		s.wantError(err, millrace.ErrLeaseLost, what)
		var which *millrace.LeaseError
		if errors.As(err, &which) && !slices.Equal(which.Lost, []int{0, 1}) {
			s.Errorf("%s: the leases %v are lost, want both", what, which.Lost)
		}
	}
	s.ack(other, now...) // which nobody else could do
	s.nothing(other, soon)
}

func attempts(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{})
	s.publish("1")
	for want := uint32(1); want <= 4; want++ {
		d := s.receive(sub, 1)[0]
		if d.Attempt != want {
			s.Errorf("attempt %d, want %d", d.Attempt, want)
		}
		s.must(sub.Nack(s.Context(), 0, d))
	}
}

func nack(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{})
	s.publish("1", "2", "3")
	ds := s.receive(sub, 3)
	s.ack(sub, ds[1])
	start := time.Now()
	s.must(sub.Nack(s.Context(), 0, ds[0], ds[2]))
	again := s.receive(sub, 2)
	s.wantBodies(again, "1", "3")
	if took := time.Since(start); took > s.h.Slack {
		s.Errorf("they came after %v", took)
	}
	s.ack(sub, again...)
	s.nothing(sub, soon)
}

func nackDelay(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{})
	s.publish("1", "2")
	ds := s.receive(sub, 2)
	start := time.Now()
	s.must(sub.Nack(s.Context(), s.h.Delay, ds[0]))
	s.nothing(sub, s.h.Delay/4)
	s.ack(sub, ds[1])
	d := s.comesAfter(sub, start, s.h.Delay)
	s.wantBodies([]millrace.Delivery{d}, "1")
}

func publishDelay(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{})
	msgs := messages("later", "now")
	msgs[0].Delay = s.h.Delay
	start := time.Now()
	s.must(s.broker.Publish(s.Context(), s.topic, msgs...))
	s.wantBodies(s.receive(sub, 1), "now")
	s.wantBodies([]millrace.Delivery{s.comesAfter(sub, start, s.h.Delay)}, "later")
}

func giveBack(s *suite) {
	dying := s.subscribe("c", millrace.SubscribeOptions{})
	s.publish(numbers(0, 10)...)
	ds := s.receive(dying, 10)
	s.ack(dying, ds[3])
	other := s.subscribe("c", millrace.SubscribeOptions{})
	start := time.Now()
	s.must(dying.Close())
	again := s.receive(other, 9)
	s.wantBodies(again, slices.Concat(numbers(0, 3), numbers(4, 10))...)
	if took := time.Since(start); took > s.h.Slack {
		s.Errorf("they came after %v", took)
	}
}

func prefetch(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{Prefetch: 3})
	s.publish(numbers(0, 10)...)
	ds := s.receive(sub, 3)
	s.nothing(sub, soon)
	// What it does not hold is there for others.
	other := s.subscribe("c", millrace.SubscribeOptions{Prefetch: 4})
	s.receive(other, 4)
	s.nothing(other, soon)
	s.ack(sub, ds[0])
	s.must(sub.Nack(s.Context(), long, ds[1]))
	s.receive(sub, 2)
	s.nothing(sub, soon)
	sub.SetPrefetch(4)
	s.receive(sub, 1)
}

func pause(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{})
	s.publish("1")
	s.ack(sub, s.receive(sub, 1)...)
	sub.SetPrefetch(0)
	s.publish("2")
	s.nothing(sub, 2*soon)
	// Another one gets it, although the paused one waits.
	other := s.subscribe("c", millrace.SubscribeOptions{})
	s.wantBodies(s.receive(other, 1), "2")
	s.publish("3")
	s.must(other.Close())
	sub.SetPrefetch(10)
	s.wantBodies(s.receive(sub, 2), "2", "3")
}
