package gather_test

import (
	"context"
	"slices"
	"strconv"
	"testing"

	"github.com/millrace/millrace"
	_ "github.com/millrace/millrace/driver/embedded"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

func start(t testing.TB, b millrace.Broker, queue string, h worker.Handler, cfg worker.Config) *worker.Worker {
	t.Helper()
	w, err := worker.New(b, queue, h, cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- w.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func TestMap(t *testing.T) {
	ctx := t.Context()
	b, err := millrace.Open(ctx, "mem:")
	if err != nil {
		t.Fatal(err)
	}
	start(t, b, "q", worker.Func(func(_ context.Context, n int) (string, error) { return strconv.Itoa(2 * n), nil }), worker.Config{})
	c, err := gather.New(ctx, b, "q", gather.Config{})
	if err != nil {
		t.Fatal(err)
	}
	inputs := make([]int, 100_000)
	for i := range inputs {
		inputs[i] = i
	}
	n := 0
	for r, err := range gather.MapOrdered[string](ctx, c, slices.Values(inputs)) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Index != int64(n) || r.Value != strconv.Itoa(2*n) {
			t.Fatal(r, n)
		}
		n++
	}
	t.Log(n, c.Stats())
	if v, err := gather.Call[string](ctx, c, 21); err != nil || v != "42" {
		t.Fatal(v, err)
	}
	if err := c.Close(ctx); err != nil {
		t.Fatal(err)
	}
}
