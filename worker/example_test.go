package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace/millrace"
	_ "github.com/millrace/millrace/driver/embedded"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

// A worker answers tasks with a Go function. Errors say whether trying again makes
// sense.
func Example() {
	ctx := context.Background()
	broker, err := millrace.Open(ctx, "mem:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer broker.Close()

	shout := worker.Func(func(_ context.Context, word string) (string, error) {
		if word == "" {
			return "", worker.Permanent(errors.New("nothing to shout"))
		}
		return strings.ToUpper(word) + "!", nil
	})
	w, err := worker.New(broker, "shout", shout, worker.Config{Replicas: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error, 1)
	go func() { served <- w.Serve(ctx) }()

	client, err := gather.New(ctx, broker, "shout", gather.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, word := range []string{"hello", ""} {
		answer, err := gather.Call[string](ctx, client, word)
		var failed *gather.TaskError
		if errors.As(err, &failed) {
			fmt.Println("error:", failed.Message)
			continue
		}
		fmt.Println(answer)
	}

	fmt.Println(client.Close(ctx), w.Drain(ctx), <-served)
	// Output:
	// HELLO!
	// error: nothing to shout
	// <nil> <nil> <nil>
}
