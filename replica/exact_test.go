package replica_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/fanin"
	"github.com/millrace/millrace/mpmc"
	"github.com/millrace/millrace/replica"
	"github.com/millrace/millrace/supervise"
)

// plan is what a handler does with one message.
type plan struct {
	Before string // "", "sleep", "panic", "error", "hang"
	Sink   string // "ok", "refuse", "slow", "slow and deaf", "slow, deaf and refuses", "panic"
	After  string // "", "panic", "error", "hang", "emit again"
	Pause  time.Duration
	Block  time.Duration
}

var plans = rapid.Custom(func(rt *rapid.T) plan {
	return plan{
		Before: rapid.SampledFrom([]string{"", "", "", "sleep", "sleep", "panic", "error", "hang"}).Draw(rt, "before"),
		Sink:   rapid.SampledFrom([]string{"ok", "ok", "refuse", "slow", "slow and deaf", "slow, deaf and refuses", "panic"}).Draw(rt, "sink"),
		After:  rapid.SampledFrom([]string{"", "", "panic", "error", "hang", "emit again"}).Draw(rt, "after"),
		Pause:  time.Duration(rapid.IntRange(0, 12).Draw(rt, "pause")),
		Block:  time.Duration(rapid.IntRange(0, 30).Draw(rt, "block")),
	}
})

// outcome counts what became of each message.
type outcome struct {
	delivered, again, lost, failed []atomic.Int32
	release                        chan struct{} // those who hang
}

func newOutcome(n int) *outcome {
	return &outcome{
		delivered: make([]atomic.Int32, n), again: make([]atomic.Int32, n),
		lost: make([]atomic.Int32, n), failed: make([]atomic.Int32, n),
		release: make(chan struct{}),
	}
}

// run runs the plan for a message.
func (o *outcome) run(ctx context.Context, msg int, p plan) error {
	switch p.Before {
	case "sleep":
		time.Sleep(p.Pause)
	case "panic":
		panic("before")
	case "error":
		return errBroken
	case "hang":
		<-o.release
	}
	sink := func(ctx context.Context, msg int) error {
		switch p.Sink {
		case "refuse":
			return errBroken
		case "slow":
			select {
			case <-time.After(p.Block):
			case <-ctx.Done():
				return ctx.Err()
			}
		case "slow and deaf":
			time.Sleep(p.Block)
		case "slow, deaf and refuses":
			time.Sleep(p.Block)
			return errBroken
		case "panic":
			panic("in the sink")
		}
		o.delivered[msg].Add(1)
		return nil
	}
	err := replica.Emit(ctx, msg, sink)
	switch p.After {
	case "panic":
		panic("after")
	case "error":
		return errBroken
	case "hang":
		<-o.release
	case "emit again":
		_ = replica.Emit(ctx, msg, func(context.Context, int) error { o.again[msg].Add(1); return nil })
		return nil
	}
	return err
}

// check says what is wrong: each message that was received has its value
// delivered or is lost or failed, never both and never neither, and once.
func (o *outcome) check(received int) error {
	ends := 0
	for i := range o.delivered {
		delivered, again := o.delivered[i].Load(), o.again[i].Load()
		lost, failed := o.lost[i].Load(), o.failed[i].Load()
		settled := min(1, delivered+again) + lost + failed
		if settled > 1 || delivered > 1 || again > 1 {
			return fmt.Errorf("message %d: delivered %d, then %d, lost %d, failed %d times", i, delivered, again, lost, failed)
		}
		ends += int(settled)
	}
	if ends != received {
		return fmt.Errorf("%d messages were received, %d came to an end", received, ends)
	}
	return nil
}

// Handlers and sinks do whatever they like, at any moment relative to the TTL,
// the grace, scaling, shutdown and its deadline.
func TestAMessageIsDeliveredOrLostNeverBothNeverNeither(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		all := rapid.SliceOfN(plans, 1, 12).Draw(rt, "plans")
		ttl := time.Duration(rapid.IntRange(0, 10).Draw(rt, "ttl"))
		grace := time.Duration(rapid.IntRange(1, 10).Draw(rt, "grace"))
		replicas := rapid.IntRange(0, 4).Draw(rt, "replicas")
		scale := rapid.IntRange(0, 4).Draw(rt, "scale")
		scaleAt := time.Duration(rapid.IntRange(0, 40).Draw(rt, "scale at"))
		stopAt := time.Duration(rapid.IntRange(0, 80).Draw(rt, "stop at"))
		patience := time.Duration(rapid.IntRange(0, 20).Draw(rt, "patience"))
		abrupt := rapid.Bool().Draw(rt, "abrupt")
		backoff := time.Duration(rapid.IntRange(-1, 3).Draw(rt, "backoff"))

		synctest.Test(t, func(*testing.T) {
			o := newOutcome(len(all))
			queue := mpmc.NewUnbounded[int]()
			for i := range all {
				_ = queue.TrySend(i)
			}
			var invoked atomic.Int32
			s := replica.New(queue, func(ctx context.Context, msg int) error {
				invoked.Add(1)
				return o.run(ctx, msg, all[msg])
			}, replica.Config[int]{
				Replicas: replicas,
				Lost:     func(msg int, _ error) { o.lost[msg].Add(1) },
				Failed:   func(msg int, _ error) { o.failed[msg].Add(1) },
				Supervise: supervise.Config{
					TTL: ttl, Grace: grace, MaxAbandoned: 100,
					Backoff: supervise.Backoff{First: backoff, Max: 5}, Intensity: supervise.Intensity{Max: 100},
				},
			})
			ctx, end := context.WithCancel(context.Background())
			defer end()
			served := make(chan error, 1)
			go func() { served <- s.Serve(ctx) }()
			go func() {
				time.Sleep(scaleAt)
				_ = s.Scale(ctx, scale)
			}()
			time.Sleep(stopAt)
			if abrupt {
				end()
			} else {
				patient, cancel := context.WithTimeout(context.Background(), patience)
				_ = s.Shutdown(patient)
				cancel()
			}
			rt.Logf("served: %v", <-served)
			close(o.release)
			time.Sleep(time.Second) // what was abandoned returns, late emissions end
			synctest.Wait()
			if err := o.check(len(all) - queue.Len()); err != nil {
				rt.Error(err)
			}
			if n := len(s.Abandoned()); n != 0 {
				rt.Errorf("all goroutines have returned, %d are abandoned", n)
			}
		})
	})
}

// The same under real time and on all processors: the fence of a TTL that is
// about as long as the handlers take falls in the middle of everything. The
// values go through a fan-in, as a worker's results do.
func TestDeliveredOrLostUnderLoad(t *testing.T) {
	const messages = 4000
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	o := newOutcome(messages)
	queue := mpmc.New[int](16)
	merger := fanin.New(fanin.Config[int]{Buffer: 4, Undelivered: func(vs []int) {
		for _, v := range vs {
			o.delivered[v].Add(1)
		}
	}})
	emit := merger.Emit
	handler := func(ctx context.Context, msg int) error {
		random := rand.New(rand.NewPCG(seed, uint64(msg)))
		begin := time.Now()
		for time.Since(begin) < time.Duration(random.IntN(150))*time.Microsecond {
			if random.IntN(3) == 0 {
				supervise.Beat(ctx)
			}
		}
		switch random.IntN(50) {
		case 0:
			panic("before")
		case 1:
			return errBroken
		case 2:
			<-ctx.Done()
		}
		err := replica.Emit(ctx, msg, emit)
		if random.IntN(50) == 0 {
			panic("after")
		}
		return err
	}
	s := replica.New(queue, handler, replica.Config[int]{
		Replicas: 4,
		Lost:     func(msg int, _ error) { o.lost[msg].Add(1) },
		Failed:   func(msg int, _ error) { o.failed[msg].Add(1) },
		Supervise: supervise.Config{
			TTL: 100 * time.Microsecond, Grace: 50 * time.Microsecond, MaxAbandoned: 1 << 20,
			Backoff: supervise.Backoff{First: -1, Max: 1}, Intensity: supervise.Intensity{Max: 1 << 30},
		},
	})
	if _, err := merger.Add("replicas", func(ctx context.Context, _ fanin.Emit[int]) error { return s.Serve(ctx) }); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	served := make(chan error, 1)
	go func() { served <- merger.Serve(ctx) }()

	var others sync.WaitGroup
	others.Go(func() {
		for v := range merger.All(t.Context()) {
			o.delivered[v].Add(1)
		}
	})
	done := make(chan struct{})
	others.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				_ = s.Scale(ctx, 1+n%6)
			}
		}
	})
	for i := range messages {
		if err := queue.Send(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	merger.Stop() // in the middle of the last ones
	if err := <-served; err != nil {
		var left *supervise.AbandonedError
		if !errors.As(err, &left) {
			t.Error(err)
		}
	}
	others.Wait()
	for len(s.Abandoned()) > 0 {
		time.Sleep(time.Millisecond)
	}
	if err := o.check(messages - queue.Len()); err != nil {
		t.Error(err)
	}
	t.Logf("counts %+v", s.Counts())
}

func TestEmitWithoutAReplicaCallsTheSink(t *testing.T) {
	got := 0
	sink := func(_ context.Context, v int) error { got = v; return errBroken }
	if err := replica.Emit(t.Context(), 7, sink); !errors.Is(err, errBroken) || got != 7 {
		t.Errorf("Emit: %v, %d", err, got)
	}
}

// A handler that leaves goroutines behind breaks the rule; its message still has
// one end, decided by the emission under way.
func TestAnEmissionThatTheHandlerLeftBehindDecidesTheEnd(t *testing.T) {
	for name, refusal := range map[string]error{"delivered": nil, "refused": errBroken} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var lost record
				handler := func(ctx context.Context, msg int) error {
					begun := make(chan struct{})
					go func() {
						_ = replica.Emit(ctx, msg, func(context.Context, int) error {
							close(begun)
							time.Sleep(time.Minute)
							return refusal
						})
					}()
					<-begun
					return nil
				}
				f := newFixture(t, handler, replica.Config[int]{
					Replicas: 1, Lost: lost.fail, Supervise: supervise.Config{TTL: time.Second},
				})
				f.send(0, 1)
				f.want(1, 1, 0)
				time.Sleep(time.Minute)
				f.want(1, 0, 0)
				if (len(lost.msgs) == 1) != (refusal != nil) {
					t.Errorf("lost %v", &lost)
				}
				if c := f.Counts(); c.Handled+c.Lost != 1 {
					t.Errorf("counts %+v", c)
				}
				_ = f.shutdown()
			})
		})
	}
}

// An emission that is under way when its replica is abandoned decides the end
// when it ends, though the handler may never return.
func TestAnAbandonedEmissionDecidesTheEnd(t *testing.T) {
	for name, refusal := range map[string]error{"delivered": nil, "refused": errBroken} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var lost record
				emission, handler := make(chan struct{}), make(chan struct{})
				handle := func(ctx context.Context, msg int) error {
					_ = replica.Emit(ctx, msg, func(context.Context, int) error { <-emission; return refusal })
					<-handler
					return nil
				}
				f := newFixture(t, handle, replica.Config[int]{
					Replicas: 1, Lost: lost.fail, Supervise: supervise.Config{Grace: time.Second},
				})
				f.send(0, 1)
				f.end(errBroken)
				var left *supervise.AbandonedError
				if err := <-f.serve; !errors.As(err, &left) {
					t.Errorf("Serve returned %v", err)
				}
				if len(f.Abandoned()) != 1 || len(lost.msgs) != 0 {
					t.Errorf("%d abandoned, lost %v, before the emission has ended", len(f.Abandoned()), &lost)
				}
				close(emission)
				synctest.Wait()
				if (len(lost.msgs) == 1) != (refusal != nil) {
					t.Errorf("lost %v when the emission had ended", &lost)
				}
				close(handler)
				synctest.Wait()
				if len(lost.msgs) > 1 {
					t.Errorf("lost %v when the handler had returned", &lost)
				}
			})
		})
	}
}
