package replica_test

import (
	"context"
	"fmt"

	"github.com/millrace/millrace/mpmc"
	"github.com/millrace/millrace/replica"
)

// A poison pill in the stream retires the only replica. The messages behind it
// wait, until a new replica comes up.
func Example() {
	ctx := context.Background()
	queue := mpmc.NewUnbounded[string]()
	poisoned := make(chan struct{})
	handle := func(ctx context.Context, msg string) error {
		fmt.Printf("replica %d: %s\n", replica.Number(ctx), msg)
		if msg == "pill" {
			close(poisoned)
			return replica.ErrRetire
		}
		return nil
	}
	set := replica.New(queue, handle, replica.Config[string]{Replicas: 1})
	served := make(chan error, 1)
	go func() { served <- set.Serve(ctx) }()

	_, _ = queue.SendAll(ctx, []string{"one", "two", "pill", "three"})
	<-poisoned
	_ = set.Scale(ctx, 0) // there is none to retire: waits until the one has left
	fmt.Println(set.Size(), "replicas,", queue.Len(), "message waits")

	_ = set.Scale(ctx, 1)
	queue.Close() // the set ends when all is handled
	fmt.Println("served:", <-served)
	// Output:
	// replica 1: one
	// replica 1: two
	// replica 1: pill
	// 0 replicas, 1 message waits
	// replica 1: three
	// served: <nil>
}

// Each message's result goes out through Emit: it is delivered, or the message
// is lost, never both.
func ExampleEmit() {
	ctx := context.Background()
	queue := mpmc.NewUnbounded[int]()
	publish := func(_ context.Context, result string) error {
		fmt.Println(result)
		return nil
	}
	handle := func(ctx context.Context, n int) error {
		if n == 2 {
			panic("two is too much")
		}
		return replica.Emit(ctx, fmt.Sprint(n, " squared is ", n*n), publish)
	}
	set := replica.New(queue, handle, replica.Config[int]{
		Replicas: 1,
		Lost:     func(n int, err error) { fmt.Println("lost", n, "by", err) },
	})
	_, _ = queue.SendAll(ctx, []int{1, 2, 3})
	queue.Close()
	fmt.Println("served:", set.Serve(ctx))
	// Output:
	// 1 squared is 1
	// lost 2 by supervise: panic: two is too much
	// 3 squared is 9
	// served: <nil>
}
