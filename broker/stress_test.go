package broker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// Topics and channels, durable and ephemeral, come and go under their publishers and
// consumers. Nobody gets another error than that what he used was closed, nobody hangs,
// and a topic beside them that nobody deletes loses nothing.
func TestTopicsAndChannelsComeAndGoUnderTheirUsers(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		b := open(t, broker.Options{Dir: dir, Sync: broker.SyncNever, Logger: quiet()}.WithSegments(2000))
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		var deliveries, deletions atomic.Int64
		topics := []string{"x", "y", "z" + millrace.EphemeralSuffix}
		channels := []string{"c", "d", "e" + millrace.EphemeralSuffix}
		busy := func(seed uint64, do func(r *rand.Rand, topic, channel string) error) {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, 1))
				for ctx.Err() == nil {
					err := do(r, topics[r.IntN(3)], channels[r.IntN(3)])
					if err != nil && !errors.Is(err, millrace.ErrClosed) && ctx.Err() == nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for i := range uint64(3) {
			busy(i, func(r *rand.Rand, topic, _ string) error {
				return b.Publish(topic, messages(numbers(0, 1+r.IntN(20))...))
			})
			busy(i+10, func(r *rand.Rand, topic, channel string) error {
				c, err := b.Subscribe(topic, channel, millrace.SubscribeOptions{Prefetch: 1 + r.IntN(30), Lease: 5 * time.Millisecond})
				if err != nil {
					return err
				}
				defer c.Close()
				short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
				defer cancel()
				buf := make([]millrace.Delivery, 10)
				for {
					n, err := c.Receive(short, buf)
					if err != nil {
						return nil
					}
					deliveries.Add(int64(n))
					_ = c.Nack(ctx, time.Millisecond, buf[:n/4]...)
					_ = c.Ack(ctx, buf[n/4:n]...)
				}
			})
		}
		busy(20, func(r *rand.Rand, topic, channel string) error {
			time.Sleep(time.Millisecond)
			deletions.Add(1)
			if r.IntN(3) == 0 {
				return b.DeleteTopic(topic)
			}
			return b.DeleteChannel(topic, channel)
		})
		busy(30, func(_ *rand.Rand, topic, channel string) error {
			time.Sleep(time.Millisecond)
			if _, err := b.Depth(topic, channel); err != nil && !errors.Is(err, millrace.ErrNotFound) {
				return err
			}
			for _, topic := range b.Topics() {
				topic.Depth()
			}
			return nil
		})

		steady := b.subscribe("steady", "c", millrace.SubscribeOptions{})
		var sent atomic.Int64
		sentAll := make(chan struct{})
		wg.Go(func() {
			defer close(sentAll)
			for ctx.Err() == nil {
				b.publish("steady", fmt.Sprint(sent.Load()))
				sent.Add(1)
			}
		})
		seen := map[string]bool{}
		wg.Go(func() {
			buf := make([]millrace.Delivery, 100)
			for start := time.Now(); time.Since(start) < 10*time.Second; {
				short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
				n, err := steady.Receive(short, buf)
				cancel()
				for _, d := range buf[:n] {
					seen[string(d.Body)] = true
				}
				ack(t, steady, buf[:n]...)
				if err != nil && isClosed(sentAll) && int64(len(seen)) == sent.Load() {
					return
				}
			}
		})
		wg.Wait()
		if int64(len(seen)) != sent.Load() || deliveries.Load() == 0 || deletions.Load() == 0 {
			t.Errorf("%d of %d, %d deliveries, %d deletions", len(seen), sent.Load(), deliveries.Load(), deletions.Load())
		}
		t.Logf("%d steady, %d deliveries, %d deletions", len(seen), deliveries.Load(), deletions.Load())
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Close comes at any moment of everything else, and everything ends.
func TestCloseEndsEverythingAtAnyMoment(t *testing.T) {
	for round := range 20 {
		opts := broker.Options{Sync: broker.SyncNever, Logger: quiet()}
		if round%2 == 1 {
			opts.Dir = t.TempDir()
		}
		b, err := broker.Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		closed := func(err error) bool {
			if err != nil && !errors.Is(err, millrace.ErrClosed) {
				t.Error(err)
			}
			return err != nil
		}
		for i := range 3 {
			wg.Go(func() {
				for n := 0; !closed(b.Publish(fmt.Sprint("t", n%5), messages("a", "b"))); n++ {
				}
			})
			wg.Go(func() {
				for {
					c, err := b.Subscribe(fmt.Sprint("t", i), "c", millrace.SubscribeOptions{Lease: time.Millisecond})
					if closed(err) {
						return
					}
					buf := make([]millrace.Delivery, 3)
					for range 10 {
						if _, err := c.Receive(context.Background(), buf); closed(err) {
							break
						}
					}
					_ = c.Close()
				}
			})
			wg.Go(func() {
				for !closed(b.DeleteTopic(fmt.Sprint("t", 3+i))) {
				}
			})
		}
		time.Sleep(time.Duration(round) * time.Millisecond / 4)
		for range 2 {
			wg.Go(func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}
