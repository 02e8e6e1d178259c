package gather_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace"
	_ "github.com/millrace/millrace/driver/embedded"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const queue = "q"

// faulty is a broker that forgets, doubles and mixes up what it is given, as often as
// it is told to.
type faulty struct {
	millrace.Broker
	limit int // bytes of a message; 0: none

	mu        sync.Mutex
	random    *rand.Rand
	forget    float64 // how likely a message is forgotten, and so on
	double    float64
	mix       bool
	published map[string]int // messages by topic
	fail      error          // what Publish returns
	slow      time.Duration  // how long it takes
}

func newFaulty(t testing.TB) *faulty {
	t.Helper()
	b, err := millrace.Open(context.Background(), "mem:")
	if err != nil {
		t.Fatal(err)
	}
	return &faulty{Broker: b, random: rand.New(rand.NewPCG(1, 2)), published: map[string]int{}}
}

func (b *faulty) set(how func(*faulty)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	how(b)
}

// count returns how many messages were published to topics that begin so, but for control
// topics.
func (b *faulty) count(prefix string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for topic, k := range b.published {
		if strings.HasPrefix(topic, prefix) && !strings.HasSuffix(topic, millrace.ControlSuffix) {
			n += k
		}
	}
	return n
}

func (b *faulty) Publish(ctx context.Context, topic string, msgs ...millrace.Message) error {
	b.mu.Lock()
	slow := b.slow
	b.mu.Unlock()
	time.Sleep(slow)
	kept, err := b.spoil(topic, msgs)
	if err != nil || len(kept) == 0 {
		return err
	}
	return b.Broker.Publish(ctx, topic, kept...)
}

func (b *faulty) spoil(topic string, msgs []millrace.Message) ([]millrace.Message, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return nil, b.fail
	}
	var kept []millrace.Message
	for _, m := range msgs {
		if b.limit > 0 && m.Size() > b.limit {
			return nil, millrace.ErrTooLarge
		}
		if strings.HasSuffix(topic, millrace.ControlSuffix) || b.random.Float64() >= b.forget {
			kept = append(kept, m)
		}
		if b.random.Float64() < b.double {
			kept = append(kept, m)
		}
	}
	if b.mix {
		b.random.Shuffle(len(kept), func(i, j int) { kept[i], kept[j] = kept[j], kept[i] })
	}
	b.published[topic] += len(msgs)
	return kept, nil
}

// serve runs a worker until the returned function is called.
func serve(t testing.TB, b millrace.Broker, h worker.Handler, cfg worker.Config) (stop func()) {
	t.Helper()
	w, err := worker.New(b, queue, h, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Serve(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, millrace.ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
	}
}

// newClient makes a client; closing it is the test's.
func newClient(t testing.TB, b millrace.Broker, cfg gather.Config) *gather.Client {
	t.Helper()
	c, err := gather.New(context.Background(), b, queue, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func closeAll(t testing.TB, c *gather.Client, b millrace.Broker, stop func()) {
	t.Helper()
	must(t, c.Close(context.Background()))
	if stop != nil {
		stop()
	}
	must(t, b.Close())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// upper is a handler that works on strings.
var upper = worker.Func(func(_ context.Context, s string) (string, error) { return strings.ToUpper(s), nil })

// texts returns n different inputs.
func texts(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = text(i)
	}
	return all
}

func text(i int) string { return "input " + string(rune('a'+i%26)) + strings.Repeat("x", i%7) }

// stallers is a handler that waits with the inputs that begin with "slow" until they
// are let go.
func staller(release <-chan struct{}) worker.Handler {
	return worker.Func(func(ctx context.Context, s string) (string, error) {
		if strings.HasPrefix(s, "slow") {
			select {
			case <-release:
			case <-ctx.Done():
				return "", context.Cause(ctx)
			}
		}
		return strings.ToUpper(s), nil
	})
}

// canceled returns the ids that were cancelled so far.
func canceled(t testing.TB, b millrace.Broker, tap millrace.Subscription) (ids []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	buf := make([]millrace.Delivery, 100)
	for {
		n, err := tap.Receive(ctx, buf)
		if err != nil {
			slices.Sort(ids)
			return ids
		}
		for _, d := range buf[:n] {
			var c struct{ Op, Cancel string }
			must(t, json.Unmarshal(d.Body, &c))
			if c.Cancel == "" && c.Op != "cancel" {
				continue // said by clients that come
			}
			ids = append(ids, c.Cancel)
		}
	}
}

func tapControl(t testing.TB, b millrace.Broker) millrace.Subscription {
	t.Helper()
	tap, err := b.Subscribe(context.Background(), queue+millrace.ControlSuffix, "tap", millrace.SubscribeOptions{})
	must(t, err)
	return tap
}
