package broker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// waiter receives in the background, one message at a time, without settling any.
type waiter struct {
	*broker.Consumer
	stop context.CancelFunc
	done chan struct{}

	mu  sync.Mutex
	got []millrace.Delivery
	err error
}

func (b bench) waiter(opts millrace.SubscribeOptions) *waiter {
	ctx, cancel := context.WithCancel(b.t.Context())
	w := &waiter{Consumer: b.subscribe("t", "c", opts), stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for {
			var buf [1]millrace.Delivery
			n, err := w.Receive(ctx, buf[:])
			w.mu.Lock()
			w.got = append(w.got, buf[:n]...)
			w.err = err
			w.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	b.t.Cleanup(func() { cancel(); <-w.done })
	synctest.Wait()
	return w
}

// wants compares what the waiter has got by now, in virtual time.
func (w *waiter) wants(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	wantDeliveries(t, w.got, want)
}

func TestAWaitingConsumerIsWokenByWhateverMakesAMessageReady(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		holder := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		b.publish("t", "expires", "nacked", "later", "closed")
		held := receive(t, holder, 4)
		w := b.waiter(millrace.SubscribeOptions{Lease: time.Hour})

		b.publish("t", "new")
		w.wants(t, "new@1")
		if err := holder.Nack(t.Context(), 0, held[1]); err != nil {
			t.Fatal(err)
		}
		w.wants(t, "new@1 nacked@2")
		if err := errors.Join(
			holder.Nack(t.Context(), time.Second, held[2]),
			holder.Extend(t.Context(), held[0]),
		); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.wants(t, "new@1 nacked@2 later@2")
		time.Sleep(lease / 2)
		if err := holder.Extend(t.Context(), held[3]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease/2 - time.Second/2)
		w.wants(t, "new@1 nacked@2 later@2 expires@2")
		if err := holder.Close(); err != nil {
			t.Fatal(err)
		}
		w.wants(t, "new@1 nacked@2 later@2 expires@2 closed@2")
	})
}

func TestPrefetchBoundsWhatAConsumerHoldsAndAnyEndMakesRoom(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		w := b.waiter(millrace.SubscribeOptions{Prefetch: 2, Lease: lease})
		b.publish("t", "a", "b", "c", "d", "e", "f")
		w.wants(t, "a@1 b@1")
		ack(t, w.Consumer, w.got[0])
		w.wants(t, "a@1 b@1 c@1")
		if err := w.Nack(t.Context(), time.Hour, w.got[1]); err != nil {
			t.Fatal(err)
		}
		w.wants(t, "a@1 b@1 c@1 d@1")
		w.SetPrefetch(3)
		w.wants(t, "a@1 b@1 c@1 d@1 e@1")
		w.SetPrefetch(0)
		ack(t, w.Consumer, w.got[2:]...)
		w.wants(t, "a@1 b@1 c@1 d@1 e@1")
		w.SetPrefetch(1)
		w.wants(t, "a@1 b@1 c@1 d@1 e@1 f@1")
		// A lease that ends makes room too, and its message comes back.
		time.Sleep(lease + time.Second)
		w.wants(t, "a@1 b@1 c@1 d@1 e@1 f@1 f@2")
	})
}

func TestAPausedConsumerDoesNotTakeAnothersWakeUp(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		paused := b.waiter(millrace.SubscribeOptions{})
		w := b.waiter(millrace.SubscribeOptions{})
		paused.SetPrefetch(0)
		b.publish("t", "a")
		w.wants(t, "a@1")
		paused.wants(t, "")
	})
}

func TestAConsumerThatDoesNotReceiveDoesNotTakeAnothersWakeUp(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		busy := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 2})
		busy.SetPrefetch(3) // wakes it for nothing when it waits
		got := make(chan []millrace.Delivery)
		go func() { got <- receive(t, busy, 1) }()
		synctest.Wait()
		b.publish("t", "a")
		wantDeliveries(t, <-got, "a@1")

		w := b.waiter(millrace.SubscribeOptions{})
		for _, body := range []string{"b", "c"} {
			b.publish("t", body)
			synctest.Wait()
		}
		w.wants(t, "b@1 c@1")
	})
}

// The one that was woken leaves in the same moment: somebody else gets the message.
func TestAWakeUpThatIsNotUsedIsPassedOn(t *testing.T) {
	for name, leave := range map[string]func(w *waiter){
		"context": func(w *waiter) { w.stop() },
		"close":   func(w *waiter) { _ = w.Close() },
		"pause":   func(w *waiter) { w.SetPrefetch(0) },
	} {
		t.Run(name, func(t *testing.T) {
			inEveryKind(t, func(t *testing.T, b bench) {
				stays := b.waiter(millrace.SubscribeOptions{Prefetch: 10_000})
				for i := range 300 {
					leaves := b.waiter(millrace.SubscribeOptions{Prefetch: 1})
					// Now it waits longest.
					b.publish("t", fmt.Sprint(i))
					synctest.Wait()
					b.publish("t", fmt.Sprint(i, "b"))
					leave(leaves)
					synctest.Wait()
					if d := b.depth("t", "c"); d.Ready > 0 {
						t.Fatalf("round %d: %+v, and a consumer waits for nothing; it has %d", i, d, stays.holds())
					}
					_ = leaves.Close()
				}
			})
		})
	}
}

func (w *waiter) holds() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.got)
}

// Whoever was woken takes one message and is busy with it: the others are woken too.
func TestOneBatchWakesAsManyConsumersAsItHasMessagesFor(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		const n = 5
		var cs []*broker.Consumer
		for range n {
			cs = append(cs, b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 10, Lease: time.Hour}))
		}
		each := func() []millrace.Delivery {
			got := make([]millrace.Delivery, n)
			var wg sync.WaitGroup
			for i, c := range cs {
				wg.Go(func() { got[i] = receive(t, c, 1)[0] })
			}
			synctest.Wait()
			b.publish("t", numbers(0, n)...)
			wg.Wait()
			return got
		}
		wantDeliveries(t, each(), "0@1 1@1 2@1 3@1 4@1")
		for i, d := range each() { // and what is given back
			if err := cs[i].Nack(t.Context(), time.Second, d); err != nil {
				t.Error(err)
			}
		}
		var wg sync.WaitGroup
		for _, c := range cs {
			wg.Go(func() { receive(t, c, 1) })
		}
		wg.Wait()
	})
}

func TestCompetingConsumersGetEachMessageOnce(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		b := open(t, broker.Options{Dir: dir, Sync: broker.SyncNever})
		const consumers, publishers, each = 8, 4, 2000
		var mu sync.Mutex
		seen := make(map[string]int)
		all := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		for i := range consumers {
			c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1 + i*10})
			wg.Go(func() {
				buf := make([]millrace.Delivery, 1+i*7)
				for {
					n, err := c.Receive(ctx, buf)
					if err != nil {
						return
					}
					mu.Lock()
					for _, d := range buf[:n] {
						if seen[string(d.Body)]++; d.Attempt != 1 {
							t.Errorf("%s", describe(buf[:n]))
						}
					}
					if len(seen) == publishers*each {
						close(all)
					}
					mu.Unlock()
					ack(t, c, buf[:n]...)
				}
			})
		}
		for p := range publishers {
			wg.Go(func() {
				for i := 0; i < each; i += 20 {
					b.publish("t", numbers(p*each+i, p*each+i+20)...)
				}
			})
		}
		select {
		case <-all:
		case <-time.After(20 * time.Second):
			t.Errorf("only %d of %d messages came, depth %+v", len(seen), publishers*each, b.depth("t", "c"))
		}
		cancel()
		wg.Wait()
		for body, n := range seen {
			if n != 1 {
				t.Errorf("message %s came %d times", body, n)
			}
		}
		if d := b.depth("t", "c"); d != (millrace.Depth{}) {
			t.Errorf("%+v", d)
		}
	}
}

func TestOneBatchHoldsRedeliveriesAndNewMessages(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "a", "b")
		if err := c.Nack(t.Context(), 0, receive(t, c, 2)...); err != nil {
			t.Fatal(err)
		}
		b.publish("t", "c")
		buf := make([]millrace.Delivery, 10)
		n, err := c.Receive(t.Context(), buf)
		if err != nil || describe(buf[:n]) != "a@2 b@2 c@1" {
			t.Errorf("%s, %v", describe(buf[:n]), err)
		}
	})
}
