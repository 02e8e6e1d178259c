package gather_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

func TestMapYieldsOneResultForEachInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		stop := serve(t, b, upper, worker.Config{Replicas: 4})
		c := newClient(t, b, gather.Config{})
		inputs := texts(5000)
		seen := make([]bool, len(inputs))
		for r, err := range gather.Map[string](t.Context(), c, slices.Values(inputs)) {
			must(t, err)
			if seen[r.Index] || r.Value != strings.ToUpper(inputs[r.Index]) || string(r.Input) != inputs[r.Index] || r.Attempts != 1 {
				t.Fatalf("%+v", r)
			}
			seen[r.Index] = true
		}
		if i := slices.Index(seen, false); i >= 0 {
			t.Errorf("input %d has no result", i)
		}
		if s := c.Stats(); s != (gather.Stats{Submitted: 5000, Answered: 5000}) {
			t.Errorf("%+v", s)
		}
		closeAll(t, c, b, stop)
	})
}

func TestMapOrderedYieldsInTheOrderOfTheInputs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		h := worker.Func(func(_ context.Context, n int) (int, error) {
			time.Sleep(time.Duration(n*7919%100) * time.Millisecond)
			return n * n, nil
		})
		stop := serve(t, b, h, worker.Config{Replicas: 10})
		c := newClient(t, b, gather.Config{Window: 33})
		next := 0
		for r, err := range gather.MapOrdered[int](t.Context(), c, numbersTo(1000)) {
			must(t, err)
			if r.Index != int64(next) || r.Value != next*next {
				t.Fatalf("%+v, want %d", r, next)
			}
			next++
		}
		if next != 1000 {
			t.Errorf("%d results", next)
		}
		closeAll(t, c, b, stop)
	})
}

func numbersTo(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

func TestMapOfNothingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		c := newClient(t, b, gather.Config{})
		for r, err := range gather.Map[string](t.Context(), c, slices.Values([]string(nil))) {
			t.Error(r, err)
		}
		closeAll(t, c, b, nil)
	})
}

func TestOutputsMayBeAnything(t *testing.T) {
	type in struct{ A, B int }
	type out struct{ Sum int }
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		stop := serve(t, b, worker.Func(func(_ context.Context, i in) (out, error) { return out{i.A + i.B}, nil }), worker.Config{})
		c := newClient(t, b, gather.Config{})
		for r, err := range gather.Map[out](t.Context(), c, slices.Values([]in{{1, 2}, {3, 4}})) {
			must(t, err)
			if want := []int{3, 7}[r.Index]; r.Value.Sum != want {
				t.Errorf("%+v", r)
			}
		}
		if raw, err := gather.Call[string](t.Context(), c, in{5, 6}); err != nil || raw != `{"Sum":11}` {
			t.Error(raw, err)
		}
		closeAll(t, c, b, stop)
	})
}

// Iterators often yield the same memory again and again.
func TestAnInputMayChangeAfterItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		stop := serve(t, b, worker.Func(func(_ context.Context, b []byte) ([]byte, error) { return b, nil }), worker.Config{})
		c := newClient(t, b, gather.Config{})
		n := 0
		for r, err := range gather.MapOrdered[string](t.Context(), c, func(yield func([]byte) bool) {
			line := make([]byte, 3)
			for i := range 1000 {
				copy(line, fmt.Sprintf("%03d", i))
				if !yield(line) {
					return
				}
			}
		}) {
			must(t, err)
			if want := fmt.Sprintf("%03d", n); r.Value != want || string(r.Input) != want {
				t.Fatalf("%q %q, want %q", r.Value, r.Input, want)
			}
			n++
		}
		closeAll(t, c, b, stop)
	})
}

func TestATaskThatFailedIsAResultAndTheLoopGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		h := worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
			t.Reply = t.Reply.Append("stderr", "oops")
			switch string(t.Payload) {
			case "fail":
				return nil, exitError(7)
			case "slow":
				<-ctx.Done()
				return nil, ctx.Err()
			case "panic":
				panic("boom")
			case "kill":
				return nil, worker.Redeliver(errors.New("killed"))
			}
			return t.Payload, nil
		})
		stop := serve(t, b, h, worker.Config{Replicas: 8, MaxDeliveries: 3})
		c := newClient(t, b, gather.Config{Retries: 2, Timeout: time.Second})
		var failed []*gather.TaskError
		values := 0
		for r, err := range gather.MapOrdered[string](t.Context(), c, slices.Values([]string{"fail", "ok", "slow", "panic", "kill", "ok"})) {
			var e *gather.TaskError
			switch {
			case err == nil:
				values++
			case errors.As(err, &e):
				failed = append(failed, e)
				if r.Index < 0 || r.Attempts != 3 || string(r.Input) == "" {
					t.Errorf("%+v", r)
				}
				if r.Index == 0 && r.Headers.Text("stderr") != "oops" {
					t.Errorf("headers: %v", r.Headers)
				}
			default:
				t.Fatal(err)
			}
		}
		if values != 2 || len(failed) != 4 {
			t.Fatalf("%d values, errors: %v", values, failed)
		}
		if e := failed[0]; e.ExitCode != 7 || e.Attempts != 3 || e.Kind != gather.KindFailed || e.Message != "exit status 7" || !strings.HasSuffix(e.ID, "-0") {
			t.Errorf("%+v", e)
		}
		if failed[1].ExitCode != -1 || !errors.Is(failed[1], gather.ErrTimeout) || !errors.Is(failed[2], gather.ErrPanic) || !errors.Is(failed[3], gather.ErrKilled) {
			t.Errorf("kinds: %v", failed[1:])
		}
		if errors.Is(failed[0], gather.ErrTimeout) || errors.Is(failed[0], millrace.ErrTooLarge) {
			t.Error("an ordinary error is something else as well")
		}
		if s := c.Stats(); s.Failed != 4 || s.Retried != 8 || s.Answered != 6 {
			t.Errorf("%+v", s)
		}
		closeAll(t, c, b, stop)
	})
}

type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }
func (e exitError) ExitCode() int { return int(e) }

func TestTheKindsAreThoseOfTheWorker(t *testing.T) {
	for _, pair := range [][2]string{
		{gather.KindFailed, worker.KindFailed},
		{gather.KindTimeout, worker.KindTimeout},
		{gather.KindPanic, worker.KindPanic},
		{gather.KindKilled, worker.KindKilled},
		{gather.KindTooLarge, worker.KindTooLarge},
		{gather.KindForeign, worker.KindForeign},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%q is %q in package worker", pair[0], pair[1])
		}
	}
}

func TestWhatCannotBeSentOrUnderstoodIsAnErrorOfThatInputAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		b.limit = 1000
		h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
			if string(t.Payload) == `"odd"` {
				return []byte("{"), nil
			}
			return t.Payload, nil
		})
		stop := serve(t, b, h, worker.Config{})
		c := newClient(t, b, gather.Config{})
		inputs := []any{"a", strings.Repeat("x", 1000), "b", func() {}, "odd", "c"}
		kinds := []string{"", gather.KindTooLarge, "", gather.KindEncode, gather.KindDecode, ""}
		n := 0
		for r, err := range gather.MapOrdered[any](t.Context(), c, slices.Values(inputs)) {
			var e *gather.TaskError
			kind := ""
			if errors.As(err, &e) {
				kind = e.Kind
			} else {
				must(t, err)
			}
			if kind != kinds[r.Index] {
				t.Errorf("input %d: %q, want %q", r.Index, kind, kinds[r.Index])
			}
			if errors.Is(err, millrace.ErrTooLarge) != (r.Index == 1) {
				t.Errorf("input %d: %v", r.Index, err)
			}
			n++
		}
		if n != len(inputs) {
			t.Errorf("%d results", n)
		}
		if _, err := gather.Call[string](t.Context(), c, strings.Repeat("x", 1000)); !errors.Is(err, millrace.ErrTooLarge) {
			t.Error(err)
		}
		if _, err := gather.Call[string](t.Context(), c, func() {}); err == nil {
			t.Error("a function was encoded")
		}
		closeAll(t, c, b, stop)
	})
}

func TestRequestsWaitForWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		c := newClient(t, b, gather.Config{})
		started := make(chan func(), 1)
		go func() {
			time.Sleep(24 * time.Hour)
			started <- serve(t, b, upper, worker.Config{})
		}()
		out, err := gather.Call[string](t.Context(), c, "late")
		if out != "LATE" || err != nil {
			t.Error(out, err)
		}
		if n := b.count(queue); n != 1 {
			t.Errorf("the request was published %d times", n)
		}
		closeAll(t, c, b, <-started)
	})
}

func TestEveryClientGathersExactlyItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		stop := serve(t, b, upper, worker.Config{Replicas: 3})
		var clients []*gather.Client
		var all sync.WaitGroup
		for i := range 10 {
			c := newClient(t, b, gather.Config{Window: 10 + i})
			clients = append(clients, c)
			for j := range 3 {
				all.Go(func() {
					want := map[string]int{}
					var inputs []string
					for k := range 100 {
						inputs = append(inputs, fmt.Sprintf("c%d-%d-%d", i, j, k))
						want[strings.ToUpper(inputs[k])]++
					}
					for r, err := range gather.Map[string](t.Context(), c, slices.Values(inputs)) {
						if err != nil {
							t.Error(err)
						}
						want[r.Value]--
					}
					for value, n := range want {
						if n != 0 {
							t.Errorf("%s: %d too few", value, n)
						}
					}
				})
			}
		}
		all.Wait()
		for _, c := range clients {
			must(t, c.Close(t.Context()))
		}
		stop()
		must(t, b.Close())
	})
}

func TestASecondAnswerIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		b.double, b.mix = 0.5, true
		stop := serve(t, b, upper, worker.Config{Replicas: 3})
		c := newClient(t, b, gather.Config{Window: 20})
		seen := map[int64]bool{}
		for r, err := range gather.Map[string](t.Context(), c, slices.Values(texts(500))) {
			must(t, err)
			if seen[r.Index] {
				t.Fatalf("a second result for input %d", r.Index)
			}
			seen[r.Index] = true
		}
		if len(seen) != 500 {
			t.Errorf("%d results", len(seen))
		}
		time.Sleep(time.Minute)
		if s := c.Stats(); s.Dropped == 0 || s.Answered != 500 {
			t.Errorf("%+v", s)
		}
		closeAll(t, c, b, stop)
	})
}

func TestWhatIsNoResultIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		var replyTo atomic.Value
		h := worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
			replyTo.Store(t.Headers.Text(millrace.HeaderReplyTo))
			select {
			case <-time.After(time.Minute):
			case <-ctx.Done():
			}
			return t.Payload, nil
		})
		stop := serve(t, b, h, worker.Config{})
		c := newClient(t, b, gather.Config{})
		p, err := gather.Submit[string](t.Context(), c, "a")
		must(t, err)
		synctest.Wait()
		ids := []string{
			"", "-", "x", "abcdefghijklmnop-0", p.ID() + "0", p.ID() + "-0", p.ID()[:16] + "-", p.ID()[:16] + "--1",
			p.ID()[:16] + "-99999999999999999999", p.ID()[:17] + "٣", strings.Repeat("x", 300),
		}
		for _, id := range ids {
			must(t, b.Broker.Publish(t.Context(), replyTo.Load().(string), millrace.Message{
				Headers: millrace.Headers(nil).Append("id", id), Body: []byte("wrong"),
			}))
		}
		must(t, b.Broker.Publish(t.Context(), replyTo.Load().(string), millrace.Message{Headers: millrace.Headers("\xff\xff"), Body: []byte("wrong")}))
		if out, err := p.Wait(t.Context()); out != "a" || err != nil {
			t.Error(out, err)
		}
		if s := c.Stats(); s.Dropped != int64(len(ids)+1) {
			t.Errorf("%+v", s)
		}
		d, err := b.Depth(t.Context(), replyTo.Load().(string), "replies")
		synctest.Wait()
		must(t, err)
		if d != (millrace.Depth{}) {
			t.Errorf("they were not acked: %+v", d)
		}
		closeAll(t, c, b, stop)
	})
}
