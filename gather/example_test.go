package gather_test

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace"
	_ "github.com/millrace/millrace/driver/embedded"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

// Numbers are scattered over the replicas of a worker, which could as well be in other
// processes, and their squares gathered in order.
func ExampleMapOrdered() {
	ctx := context.Background()
	broker, err := millrace.Open(ctx, "mem:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer broker.Close()

	square := worker.Func(func(_ context.Context, n int) (int, error) {
		if n == 3 {
			return 0, worker.Permanent(errors.New("I don't like 3"))
		}
		return n * n, nil
	})
	w, err := worker.New(broker, "square", square, worker.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error, 1)
	go func() { served <- w.Serve(ctx) }()

	client, err := gather.New(ctx, broker, "square", gather.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for r, err := range gather.MapOrdered[int](ctx, client, slices.Values([]int{1, 2, 3, 4})) {
		var failed *gather.TaskError
		switch {
		case errors.As(err, &failed): // this input failed
			fmt.Printf("%s: %s\n", r.Input, failed.Message)
		case err != nil: // the whole loop did
			fmt.Println(err)
		default:
			fmt.Printf("%s: %d\n", r.Input, r.Value)
		}
	}
	fmt.Println(client.Close(ctx), w.Drain(ctx), <-served)
	// Output:
	// 1: 1
	// 2: 4
	// 3: I don't like 3
	// 4: 16
	// <nil> <nil> <nil>
}

// Requests can also be sent one by one, and waited for later.
func ExampleSubmit() {
	ctx := context.Background()
	broker, err := millrace.Open(ctx, "mem:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer broker.Close()
	client, err := gather.New(ctx, broker, "double", gather.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	first, err1 := gather.Submit[int](ctx, client, 21)
	second, err2 := gather.Submit[int](ctx, client, 4)
	if err := errors.Join(err1, err2); err != nil {
		fmt.Println(err)
		return
	}
	second.Cancel() // on second thoughts

	w, err := worker.New(broker, "double", worker.Func(func(_ context.Context, n int) (int, error) { return 2 * n, nil }), worker.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error, 1)
	go func() { served <- w.Serve(ctx) }()

	fmt.Println(first.Wait(ctx))
	fmt.Println(second.Wait(ctx))
	fmt.Println(client.Close(ctx), w.Drain(ctx), <-served)
	// Output:
	// 42 <nil>
	// 0 gather: cancelled
	// <nil> <nil> <nil>
}
