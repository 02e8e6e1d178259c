package drivertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace"
)

func depth(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{Prefetch: 4})
	s.wantDepth("c", millrace.Depth{})
	s.publish(numbers(0, 10)...)
	ds := s.receive(sub, 4)
	s.wantDepth("c", millrace.Depth{Ready: 6, InFlight: 4})
	s.ack(sub, ds[:3]...)
	s.must(sub.Close())
	s.wantDepth("c", millrace.Depth{Ready: 7})
	_, err := s.broker.Depth(s.Context(), s.topic, "other")
	s.wantError(err, millrace.ErrNotFound, "depth of a channel that is not there")
	_, err = s.broker.Depth(s.Context(), s.topic+"-other", "c")
	s.wantError(err, millrace.ErrNotFound, "depth of a topic that is not there")
}

// ends makes sure that the subscription ends.
func (s *suite) ends(sub millrace.Subscription) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), s.h.Slack)
	defer cancel()
	for {
		var buf [10]millrace.Delivery
		_, err := sub.Receive(ctx, buf[:])
		if err == nil {
			continue // it was on its way
		}
		s.wantError(err, millrace.ErrClosed, "receive")
		return
	}
}

func deleteChannel(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{})
	other := s.subscribe("other", millrace.SubscribeOptions{})
	s.publish("1", "2")
	s.receive(sub, 1)
	s.must(s.broker.Delete(s.Context(), s.topic, "c"))
	s.ends(sub)
	_, err := s.broker.Depth(s.Context(), s.topic, "c")
	s.wantError(err, millrace.ErrNotFound, "depth of the deleted channel")
	s.must(s.broker.Delete(s.Context(), s.topic, "c")) // again is no error
	s.wantBodies(s.receive(other, 2), "1", "2")
	sub = s.subscribe("c", millrace.SubscribeOptions{})
	s.publish("3")
	s.wantBodies(s.receive(sub, 1), "3")
}

func deleteTopic(s *suite) {
	a := s.subscribe("a", millrace.SubscribeOptions{})
	b := s.subscribe("b", millrace.SubscribeOptions{})
	s.publish("1", "2")
	s.must(s.broker.Delete(s.Context(), s.topic, ""))
	s.ends(a)
	s.ends(b)
	s.must(s.broker.Delete(s.Context(), s.topic, "")) // again is no error
	a = s.subscribe("a", millrace.SubscribeOptions{})
	s.publish("3")
	s.wantBodies(s.receive(a, 1), "3")
	s.nothing(a, soon)
}

func ephemeral(s *suite) {
	const channel = "c" + millrace.EphemeralSuffix
	s.must(s.broker.Declare(s.Context(), s.topic, "stays"))
	one := s.subscribe(channel, millrace.SubscribeOptions{})
	two := s.subscribe(channel, millrace.SubscribeOptions{})
	s.publish("1")
	s.must(one.Close())
	d := s.receive(two, 1)
	s.wantBodies(d, "1")
	s.ack(two, d...)
	s.publish("2")
	s.must(two.Close())
	s.eventually("the channel goes", func() bool {
		_, err := s.broker.Depth(s.Context(), s.topic, channel)
		return errors.Is(err, millrace.ErrNotFound)
	})
	three := s.subscribe(channel, millrace.SubscribeOptions{})
	s.publish("3")
	s.wantBodies(s.receive(three, 1), "3")
	s.wantBodies(s.receive(s.subscribe("stays", millrace.SubscribeOptions{}), 3), "1", "2", "3")
}

func contexts(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{})
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(s.Context())
	time.AfterFunc(soon, func() { cancel(why) })
	var buf [1]millrace.Delivery
	n, err := sub.Receive(ctx, buf[:])
	s.wantError(err, why, "a receive that waits")
	if n != 0 {
		s.Errorf("%d messages with an error", n)
	}
	s.wantError(s.broker.Publish(ctx, s.topic, messages("never")...), why, "publish")
	_, err = s.broker.Subscribe(ctx, s.topic, "d", millrace.SubscribeOptions{})
	s.wantError(err, why, "subscribe")

	// Contexts that end all the time lose no message and double none.
	var publishing sync.WaitGroup
	defer publishing.Wait() // what is published can arrive before that is known here
	publishing.Go(func() {
		for i := range 100 {
			if err := s.broker.Publish(s.Context(), s.topic, messages(fmt.Sprint(i))...); err != nil {
				s.Error(err)
			}
		}
	})
	var got []millrace.Delivery
	end := time.Now().Add(10*time.Second + s.h.Slack)
	for i := 0; len(got) < 100 && time.Now().Before(end); i++ {
		ctx, cancel := context.WithTimeout(s.Context(), time.Duration(i%3)*time.Millisecond)
		n, err := sub.Receive(ctx, buf[:])
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			s.Fatal(err)
		}
		got = append(got, buf[:n]...)
	}
	s.wantBodies(got, numbers(0, 100)...)
}

func badNames(s *suite) {
	for _, name := range []string{"a b", "a/b", "ä", "", "#ephemeral", fmt.Sprintf("%065d", 0)} {
		s.wantError(s.broker.Publish(s.Context(), name, messages("x")...), millrace.ErrBadName, "publish to "+name)
		_, err := s.broker.Subscribe(s.Context(), s.topic, name, millrace.SubscribeOptions{})
		s.wantError(err, millrace.ErrBadName, "subscribe to channel "+name)
		s.wantError(s.broker.Declare(s.Context(), name, "c"), millrace.ErrBadName, "declare "+name)
	}
}

func closed(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{})
	s.publish("1", "2")
	ds := s.receive(sub, 1)
	waits := s.subscribe("other", millrace.SubscribeOptions{})
	ended := make(chan error)
	go func() {
		_, err := waits.Receive(context.WithoutCancel(s.Context()), make([]millrace.Delivery, 1))
		ended <- err
	}()
	time.Sleep(soon / 2)
	s.must(waits.Close())
	s.wantError(<-ended, millrace.ErrClosed, "a receive whose subscription is closed")
	s.must(s.broker.Close())
	_, received := sub.Receive(s.Context(), make([]millrace.Delivery, 1))
	_, subscribed := s.broker.Subscribe(s.Context(), s.topic, "c", millrace.SubscribeOptions{})
	_, depth := s.broker.Depth(s.Context(), s.topic, "c")
	for what, err := range map[string]error{
		"Receive": received, "Subscribe": subscribed, "Depth": depth,
		"Publish": s.broker.Publish(s.Context(), s.topic, messages("3")...),
		"Declare": s.broker.Declare(s.Context(), s.topic, "d"),
		"Delete":  s.broker.Delete(s.Context(), s.topic, "c"),
	} {
		s.wantError(err, millrace.ErrClosed, what)
	}
	if err := sub.Ack(s.Context(), ds...); !errors.Is(err, millrace.ErrClosed) && !errors.Is(err, millrace.ErrLeaseLost) {
		s.Errorf("Ack: %v", err)
	}
	sub.SetPrefetch(1) // and nothing happens
}

func concurrent(s *suite) {
	const publishers, each = 4, 50
	sub := s.subscribe("c", millrace.SubscribeOptions{Prefetch: 20})
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				if err := s.broker.Publish(s.Context(), s.topic, messages(fmt.Sprint(p*each+i))...); err != nil {
					s.Error(err)
				}
			}
		})
	}
	// Several goroutines receive from one subscription, and others settle.
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Second+s.h.Slack)
	defer cancel()
	settle := make(chan millrace.Delivery, publishers*each)
	var receivers sync.WaitGroup
	var mu sync.Mutex // guards got
	var got []millrace.Delivery
	for range 3 {
		receivers.Go(func() {
			var buf [4]millrace.Delivery
			for {
				n, err := sub.Receive(ctx, buf[:])
				if err != nil {
					return // all is there, or it takes too long
				}
				for _, d := range buf[:n] {
					settle <- d
				}
				mu.Lock()
				got = append(got, buf[:n]...)
				if len(got) == publishers*each {
					cancel()
				}
				mu.Unlock()
			}
		})
		wg.Go(func() {
			for d := range settle {
				if err := sub.Ack(s.Context(), d); err != nil {
					s.Error(err)
				}
				sub.SetPrefetch(20)
			}
		})
	}
	receivers.Wait()
	close(settle)
	wg.Wait()
	s.wantBodies(got, numbers(0, publishers*each)...)
	s.wantDepth("c", millrace.Depth{})
}

func survivesRestart(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{})
	s.must(s.broker.Declare(s.Context(), s.topic, "idle"))
	s.publish("acked", "held", "deferred", "waiting")
	ds := s.receive(sub, 3)
	s.ack(sub, ds[0])
	s.must(sub.Nack(s.Context(), 3*s.h.Delay, ds[2]))
	start := time.Now()
	s.must(s.broker.Close())
	s.h.Restart(s.T)
	s.connect()
	sub = s.subscribe("c", millrace.SubscribeOptions{})
	got := s.receive(sub, 2)
	s.wantBodies(got, "held", "waiting")
	s.ack(sub, got...)
	s.wantBodies([]millrace.Delivery{s.comesAfter(sub, start, 3*s.h.Delay)}, "deferred")
	s.wantBodies(s.receive(s.subscribe("idle", millrace.SubscribeOptions{}), 4), "acked", "held", "deferred", "waiting")
}
