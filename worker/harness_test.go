package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace"
	_ "github.com/millrace/millrace/driver/embedded"
	"github.com/millrace/millrace/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tapped is a broker whose calls are written down and can be made to fail.
type tapped struct {
	millrace.Broker

	mu       sync.Mutex
	calls    []string                       // "publish TOPIC N", "ack N", …
	refuse   func(call string) error        // asked before each call
	limit    int                            // bytes of a message; 0: none
	loses    func(d millrace.Delivery) bool // says whose lease has ended
	vague    bool                           // it does not say which lease had ended
	dropAcks int                            // so many more acks are accepted and forgotten
	arrives  chan struct{}                  // if set, deliveries arrive when it is closed
	tasks    *tappedSubscription            // of the work channel
	blind    error                          // what Depth returns, if not nil
}

func (b *tapped) note(format string, args ...any) error {
	b.mu.Lock()
	call := fmt.Sprintf(format, args...)
	b.calls = append(b.calls, call)
	refuse := b.refuse
	b.mu.Unlock()
	if refuse != nil {
		return refuse(call)
	}
	return nil
}

// set changes how the broker behaves.
func (b *tapped) set(how func(*tapped)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	how(b)
}

// log returns the calls that begin with one of the prefixes.
func (b *tapped) log(prefixes ...string) (calls []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, call := range b.calls {
		for _, prefix := range prefixes {
			if strings.HasPrefix(call, prefix) {
				calls = append(calls, call)
				break
			}
		}
	}
	return calls
}

func (b *tapped) Publish(ctx context.Context, topic string, msgs ...millrace.Message) error {
	if err := b.note("publish %s %d", topic, len(msgs)); err != nil {
		return err
	}
	for _, m := range msgs {
		if b.limit > 0 && m.Size() > b.limit {
			return fmt.Errorf("%w: %d bytes", millrace.ErrTooLarge, m.Size())
		}
	}
	return b.Broker.Publish(ctx, topic, msgs...)
}

func (b *tapped) Depth(ctx context.Context, topic, channel string) (millrace.Depth, error) {
	b.mu.Lock()
	err := b.blind
	b.mu.Unlock()
	if err != nil {
		return millrace.Depth{}, err
	}
	return b.Broker.Depth(ctx, topic, channel)
}

func (b *tapped) Delete(ctx context.Context, topic, channel string) error {
	if err := b.note("delete %s %s", topic, channel); err != nil {
		return err
	}
	return b.Broker.Delete(ctx, topic, channel)
}

func (b *tapped) Declare(ctx context.Context, topic, channel string) error {
	if err := b.note("declare %s %s", topic, channel); err != nil {
		return err
	}
	return b.Broker.Declare(ctx, topic, channel)
}

func (b *tapped) Subscribe(ctx context.Context, topic, channel string, opts millrace.SubscribeOptions) (millrace.Subscription, error) {
	sub, err := b.Broker.Subscribe(ctx, topic, channel, opts)
	if err != nil || channel != millrace.WorkChannel {
		return sub, err
	}
	b.tasks = &tappedSubscription{Subscription: sub, broker: b}
	b.tasks.prefetch = opts.Prefetch
	return b.tasks, nil
}

type tappedSubscription struct {
	millrace.Subscription
	broker   *tapped
	prefetch int // protected by broker.mu
}

// Receive may keep what was delivered on its way, as a network does.
func (s *tappedSubscription) Receive(ctx context.Context, buf []millrace.Delivery) (int, error) {
	n, err := s.Subscription.Receive(ctx, buf)
	s.broker.mu.Lock()
	arrives := s.broker.arrives
	s.broker.mu.Unlock()
	if arrives != nil && err == nil {
		<-arrives
	}
	return n, err
}

func (s *tappedSubscription) Ack(ctx context.Context, ds ...millrace.Delivery) error {
	if err := s.broker.note("ack %d", len(ds)); err != nil {
		return err
	}
	drop := false
	s.broker.set(func(b *tapped) {
		drop = b.dropAcks > 0
		b.dropAcks--
	})
	if drop {
		return nil
	}
	err := s.Subscription.Ack(ctx, ds...)
	time.Sleep(time.Millisecond) // the broker delivers as soon as it can
	return err
}

func (s *tappedSubscription) Nack(ctx context.Context, delay time.Duration, ds ...millrace.Delivery) error {
	if err := s.broker.note("nack %d after %v", len(ds), delay); err != nil {
		return err
	}
	return s.Subscription.Nack(ctx, delay, ds...)
}

func (s *tappedSubscription) Extend(ctx context.Context, ds ...millrace.Delivery) error {
	if err := s.broker.note("extend %d", len(ds)); err != nil {
		return err
	}
	s.broker.mu.Lock()
	loses := s.broker.loses
	s.broker.mu.Unlock()
	if loses != nil {
		e := &millrace.LeaseError{}
		for i, d := range ds {
			if loses(d) {
				e.Lost = append(e.Lost, i)
			}
		}
		if len(e.Lost) > 0 && s.broker.vague {
			return millrace.ErrLeaseLost
		}
		if len(e.Lost) > 0 {
			return e
		}
	}
	return s.Subscription.Extend(ctx, ds...)
}

func (s *tappedSubscription) SetPrefetch(n int) {
	s.broker.set(func(*tapped) { s.prefetch = n })
	s.Subscription.SetPrefetch(n)
}

func (b *tapped) prefetch() (n int) {
	b.set(func(b *tapped) { n = b.tasks.prefetch })
	return n
}

// rig is a worker at a broker in memory, in virtual time, with somebody who asks.
type rig struct {
	*testing.T
	broker  *tapped
	worker  *worker.Worker
	replies millrace.Subscription
	served  chan error
	stop    context.CancelFunc

	mu     sync.Mutex
	events []worker.Event
}

const queue, replyTo = "q", "reply.me"

// inBubble runs f with a worker in a bubble of virtual time, and ends both.
func inBubble(t *testing.T, h worker.Handler, cfg worker.Config, f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.serve(h, cfg)
		f(r)
		r.end()
	})
}

func newRig(t *testing.T) *rig {
	t.Helper()
	b, err := millrace.Open(t.Context(), "mem:")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, broker: &tapped{Broker: b}}
	if err := b.Declare(t.Context(), queue, millrace.WorkChannel); err != nil {
		t.Fatal(err)
	}
	r.replies, err = b.Subscribe(t.Context(), replyTo, "replies", millrace.SubscribeOptions{Prefetch: 1 << 20, Lease: 1000 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) serve(h worker.Handler, cfg worker.Config) {
	r.Helper()
	cfg.OnEvent = func(e worker.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
	}
	w, err := worker.New(r.broker, queue, h, cfg)
	if err != nil {
		r.Fatal(err)
	}
	r.worker, r.served = w, make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.served <- w.Serve(ctx) }()
	synctest.Wait()
}

// end stops the worker if it still runs, and the broker.
func (r *rig) end() {
	r.Helper()
	r.stop()
	select {
	case err := <-r.served:
		if err != nil && !errors.Is(err, context.Canceled) {
			r.Errorf("Serve returned %v", err)
		}
	case <-time.After(time.Hour):
		r.Error("Serve did not return")
	}
	if err := r.broker.Close(); err != nil {
		r.Error(err)
	}
}

// ask publishes tasks, one for each payload, whose ids are job-0, job-1, …
func (r *rig) ask(payloads ...string) {
	r.Helper()
	for i, p := range payloads {
		r.publish(queue, p, "id", fmt.Sprintf("job-%d", i), "reply-to", replyTo)
	}
}

func (r *rig) publish(topic, payload string, headers ...string) {
	r.Helper()
	m := millrace.Message{Body: []byte(payload)}
	for i := 0; i < len(headers); i += 2 {
		m.Headers = m.Headers.Append(headers[i], headers[i+1])
	}
	if err := r.broker.Broker.Publish(r.Context(), topic, m); err != nil {
		r.Fatal(err)
	}
}

// take returns the messages that come within a while.
func (r *rig) take(sub millrace.Subscription, within time.Duration) (got []millrace.Delivery) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), within)
	defer cancel()
	buf := make([]millrace.Delivery, 1024)
	for {
		n, err := sub.Receive(ctx, buf)
		if err != nil {
			return got
		}
		got = append(got, buf[:n]...)
	}
}

// answers returns what came back within a while, each as "id body" or "id kind: error".
func (r *rig) answers(within time.Duration) (all []string) {
	r.Helper()
	for _, d := range r.take(r.replies, within) {
		all = append(all, show(d))
	}
	return all
}

func show(d millrace.Delivery) string {
	if kind, ok := d.Headers.Get("error-kind"); ok {
		text, _, _ := strings.Cut(d.Headers.Text("error"), "\n")
		return fmt.Sprintf("%s %s: %s", d.Headers.Text("id"), kind, text)
	}
	return fmt.Sprintf("%s %s", d.Headers.Text("id"), d.Body)
}

// deadLetters returns the dead letters, shown like answers.
func (r *rig) deadLetters() (all []millrace.Delivery) {
	r.Helper()
	sub, err := r.broker.Broker.Subscribe(r.Context(), queue+millrace.DeadSuffix, "dead", millrace.SubscribeOptions{})
	if err != nil {
		r.Fatal(err)
	}
	defer sub.Close()
	return r.take(sub, time.Millisecond)
}

// depth returns what the queue holds.
func (r *rig) depth() millrace.Depth {
	r.Helper()
	d, err := r.broker.Depth(r.Context(), queue, millrace.WorkChannel)
	if err != nil {
		r.Fatal(err)
	}
	return d
}

// told returns the events there were.
func (r *rig) told() []worker.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// saw counts the events of a kind.
func (r *rig) saw(kind worker.EventKind) (n int) {
	for _, e := range r.told() {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func (r *rig) equal(what string, got, want any) {
	r.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		r.Errorf("%s: %s, want %s", what, g, w)
	}
}
