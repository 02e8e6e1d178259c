package supervise_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/supervise"
)

// The first generation hangs. It is fenced, told to stop and replaced; what it
// says afterwards is not delivered.
func Example() {
	print := func(_ context.Context, v string) error {
		fmt.Println(v)
		return nil
	}
	work := func(ctx context.Context, p *supervise.Pulse) error {
		if p.Generation() == 1 {
			<-ctx.Done() // hangs, without a beat
			err := supervise.Emit(ctx, p, "a late value", print)
			fmt.Println("late:", errors.Is(err, supervise.ErrFenced))
			return err
		}
		for i := range 3 {
			if err := supervise.Emit(ctx, p, fmt.Sprint("value ", i), print); err != nil {
				return err
			}
		}
		return nil
	}
	s := supervise.New(work, supervise.Config{
		Name:    "source",
		TTL:     20 * time.Millisecond,
		Restart: supervise.Transient, // done when it returns nil
		Backoff: supervise.Backoff{First: time.Millisecond},
	})
	fmt.Println("served:", s.Serve(context.Background()))
	// Output:
	// late: true
	// value 0
	// value 1
	// value 2
	// served: <nil>
}

// A handler that has only a context beats through it.
func ExampleBeat() {
	handle := func(ctx context.Context) {
		for range 3 {
			// ... a part of the work, well within the TTL ...
			supervise.Beat(ctx)
		}
	}
	work := func(ctx context.Context, _ *supervise.Pulse) error {
		handle(ctx)
		return nil
	}
	cfg := supervise.Config{TTL: time.Second, Restart: supervise.Temporary}
	fmt.Println(supervise.New(work, cfg).Serve(context.Background()))
	// Output: <nil>
}
