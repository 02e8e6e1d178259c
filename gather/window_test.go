package gather_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

func TestNoMoreThanTheWindowIsUnderWay(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		for _, window := range []int{1, 2, 7, 64, 1000} {
			synctest.Test(t, func(t *testing.T) {
				b := newFaulty(t)
				stop := serve(t, b, upper, worker.Config{})
				c := newClient(t, b, gather.Config{Window: window})
				var taken atomic.Int64
				loop := gather.Map[string, string]
				if ordered {
					loop = gather.MapOrdered[string, string]
				}
				read := 0
				for _, err := range loop(t.Context(), c, func(yield func(string) bool) {
					for i := range 3000 {
						if taken.Add(1); !yield(text(i)) {
							return
						}
					}
				}) {
					must(t, err)
					if read++; read%500 == 0 {
						synctest.Wait() // a slow reader: everything that can go ahead does
					}
					// One more is in the hands of the iterator; results are paid for in batches.
					if ahead := int(taken.Load()) - read; ahead > window+1 {
						t.Fatalf("%d requests are under way, the window is %d", ahead, window)
					}
				}
				if read != 3000 {
					t.Errorf("%d results", read)
				}
				closeAll(t, c, b, stop)
			})
		}
	}
}

func TestTheWindowIsBoundedInBytes(t *testing.T) {
	for name, sizes := range map[string][2]int{"inputs": {1000, 1}, "large inputs": {10_000, 1}, "results": {1, 1000}} {
		synctest.Test(t, func(t *testing.T) {
			b := newFaulty(t)
			h := worker.HandlerFunc(func(context.Context, *worker.Task) ([]byte, error) { return make([]byte, sizes[1]), nil })
			stop := serve(t, b, h, worker.Config{})
			c := newClient(t, b, gather.Config{WindowBytes: 100_000})
			var taken atomic.Int64
			read, most := 0, 0
			for _, err := range gather.Map[[]byte](t.Context(), c, func(yield func([]byte) bool) {
				for range 3000 {
					if taken.Add(1); !yield(make([]byte, sizes[0])) {
						return
					}
				}
			}) {
				must(t, err)
				read++
				synctest.Wait()
				most = max(most, int(taken.Load())-read)
			}
			if bytes := most * max(sizes[0], sizes[1]); read != 3000 || bytes > 120_000 || bytes < 60_000 {
				t.Errorf("%s: %d results, at the most %d bytes were under way at the same time", name, read, bytes)
			}
			closeAll(t, c, b, stop)
		})
	}
}

// A message larger than the whole window must not wait forever.
func TestOneRequestIsAlwaysAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		stop := serve(t, b, upper, worker.Config{})
		c := newClient(t, b, gather.Config{WindowBytes: 10})
		n := 0
		for _, err := range gather.Map[string](t.Context(), c, slices.Values([]string{strings.Repeat("x", 100), "a", strings.Repeat("y", 100)})) {
			must(t, err)
			n++
		}
		if n != 3 {
			t.Errorf("%d results", n)
		}
		closeAll(t, c, b, stop)
	})
}

func TestOneSlowTaskDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		release := make(chan struct{})
		stop := serve(t, b, staller(release), worker.Config{Replicas: 5})
		c := newClient(t, b, gather.Config{Window: 100})
		inputs := append([]string{"slow 1", "a", "slow 2", "slow 3"}, texts(5000)...)
		n := 0
		for r, err := range gather.Map[string](t.Context(), c, slices.Values(inputs)) {
			must(t, err)
			if r.Value != strings.ToUpper(inputs[r.Index]) || string(r.Input) != inputs[r.Index] {
				t.Fatalf("%+v", r)
			}
			if n++; n == len(inputs)-3 {
				close(release)
			}
		}
		if n != len(inputs) {
			t.Errorf("%d results", n)
		}
		closeAll(t, c, b, stop)
	})
}

func TestASlowReaderDoesNotHoldUpTheOtherJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		stop := serve(t, b, upper, worker.Config{})
		c := newClient(t, b, gather.Config{Window: 10})
		n := 0
		for _, err := range gather.Map[string](t.Context(), c, slices.Values(texts(50))) {
			must(t, err)
			for _, err := range gather.Map[string](t.Context(), c, slices.Values(texts(50))) {
				must(t, err)
				n++
			}
			if _, err := gather.Call[string](t.Context(), c, "a"); err != nil {
				t.Fatal(err)
			}
		}
		if n != 2500 {
			t.Errorf("%d results", n)
		}
		closeAll(t, c, b, stop)
	})
}

func TestCallsWaitForRoomToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		c := newClient(t, b, gather.Config{Window: 3})
		var pending []*gather.Pending[string]
		for range 3 {
			p, err := gather.Submit[string](t.Context(), c, "a")
			must(t, err)
			pending = append(pending, p)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := gather.Submit[string](ctx, c, "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		pending[1].Cancel()
		if _, err := gather.Submit[string](t.Context(), c, "b"); err != nil {
			t.Error(err)
		}
		closeAll(t, c, b, nil)
	})
}

func TestRequestsThatTheBrokerForgotAreSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		b.forget = 0.3
		stop := serve(t, b, upper, worker.Config{})
		c := newClient(t, b, gather.Config{})
		inputs := texts(300)
		n := 0
		for r, err := range gather.Map[string](t.Context(), c, slices.Values(inputs)) {
			must(t, err)
			if r.Value != strings.ToUpper(inputs[r.Index]) {
				t.Error(r)
			}
			n++
		}
		if out, err := gather.Call[string](t.Context(), c, "call"); err != nil || out != "CALL" {
			t.Error(out, err)
		}
		if n != len(inputs) || c.Stats().Resent == 0 {
			t.Errorf("%d results, %+v", n, c.Stats())
		}
		b.set(func(b *faulty) { b.forget = 0 })
		closeAll(t, c, b, stop)
	})
}

// A task may rightly take a day; it must not run twice because of that.
func TestRequestsThatTheBrokerHasAreNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		h := worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
			select {
			case <-time.After(24 * time.Hour):
			case <-ctx.Done():
			}
			return t.Payload, nil
		})
		stop := serve(t, b, h, worker.Config{Replicas: 2})
		c := newClient(t, b, gather.Config{Window: 4})
		n := 0
		for _, err := range gather.Map[string](t.Context(), c, slices.Values(texts(10))) {
			must(t, err)
			n++
			time.Sleep(time.Hour) // a slow reader does not change that
		}
		if n != 10 || c.Stats().Resent != 0 || b.count(queue) != 10 {
			t.Errorf("%d results, %+v, %d requests were published", n, c.Stats(), b.count(queue))
		}
		closeAll(t, c, b, stop)
	})
}

func TestARequestThatIsStillBeingPublishedIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		b.slow = 5 * time.Minute
		stop := serve(t, b, upper, worker.Config{})
		c := newClient(t, b, gather.Config{})
		if _, err := gather.Call[string](t.Context(), c, "a"); err != nil || c.Stats().Resent != 0 {
			t.Error(err, c.Stats())
		}
		b.set(func(b *faulty) { b.slow = 0 })
		closeAll(t, c, b, stop)
	})
}

func TestARetryThatWaitsIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
			if t.Attempt == 1 {
				return nil, worker.RetryAfter(fmt.Errorf("busy"), time.Hour)
			}
			return t.Payload, nil
		})
		stop := serve(t, b, h, worker.Config{})
		c := newClient(t, b, gather.Config{})
		if _, err := gather.Call[string](t.Context(), c, "a"); err != nil || c.Stats().Resent != 0 {
			t.Error(err, c.Stats())
		}
		closeAll(t, c, b, stop)
	})
}

func TestAnOverdueRequestIsSentAgainLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		c := newClient(t, b, gather.Config{Resend: time.Minute})
		p, err := gather.Submit[string](t.Context(), c, "a")
		must(t, err)
		var at []time.Duration
		start, sent := time.Now(), 1
		for time.Since(start) < 2*time.Hour {
			time.Sleep(time.Second)
			if n := b.count(queue); n > sent {
				at, sent = append(at, time.Since(start).Round(time.Minute)), n
			}
		}
		if want := []time.Duration{1, 3, 7, 15, 31, 63}; len(at) != len(want) {
			t.Errorf("sent again after %v", at)
		} else {
			for i := range at {
				if low, high := want[i]*time.Minute, want[i]*time.Minute*5/4+time.Minute; at[i] < low || at[i] > high {
					t.Errorf("sent again after %v, want about %v", at[i], low)
				}
			}
		}
		stop := serve(t, b, upper, worker.Config{})
		if out, err := p.Wait(t.Context()); out != "A" || err != nil {
			t.Error(out, err)
		}
		synctest.Wait()
		if s := c.Stats(); s.Answered != 1 || s.Submitted != 1 {
			t.Errorf("%+v", s)
		}
		closeAll(t, c, b, stop)
	})
}

func TestAQueueThatIsGoneIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		c := newClient(t, b, gather.Config{})
		p, err := gather.Submit[string](t.Context(), c, "a")
		must(t, err)
		synctest.Wait()
		must(t, b.Delete(t.Context(), queue, ""))
		time.Sleep(time.Minute)
		stop := serve(t, b, upper, worker.Config{})
		if out, err := p.Wait(t.Context()); out != "A" || err != nil {
			t.Error(out, err)
		}
		closeAll(t, c, b, stop)
	})
}

func TestHalfOfTheCallsAreCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		tap := tapControl(t, b)
		var began atomic.Int64
		h := worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
			began.Add(1)
			select {
			case <-time.After(time.Hour):
				return t.Payload, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		stop := serve(t, b, h, worker.Config{Replicas: 4})
		c := newClient(t, b, gather.Config{})
		var pending []*gather.Pending[string]
		for i := range 20 {
			p, err := gather.Submit[string](t.Context(), c, fmt.Sprint(i))
			must(t, err)
			pending = append(pending, p)
		}
		synctest.Wait()
		for i := 0; i < 20; i += 2 {
			pending[i].Cancel()
			pending[i].Cancel()
		}
		for i, p := range pending {
			out, err := p.Wait(t.Context())
			switch {
			case i%2 == 0 && !errors.Is(err, gather.ErrCancelled):
				t.Errorf("call %d: %v", i, err)
			case i%2 == 1 && (err != nil || out != fmt.Sprint(i)):
				t.Errorf("call %d: %q, %v", i, out, err)
			}
			p.Cancel() // has no effect
			if again, _ := p.Wait(t.Context()); again != out {
				t.Errorf("call %d: then %q", i, again)
			}
		}
		if ids := canceled(t, b, tap); len(ids) != 10 {
			t.Errorf("cancelled: %q", ids)
		}
		if began.Load() >= 20 {
			t.Error("all tasks were run")
		}
		d, err := b.Depth(t.Context(), queue, millrace.WorkChannel)
		must(t, err)
		if d != (millrace.Depth{}) || c.Stats().Answered != 10 {
			t.Errorf("%+v, %+v", d, c.Stats())
		}
		closeAll(t, c, b, stop)
	})
}

func TestACallEndsWithItsContextAndIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		tap := tapControl(t, b)
		c := newClient(t, b, gather.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := gather.Call[string](ctx, c, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		p, err := gather.Submit[string](t.Context(), c, "a")
		must(t, err)
		if _, err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if ids := canceled(t, b, tap); len(ids) != 1 {
			t.Errorf("cancelled: %q: a Wait that ends cancels nothing", ids)
		}
		stop := serve(t, b, upper, worker.Config{})
		if out, err := p.Wait(t.Context()); out != "A" || err != nil {
			t.Error(out, err)
		}
		closeAll(t, c, b, stop)
	})
}
