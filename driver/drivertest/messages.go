package drivertest

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace"
)

func intact(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{})
	headers := millrace.Headers(nil).
		Append(millrace.HeaderID, "job-7").
		Append(millrace.HeaderReplyTo, "answers").
		Append("twice", "first").Append("twice", "second").
		Append("empty", "").
		Append("bytes", "\x00\xff\"\n{}").
		Append("words", "größer als 漢字")
	want := []millrace.Message{
		{Headers: headers, Body: []byte("with headers")},
		{Body: []byte("without")},
		{Headers: headers},
		{},
		{Body: []byte("\x00\x01\n\r\n\xff\xfe")},
	}
	before := time.Now()
	s.must(s.broker.Publish(s.Context(), s.topic, want...))
	for i, d := range s.receive(sub, len(want)) {
		if !bytes.Equal(d.Body, want[i].Body) {
			s.Errorf("message %d: body %q, want %q", i, d.Body, want[i].Body)
		}
		if got, want := pairs(d.Headers), pairs(want[i].Headers); !slices.Equal(got, want) {
			s.Errorf("message %d: headers %q, want %q", i, got, want)
		}
		if d.Delay != 0 {
			s.Errorf("message %d: a delivery has a delay, %v", i, d.Delay)
		}
		if d.Published != 0 && time.Unix(0, d.Published).Sub(before).Abs() > time.Minute {
			s.Errorf("message %d was published at %v, the time was %v", i, time.Unix(0, d.Published), before)
		}
	}
}

func pairs(h millrace.Headers) []string {
	var all []string
	for key, value := range h.All() {
		all = append(all, key+"="+value)
	}
	return all
}

func order(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{Prefetch: 64})
	var publishing sync.WaitGroup
	defer publishing.Wait() // what is published can arrive before that is known here
	publishing.Go(func() {
		for i := 0; i < 1000; i += 50 {
			if err := s.broker.Publish(s.Context(), s.topic, messages(numbers(i, i+50)...)...); err != nil {
				s.Error(err)
				return
			}
		}
	})
	var got []string
	last := uint64(0)
	for len(got) < 1000 {
		ds := s.receive(sub, 10)
		for _, d := range ds {
			if d.Seq != 0 && d.Seq <= last {
				s.Errorf("sequence number %d comes after %d", d.Seq, last)
			}
			last = d.Seq
		}
		got = append(got, bodies(ds)...)
		s.ack(sub, ds...)
	}
	if !slices.Equal(got, numbers(0, 1000)) {
		s.Errorf("got %q", got)
	}
	s.must(s.broker.Publish(s.Context(), s.topic)) // no message is no error
}

func large(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{})
	body := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	s.publish(body, "small", body)
	ds := s.receive(sub, 3)
	if string(ds[0].Body) != body || string(ds[1].Body) != "small" || string(ds[2].Body) != body {
		s.Errorf("bodies of %d, %d and %d bytes are not as published", len(ds[0].Body), len(ds[1].Body), len(ds[2].Body))
	}
}

func tooLarge(s *suite) {
	sub := s.subscribe("c", millrace.SubscribeOptions{})
	err := s.broker.Publish(s.Context(), s.topic, messages("before", strings.Repeat("x", s.h.TooLarge), "after")...)
	s.wantError(err, millrace.ErrTooLarge, "publish")
	s.publish("next")
	s.wantBodies(s.receive(sub, 1), "next")
}

func competing(s *suite) {
	const total, consumers = 500, 5
	var mu sync.Mutex
	count := map[string]int{}
	shares := make([]int, consumers)
	ctx, all := context.WithTimeout(s.Context(), 10*time.Second+s.h.Slack)
	defer all()
	var wg sync.WaitGroup
	for i := range consumers {
		sub := s.subscribe("c", millrace.SubscribeOptions{Prefetch: 3})
		wg.Go(func() {
			buf := make([]millrace.Delivery, 3)
			for {
				n, err := sub.Receive(ctx, buf)
				if err != nil {
					return // all has come, or took too long
				}
				mu.Lock()
				for _, body := range bodies(buf[:n]) {
					count[body]++
				}
				shares[i] += n
				complete := len(count) == total
				mu.Unlock()
				time.Sleep(time.Millisecond) // its work
				if err := sub.Ack(s.Context(), buf[:n]...); err != nil {
					s.Error(err)
				}
				if complete {
					all()
				}
			}
		})
	}
	for i := 0; i < total; i += 100 {
		s.publish(numbers(i, i+100)...)
	}
	wg.Wait()
	if len(count) != total {
		s.Errorf("%d of %d messages came", len(count), total)
	}
	for body, n := range count {
		if n != 1 {
			s.Errorf("message %s came %d times", body, n)
		}
	}
	if slices.Contains(shares, 0) {
		s.Errorf("not every consumer got some: %v", shares)
	}
}

func broadcast(s *suite) {
	a := s.subscribe("a", millrace.SubscribeOptions{})
	b := s.subscribe("b", millrace.SubscribeOptions{})
	s.publish(numbers(0, 20)...)
	for _, sub := range []millrace.Subscription{a, b} {
		ds := s.receive(sub, 20)
		s.wantBodies(ds, numbers(0, 20)...)
		s.ack(sub, ds...)
	}
}

func backlog(s *suite) {
	s.must(s.broker.Declare(s.Context(), s.topic, ""))
	s.publish("1", "2")
	first := s.subscribe("first", millrace.SubscribeOptions{})
	ds := s.receive(first, 2)
	s.wantBodies(ds, "1", "2")
	s.ack(first, ds...)
	later := s.subscribe("later", millrace.SubscribeOptions{})
	s.publish("3")
	s.wantBodies(s.receive(first, 1), "3")
	s.wantBodies(s.receive(later, 1), "3")
	s.nothing(later, 50*time.Millisecond)
}

func declared(s *suite) {
	for range 2 { // again is no error
		s.must(s.broker.Declare(s.Context(), s.topic, "a"))
		s.must(s.broker.Declare(s.Context(), s.topic, "b"))
	}
	s.publish("1", "2", "3")
	for _, channel := range []string{"a", "b"} {
		s.wantBodies(s.receive(s.subscribe(channel, millrace.SubscribeOptions{}), 3), "1", "2", "3")
	}
}
