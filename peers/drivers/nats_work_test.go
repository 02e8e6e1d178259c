package drivers_test

import (
	"context"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

// natsWorker answers tasks with their squares, on a connection of its own, until the test
// ends.
func natsWorker(t *testing.T, url, queue string, slowly time.Duration) *worker.Worker {
	t.Helper()
	square := worker.Func(func(ctx context.Context, n int) (int, error) {
		if slowly > 0 {
			select {
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			case <-time.After(slowly):
			}
		}
		return n * n, nil
	})
	w, err := worker.New(useNATS(t, url).Broker, queue, square, worker.Config{Replicas: 4, Lease: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	serving.Go(func() {
		if err := w.Serve(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("worker: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
	return w
}

// natsNumbers iterates over 0 … n-1.
func natsNumbers(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// natsSquares maps n tasks, and makes sure that each has its result, once. meanwhile is
// called with the number of results so far.
func natsSquares(t *testing.T, u natsUser, queue string, n int, cfg gather.Config, meanwhile func(int)) {
	t.Helper()
	client, err := gather.New(t.Context(), u.Broker, queue, cfg)
	u.must(err)
	got := make([]bool, n)
	count := 0
	for r, err := range gather.Map[int](t.Context(), client, natsNumbers(n)) {
		u.must(err)
		if r.Value != int(r.Index)*int(r.Index) || got[r.Index] {
			t.Errorf("task %d: got %d, and before: %v", r.Index, r.Value, got[r.Index])
		}
		got[r.Index] = true
		count++
		if meanwhile != nil {
			meanwhile(count)
		}
	}
	if count != n {
		t.Errorf("%d results of %d tasks", count, n)
	}
	u.must(client.Close(t.Context()))
}

// wantIdle makes sure that nothing is left in the queue.
func (u natsUser) wantIdle(queue string) {
	u.Helper()
	var got millrace.Depth
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var err error
		got, err = u.Depth(u.Context(), queue, millrace.WorkChannel)
		u.must(err)
		if got == (millrace.Depth{}) {
			return
		}
	}
	u.Errorf("the queue still holds %+v", got)
}

func TestNATSMapsTasks(t *testing.T) {
	t.Parallel()
	n := startNATS(t, nil)
	u := useNATS(t, n.URL)
	natsWorker(t, n.URL, "square", 0)
	natsWorker(t, n.URL, "square", 0)
	start := time.Now()
	natsSquares(t, u, "square", 2000, gather.Config{}, nil)
	t.Logf("%.0f tasks/s", 2000/time.Since(start).Seconds())
	u.wantIdle("square")
}
