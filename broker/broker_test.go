package broker_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

func open(t testing.TB, opts broker.Options) *broker.Broker {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	b, err := broker.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func subscribe(t testing.TB, b *broker.Broker, topic, channel string, opts millrace.SubscribeOptions) *broker.Consumer {
	t.Helper()
	c, err := b.Subscribe(topic, channel, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func publish(t testing.TB, b *broker.Broker, topic string, from, to int) {
	t.Helper()
	var msgs []millrace.Message
	for i := from; i < to; i++ {
		msgs = append(msgs, millrace.Message{Body: fmt.Append(nil, i)})
	}
	if err := b.Publish(topic, msgs); err != nil {
		t.Fatal(err)
	}
}

// receive receives n messages.
func receive(t testing.TB, c *broker.Consumer, n int) []millrace.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 10*time.Second, io.ErrNoProgress)
	defer cancel()
	var all []millrace.Delivery
	for len(all) < n {
		buf := make([]millrace.Delivery, n-len(all))
		k, err := c.Receive(ctx, buf)
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", len(all), n, err)
		}
		all = append(all, buf[:k]...)
	}
	return all
}

func TestBacklogGoesToTheFirstChannel(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		b := open(t, broker.Options{Dir: dir})
		publish(t, b, "t", 0, 5)
		c := subscribe(t, b, "t", "first", millrace.SubscribeOptions{})
		ds := receive(t, c, 5)
		second := subscribe(t, b, "t", "second", millrace.SubscribeOptions{})
		publish(t, b, "t", 5, 6)
		if d := receive(t, second, 1)[0]; string(d.Body) != "5" {
			t.Errorf("the second channel got %q, want only what came after it", d.Body)
		}
		if err := c.Ack(t.Context(), ds...); err != nil {
			t.Error(err)
		}
	}
}

func TestUnackedMessagesSurviveRestart(t *testing.T) {
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	c := subscribe(t, b, "t", "c", millrace.SubscribeOptions{})
	publish(t, b, "t", 0, 10)
	ds := receive(t, c, 10)
	if err := c.Ack(t.Context(), ds[0], ds[3], ds[4]); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, broker.Options{Dir: dir})
	c = subscribe(t, b, "t", "c", millrace.SubscribeOptions{})
	got := ""
	for _, d := range receive(t, c, 7) {
		got += string(d.Body)
		if d.Attempt != 2 {
			t.Errorf("message %s: attempt %d, want 2", d.Body, d.Attempt)
		}
	}
	if got != "1256789" {
		t.Errorf("got %s", got)
	}
}
