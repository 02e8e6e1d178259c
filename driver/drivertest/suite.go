package drivertest

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/millrace/millrace"
)

// long is a lease that no test outlives.
const long = time.Minute

// suite is one claim's test: a connection, a topic, and words for what tests do.
type suite struct {
	*testing.T
	h      Harness
	broker millrace.Broker
	topic  string
}

// connect opens a connection, which is closed with the test, and the topic deleted.
func (s *suite) connect() {
	s.Helper()
	b := s.h.Open(s.T)
	s.broker = b
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := b.Delete(ctx, s.topic, ""); err != nil && !errors.Is(err, millrace.ErrClosed) {
			s.Errorf("delete the topic: %v", err)
		}
		if err := b.Close(); err != nil && !errors.Is(err, millrace.ErrClosed) {
			s.Errorf("close: %v", err)
		}
	})
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) wantError(err, want error, what string) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: %v, want an error that is %q", what, err, want)
	}
}

// subscribe makes a consumer, whose options hold a long lease unless they say another.
func (s *suite) subscribe(channel string, opts millrace.SubscribeOptions) millrace.Subscription {
	s.Helper()
	if opts.Lease == 0 {
		opts.Lease = long
	}
	sub, err := s.broker.Subscribe(s.Context(), s.topic, channel, opts)
	s.must(err)
	s.Cleanup(func() { _ = sub.Close() })
	return sub
}

func (s *suite) publish(bodies ...string) {
	s.Helper()
	s.must(s.broker.Publish(s.Context(), s.topic, messages(bodies...)...))
}

// receive receives n messages, one batch after the other.
func (s *suite) receive(sub millrace.Subscription, n int) []millrace.Delivery {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Second+s.h.Slack)
	defer cancel()
	var all []millrace.Delivery
	for len(all) < n {
		buf := make([]millrace.Delivery, n-len(all))
		k, err := sub.Receive(ctx, buf)
		if err != nil {
			s.Fatalf("after %d of %d messages: %v", len(all), n, err)
		}
		if k <= 0 || k > len(buf) {
			s.Fatalf("Receive filled %d of %d without an error", k, len(buf))
		}
		all = append(all, buf[:k]...)
	}
	return all
}

// nothing makes sure that nothing comes for that long.
func (s *suite) nothing(sub millrace.Subscription, wait time.Duration) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), wait)
	defer cancel()
	var buf [1]millrace.Delivery
	if n, err := sub.Receive(ctx, buf[:]); !errors.Is(err, context.DeadlineExceeded) || n != 0 {
		s.Errorf("got %d messages (%q) and %v, want none for %v", n, buf[0].Body, err, wait)
	}
}

func (s *suite) ack(sub millrace.Subscription, ds ...millrace.Delivery) {
	s.Helper()
	s.must(sub.Ack(s.Context(), ds...))
}

// wantBodies compares bodies in any order.
func (s *suite) wantBodies(ds []millrace.Delivery, want ...string) {
	s.Helper()
	got := bodies(ds)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.Errorf("got %q, want %q", got, want)
	}
}

// eventually waits until the check is true, up to the harness's slack.
func (s *suite) eventually(what string, check func() bool) {
	s.Helper()
	for end := time.Now().Add(s.h.Slack); !check(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.Errorf("not within %v: %s", s.h.Slack, what)
			return
		}
	}
}

func (s *suite) wantDepth(channel string, want millrace.Depth) {
	s.Helper()
	var got millrace.Depth
	var err error
	s.eventually("the depth", func() bool {
		got, err = s.broker.Depth(s.Context(), s.topic, channel)
		return err == nil && got == want
	})
	if got != want || err != nil {
		s.Errorf("depth is %+v (%v), want %+v", got, err, want)
	}
}

func messages(bodies ...string) []millrace.Message {
	msgs := make([]millrace.Message, len(bodies))
	for i, body := range bodies {
		msgs[i].Body = []byte(body)
	}
	return msgs
}

func bodies(ds []millrace.Delivery) []string {
	var all []string
	for _, d := range ds {
		all = append(all, string(d.Body))
	}
	return all
}

// numbers are from, from+1, … up to, not including, to.
func numbers(from, to int) []string {
	var all []string
	for i := from; i < to; i++ {
		all = append(all, strconv.Itoa(i))
	}
	return all
}
