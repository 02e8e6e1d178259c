package drivers_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/driver/rabbitmq"
	"github.com/millrace/millrace/gather"
)

// rabbitUser is a connection to a broker, with words for what tests do.
type rabbitUser struct {
	*testing.T
	millrace.Broker
}

func (u rabbitUser) must(err error) {
	u.Helper()
	if err != nil {
		u.Fatal(err)
	}
}

func (u rabbitUser) publish(topic string, bodies ...string) {
	u.Helper()
	msgs := make([]millrace.Message, len(bodies))
	for i, body := range bodies {
		msgs[i].Body = []byte(body)
	}
	u.must(u.Publish(u.Context(), topic, msgs...))
}

func (u rabbitUser) subscribe(topic, channel string, opts millrace.SubscribeOptions) millrace.Subscription {
	u.Helper()
	sub, err := u.Subscribe(u.Context(), topic, channel, opts)
	u.must(err)
	u.Cleanup(func() { _ = sub.Close() })
	return sub
}

// receive receives n messages.
func (u rabbitUser) receive(sub millrace.Subscription, n int) (all []millrace.Delivery) {
	u.Helper()
	ctx := soonCtx(u.T, 20*time.Second)
	for len(all) < n {
		buf := make([]millrace.Delivery, n-len(all))
		k, err := sub.Receive(ctx, buf)
		if err != nil {
			u.Fatalf("after %d of %d messages: %v", len(all), n, err)
		}
		all = append(all, buf[:k]...)
	}
	return all
}

func (u rabbitUser) nothing(sub millrace.Subscription, wait time.Duration) {
	u.Helper()
	buf := make([]millrace.Delivery, 1)
	if n, err := sub.Receive(soonCtx(u.T, wait), buf); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		u.Errorf("got %d messages (%q) and %v, want none", n, buf[0].Body, err)
	}
}

func (u rabbitUser) wantBodies(ds []millrace.Delivery, want ...string) {
	u.Helper()
	var got []string
	for _, d := range ds {
		got = append(got, string(d.Body))
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		u.Errorf("got %q, want %q", got, want)
	}
}

func (r *rabbit) user(t *testing.T, url string) rabbitUser { return rabbitUser{t, r.open(t, url)} }

// A job over two processes' worth of connections: each result once, and nothing left but the queue.
func rabbitTasks(t *testing.T, r *rabbit) {
	const total = 2000
	url := r.vhost(t)
	b := r.open(t, url)
	t.Run("run", func(t *testing.T) {
		squares(t, r.open(t, url), "squares")
		squares(t, r.open(t, url), "squares")
		client, err := gather.New(t.Context(), b, "squares", gather.Config{})
		if err != nil {
			t.Fatal(err)
		}
		inputs := func(yield func(string) bool) {
			for i := 0; i < total && yield(strconv.Itoa(i)); i++ {
			}
		}
		start := time.Now()
		next := int64(0)
		for result, err := range gather.MapOrdered[string](soonCtx(t, 30*time.Second), client, inputs) {
			if want := strconv.FormatInt(next*next, 10); err != nil || result.Index != next || result.Value != want {
				t.Fatalf("result %d is %q (%v), want %q", result.Index, result.Value, err, want)
			}
			next++
		}
		if next != total {
			t.Errorf("%d results, want %d", next, total)
		}
		t.Logf("%.0f tasks/s", total/time.Since(start).Seconds())
		if stats := client.Stats(); stats.Dropped != 0 {
			t.Errorf("%d answers were given twice", stats.Dropped)
		}
		if err := client.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	rabbitEventually(t, "the rest is gone", func() bool {
		left := slices.DeleteFunc(r.queues(t, url), func(q string) bool { return strings.HasPrefix(q, "millrace//") })
		slices.Sort(left)
		return slices.Equal(left, []string{"squares", "squares.control"})
	})
	for _, topic := range []string{"squares"} {
		d, err := b.Depth(t.Context(), topic, millrace.WorkChannel)
		if err != nil || d != (millrace.Depth{}) {
			t.Errorf("%s: depth %+v, %v", topic, d, err)
		}
	}
}

// Delays of all kinds end when they should, also those whose queue has gone: these go nowhere.
func rabbitDelays(t *testing.T, r *rabbit) {
	u := r.user(t, r.vhost(t))
	gone := u.subscribe("gone", "c", millrace.SubscribeOptions{})
	sub := u.subscribe("delays", "c", millrace.SubscribeOptions{})
	delays := []time.Duration{1, 40, 100, 333, 700, 1000, 1500, 2300}
	var msgs []millrace.Message
	for i := range delays {
		delays[i] *= time.Millisecond
		msgs = append(msgs, millrace.Message{
			Headers: millrace.Headers(nil).Append("k", "v"), Body: []byte(delays[i].String()), Delay: delays[i],
		})
	}
	u.must(u.Publish(u.Context(), "gone", slices.Repeat(msgs, 50)...))
	u.publish("gone", "nacked")
	u.must(gone.Nack(u.Context(), time.Second, u.receive(gone, 1)...))
	u.must(u.Delete(u.Context(), "gone", ""))

	start := time.Now()
	u.must(u.Publish(u.Context(), "delays", msgs...))
	came := map[string]bool{}
	for range delays {
		d := u.receive(sub, 1)[0]
		want, err := time.ParseDuration(string(d.Body))
		u.must(err)
		if took := time.Since(start); took < want || took > want+want/8+time.Second {
			t.Errorf("%v took %v", want, took)
		}
		if d.Attempt != 1 || d.Headers.Text("k") != "v" || came[string(d.Body)] {
			t.Errorf("%s: attempt %d, headers %q, came before: %v", d.Body, d.Attempt, d.Headers, came[string(d.Body)])
		}
		came[string(d.Body)] = true
		u.must(sub.Ack(u.Context(), d))
	}

	// What was nacked later is another attempt, on every way.
	u.publish("delays", "again")
	for attempt := uint32(1); attempt <= 6; attempt++ {
		d := u.receive(sub, 1)[0]
		if d.Attempt != attempt {
			t.Errorf("attempt %d, want %d", d.Attempt, attempt)
		}
		u.must(sub.Nack(u.Context(), time.Duration(attempt%2)*50*time.Millisecond, d))
	}
}

// The first channel takes over the topic's queue; when it is deleted the next one does, and in between
// messages wait. An ephemeral one, too, gets what waits.
func rabbitFirstChannel(t *testing.T, r *rabbit) {
	url := r.vhost(t)
	u := r.user(t, url)
	u.publish("t", "1", "2")
	e := u.subscribe("t", "e"+millrace.EphemeralSuffix, millrace.SubscribeOptions{})
	ds := u.receive(e, 2)
	u.wantBodies(ds, "1", "2")
	u.must(e.Ack(u.Context(), ds...))
	u.must(e.Close())
	rabbitEventually(t, "the ephemeral channel goes", func() bool {
		_, err := u.Depth(t.Context(), "t", "e"+millrace.EphemeralSuffix)
		return errors.Is(err, millrace.ErrNotFound)
	})

	u.publish("t", "3")
	a := u.subscribe("t", "a", millrace.SubscribeOptions{})
	u.wantBodies(u.receive(a, 1), "3")
	other := r.user(t, url)
	b := other.subscribe("t", "b", millrace.SubscribeOptions{})
	u.publish("t", "4")
	u.wantBodies(u.receive(a, 1), "4")
	u.wantBodies(u.receive(b, 1), "4")

	u.must(other.Delete(u.Context(), "t", "a"))
	u.must(u.Delete(u.Context(), "t", "b"))
	u.publish("t", "5")
	c := u.subscribe("t", "c", millrace.SubscribeOptions{})
	u.wantBodies(u.receive(c, 1), "5")
	u.nothing(c, 100*time.Millisecond)
}

// Who lets a lease end and does not receive gets nothing until it does: nor does what it was sent
// go back and forth.
func rabbitDeaf(t *testing.T, r *rabbit) {
	const lease = 500 * time.Millisecond
	url := r.vhost(t)
	u := r.user(t, url)
	deaf := u.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
	u.publish("t", "1", "2")
	u.receive(deaf, 1)
	time.Sleep(5 * lease)
	u.publish("t", "3")
	other := u.subscribe("t", "c", millrace.SubscribeOptions{})
	ds := u.receive(other, 3)
	u.wantBodies(ds, "1", "2", "3")
	for _, d := range ds {
		if d.Attempt > 2 {
			t.Errorf("%s comes for the %d. time", d.Body, d.Attempt)
		}
	}
	u.must(other.Close())
	u.receive(deaf, 3)
}

// Who is paused gives back what it was sent and has not received.
func rabbitPaused(t *testing.T, r *rabbit) {
	u := r.user(t, r.vhost(t))
	paused := u.subscribe("t", "c", millrace.SubscribeOptions{})
	u.publish("t", "1", "2", "3")
	rabbitEventually(t, "they are sent", func() bool {
		d, err := u.Depth(t.Context(), "t", "c")
		return err == nil && d == (millrace.Depth{InFlight: 3})
	})
	start := time.Now()
	paused.SetPrefetch(0)
	other := u.subscribe("t", "c", millrace.SubscribeOptions{})
	u.wantBodies(u.receive(other, 3), "1", "2", "3")
	if took := time.Since(start); took > rabbitTimeout/2 {
		t.Errorf("they came after %v", took)
	}
	paused.SetPrefetch(1)
	u.publish("t", "4")
	u.must(other.Close())
	u.receive(paused, 1)
	u.nothing(paused, 100*time.Millisecond)
}

// What other processes hold is counted; that other programs hold something is said.
func rabbitCensus(t *testing.T, r *rabbit) {
	url := r.vhost(t)
	asks, one, two := r.user(t, url), r.user(t, url), r.user(t, url)
	asks.must(asks.Declare(t.Context(), "t", "c"))
	subs := []millrace.Subscription{
		one.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 2}),
		two.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 2}),
	}
	asks.publish("t", "1", "2", "3", "4", "5", "6")
	one.receive(subs[0], 2)
	two.receive(subs[1], 2)
	wantDepth := func(want millrace.Depth) {
		t.Helper()
		if d, err := asks.Depth(t.Context(), "t", "c"); err != nil || d != want {
			t.Errorf("depth %+v (%v), want %+v", d, err, want)
		}
	}
	wantDepth(millrace.Depth{Ready: 2, InFlight: 4})
	subs[0].SetPrefetch(0) // it has no consumer any more, and holds what it holds
	time.Sleep(100 * time.Millisecond)
	wantDepth(millrace.Depth{Ready: 2, InFlight: 4})

	// What a process that subscribes has delayed counts too, once, and until it comes.
	again := two.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 2})
	two.must(again.Nack(t.Context(), time.Minute, two.receive(again, 2)...))
	asks.must(asks.Publish(t.Context(), "t", millrace.Message{Delay: time.Minute}))
	wantDepth(millrace.Depth{InFlight: 4, Deferred: 3})

	ch := foreignChannel(t, url)
	if err := ch.Qos(1, 0, false); err != nil {
		t.Fatal(err)
	}
	if _, err := ch.Consume("t", "", false, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if d, err := asks.Depth(t.Context(), "t", "c"); !errors.Is(err, rabbitmq.ErrUncounted) || d.InFlight != 4 {
		t.Errorf("with a foreign consumer: %+v, %v", d, err)
	}
}

// Who consumes from a topic that somebody else deletes learns of it, on whatever kind of channel.
func rabbitDeletedTopic(t *testing.T, r *rabbit) {
	url := r.vhost(t)
	deletes, uses := r.user(t, url), r.user(t, url)
	var subs []millrace.Subscription
	for _, channel := range []string{"first", "second", "ephemeral" + millrace.EphemeralSuffix, "ephemeral" + millrace.EphemeralSuffix} {
		subs = append(subs, uses.subscribe("t", channel, millrace.SubscribeOptions{}))
	}
	uses.publish("t", "old")
	deletes.must(deletes.Delete(t.Context(), "t", ""))
	for i, sub := range subs {
		ctx, err := soonCtx(t, 5*time.Second), error(nil)
		for err == nil { // what came before is received first
			_, err = sub.Receive(ctx, make([]millrace.Delivery, 1))
		}
		if !errors.Is(err, millrace.ErrClosed) {
			t.Errorf("subscription %d: %v", i, err)
		}
	}
	if left := slices.DeleteFunc(r.queues(t, url), func(q string) bool { return strings.HasPrefix(q, "millrace//") }); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	// It is made again by who publishes to it, and does not know that it was deleted.
	uses.publish("t", "new")
	sub := uses.subscribe("t", "second", millrace.SubscribeOptions{})
	uses.wantBodies(uses.receive(sub, 1), "new")
}

// rabbitLastAcks: what is acked just before a subscription is closed does not come again. When
// many acks are under way, RabbitMQ holds some back, and forgets those with the connection.
func rabbitLastAcks(t *testing.T, r *rabbit) {
	const rounds, size = 20, 1000
	u := rabbitUser{t, r.open(t, r.vhost(t))}
	u.must(u.Declare(u.Context(), "last", "c"))
	for round := range rounds {
		bodies := make([]string, size)
		for i := range bodies {
			bodies[i] = strconv.Itoa(round*size + i)
		}
		u.publish("last", bodies...)
		sub := u.subscribe("last", "c", millrace.SubscribeOptions{Prefetch: size})
		ds := u.receive(sub, size)
		if round%2 == 1 {
			sub.SetPrefetch(0) // who wants no more is no consumer of the server's
		}
		for _, d := range ds {
			if n, err := strconv.Atoi(string(d.Body)); err != nil || n/size != round {
				t.Fatalf("%s was acked, and came again", d.Body)
			}
			u.must(sub.Ack(u.Context(), d))
		}
		u.must(sub.Close())
	}
	// The last message of all was acked without another subscription that would get it again.
	rabbitEventually(t, "nobody consumes any more, and nothing is left", func() bool {
		d, err := u.Depth(u.Context(), "last", "c")
		return err == nil && d == (millrace.Depth{})
	})
}
