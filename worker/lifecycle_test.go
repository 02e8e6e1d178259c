package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/replica"
	"github.com/millrace/millrace/worker"
)

func TestDrainFinishesWhatRunsAndGivesBackWhatWaits(t *testing.T) {
	var began atomic.Int64
	inBubble(t, waiting(&began), worker.Config{Replicas: 2, Prefetch: 3}, func(r *rig) {
		r.ask("a", "b", "c", "d", "e", "f")
		synctest.Wait()
		drained := make(chan error, 1)
		go func() { drained <- r.worker.Drain(context.Background()) }()
		synctest.Wait()
		r.equal("in the queue while it finishes", r.depth(), millrace.Depth{Ready: 4, InFlight: 2})
		if err := <-drained; err != nil {
			t.Error(err)
		}
		if err := <-r.served; err != nil {
			t.Error(err)
		}
		r.served <- nil
		r.equal("answers", len(r.answers(time.Second)), 2)
		r.equal("runs", began.Load(), 2)
		r.equal("left in the queue", r.depth(), millrace.Depth{Ready: 4})
		r.equal("drained again", r.worker.Drain(context.Background()), worker.ErrNotServing)
		r.equal("served again", r.worker.Serve(context.Background()), worker.ErrServing)
	})
}

func TestDrainIsBoundedByItsContext(t *testing.T) {
	var began atomic.Int64
	inBubble(t, waiting(&began), worker.Config{Replicas: 2}, func(r *rig) {
		r.ask("a", "b", "c")
		synctest.Wait() // until they run
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		start := time.Now()
		r.equal("Drain", r.worker.Drain(ctx), context.DeadlineExceeded)
		r.equal("took", time.Since(start), time.Minute)
		r.equal("Serve", <-r.served, context.DeadlineExceeded)
		r.served <- nil
		r.equal("given back", r.depth(), millrace.Depth{Ready: 3})
		r.equal("answers", len(r.answers(time.Second)), 0)
	})
}

func TestAWorkerThatMustStopGivesItsTasksBackAtOnce(t *testing.T) {
	causes := make(chan error, 10)
	synctest.Test(t, func(t *testing.T) {
		causes = make(chan error, 10)
		r := newRig(t)
		r.serve(worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			if string(t.Payload) == "done" {
				return t.Payload, nil // it was just finished
			}
			return nil, ctx.Err()
		}), worker.Config{Replicas: 2, Prefetch: 10})
		r.ask("a", "done", "b", "c")
		synctest.Wait()
		start := time.Now()
		r.stop()
		if err := <-r.served; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve returned %v", err)
		}
		if took := time.Since(start); took > 10*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		r.equal("answers", r.answers(time.Second), "[job-1 done]")
		r.equal("given back", r.depth(), millrace.Depth{Ready: 3})
		r.equal("dead letters", len(r.deadLetters()), 0)
		r.equal("attempts that counted", r.saw(worker.TaskRetried), 0)
		for range 2 {
			if err := <-causes; !errors.Is(err, worker.ErrStopped) {
				t.Errorf("a handler's context ended with %v", err)
			}
		}
		r.broker.Close()
	})
}

func TestTheEndOfTheBrokerEndsTheWorker(t *testing.T) {
	var began atomic.Int64
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.serve(waiting(&began), worker.Config{Replicas: 2})
		r.ask("a", "b", "c")
		synctest.Wait()
		r.broker.Close()
		if err := <-r.served; !errors.Is(err, millrace.ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
}

// askInVain asks the worker, whose broker from now on refuses to publish results, and gives it
// time to notice.
func (r *rig) askInVain(tasks ...string) {
	r.broker.set(func(b *tapped) {
		b.refuse = func(call string) error {
			if strings.HasPrefix(call, "publish") {
				return millrace.ErrNoSpace
			}
			return nil
		}
	})
	r.ask(tasks...)
	time.Sleep(time.Minute)
}

func TestABrokerThatRefusesForeverDoesNotKeepAWorkerFromStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.serve(shout, worker.Config{Replicas: 2, Grace: 3 * time.Second})
		r.askInVain("a", "b", "c")
		start := time.Now()
		r.stop()
		if err := <-r.served; err == nil {
			t.Error("Serve returned no error")
		}
		r.equal("took", time.Since(start), 3*time.Second)
		r.equal("given back", r.depth(), millrace.Depth{Ready: 3})
		r.broker.Close()
	})
}

// Nor one that drains: what Drain was given bounds the wait for results too.
func TestABrokerThatRefusesForeverDoesNotKeepAWorkerFromDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.serve(shout, worker.Config{Replicas: 2, Grace: 3 * time.Second})
		r.askInVain("a", "b", "c")
		start := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		r.equal("Drain", errors.Is(r.worker.Drain(ctx), context.DeadlineExceeded), true)
		r.equal("took", time.Since(start), 13*time.Second)
		if err := <-r.served; err == nil {
			t.Error("Serve returned no error")
		}
		r.equal("given back", r.depth(), millrace.Depth{Ready: 3})
		r.stop()
		r.broker.Close()
	})
}

func TestScaleUpAndDownAndToNothing(t *testing.T) {
	var began atomic.Int64
	inBubble(t, waiting(&began), worker.Config{Replicas: 1}, func(r *rig) {
		var payloads []string
		for i := range 20 {
			payloads = append(payloads, fmt.Sprint(i))
		}
		r.ask(payloads...)
		synctest.Wait()
		r.equal("running with one replica", began.Load(), 1)

		must(t, r.worker.Scale(r.Context(), 5))
		synctest.Wait()
		r.equal("running with five", began.Load(), 5)
		r.equal("busy", r.worker.Status().Busy, 5)

		scaled := make(chan error, 1)
		go func() { scaled <- r.worker.Scale(r.Context(), 2) }()
		synctest.Wait()
		r.equal("held while three finish", r.broker.prefetch(), 2)
		must(t, <-scaled)
		r.equal("replicas", len(r.worker.Status().Replicas), 2)

		must(t, r.worker.Retire(r.Context()))
		must(t, r.worker.Scale(r.Context(), 0))
		before := began.Load()
		r.answers(10 * time.Hour)
		r.equal("begun without a replica", began.Load(), before)
		r.equal("in the broker, for others", r.depth(), millrace.Depth{Ready: 20 - before})
		if err := r.worker.Retire(r.Context()); !errors.Is(err, replica.ErrNoReplica) {
			t.Errorf("retired none: %v", err)
		}

		must(t, r.worker.Scale(r.Context(), 20))
		r.answers(2 * time.Hour)
		r.equal("left in the queue", r.depth(), millrace.Depth{})
	})
}

func TestAWorkerOfLongTasksHoldsNoneThatAnotherCouldRun(t *testing.T) {
	for _, cfg := range []worker.Config{{Replicas: 3}, {Replicas: 3, Prefetch: worker.NoPrefetch}} {
		var began atomic.Int64
		inBubble(t, waiting(&began), cfg, func(r *rig) {
			for range 20 {
				r.ask("a")
			}
			for range 5 {
				time.Sleep(time.Minute)
				r.equal("held", r.depth().InFlight, 3)
				time.Sleep(time.Hour)
			}
		})
	}
}

// Otherwise a free replica would wait for the disk after each task.
func TestAReplicaNeedNotWaitUntilItsLastResultIsSafe(t *testing.T) {
	for _, prefetch := range []int{0, worker.NoPrefetch} {
		var ran atomic.Int64
		h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
			time.Sleep(10 * time.Millisecond)
			ran.Add(1)
			return t.Payload, nil
		})
		inBubble(t, h, worker.Config{Replicas: 1, Prefetch: prefetch}, func(r *rig) {
			r.broker.set(func(b *tapped) {
				b.refuse = func(call string) error {
					if strings.HasPrefix(call, "publish") {
						time.Sleep(100 * time.Millisecond) // a slow disk
					}
					return nil
				}
			})
			for range 500 {
				r.ask("a")
			}
			time.Sleep(5 * time.Second)
			if n := ran.Load(); n < 450 {
				t.Errorf("prefetch %d: %d tasks of 10ms were run in 5s", prefetch, n)
			}
			r.answers(time.Minute)
		})
	}
}

func TestAHandlerSaysThatItWantsNoPrefetch(t *testing.T) {
	for _, h := range []worker.Handler{command{shout}, shout} {
		inBubble(t, h, worker.Config{Replicas: 2}, func(r *rig) {
			for range 200 { // 2000 tasks a second
				for range 20 {
					r.ask("a")
				}
				time.Sleep(10 * time.Millisecond)
			}
			_, none := h.(command)
			if got := r.broker.prefetch(); none != (got == 2) || got < 2 {
				t.Errorf("%T: it holds %d", h, got)
			}
		})
	}
}

type command struct{ worker.Handler }

func (command) Prefetch() bool { return false }

func TestMiddlewareIsAroundTheHandlerTheFirstOutermost(t *testing.T) {
	wrap := func(name string) worker.Middleware {
		return func(next worker.Handler) worker.Handler {
			return worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
				b, err := next.Handle(ctx, t)
				return fmt.Appendf(nil, "%s(%s)", name, b), err
			})
		}
	}
	inBubble(t, shout, worker.Config{Middleware: []worker.Middleware{wrap("a"), wrap("b")}}, func(r *rig) {
		r.ask("x")
		r.equal("answers", r.answers(time.Second), "[job-0 a(b(x!))]")
	})
}

func TestABadQueueIsRefused(t *testing.T) {
	for _, name := range []string{"", "a b", "q#ephemeral", strings.Repeat("q", 60)} {
		if _, err := worker.New(nil, name, shout, worker.Config{}); !errors.Is(err, millrace.ErrBadName) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestNothingCanBeAskedOfAWorkerThatDoesNotServe(t *testing.T) {
	w, err := worker.New(nil, queue, shout, worker.Config{})
	must(t, err)
	for _, err := range []error{w.Drain(t.Context()), w.Scale(t.Context(), 1), w.Retire(t.Context())} {
		if !errors.Is(err, worker.ErrNotServing) {
			t.Error(err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
