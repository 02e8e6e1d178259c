package fleet_test

import (
	"context"
	"fmt"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/fleet"
	"github.com/millrace/millrace/worker"
)

// Two workers, here in one process, are seen and steered from a third place.
func Example() {
	ctx := context.Background()
	broker, err := millrace.Open(ctx, "mem:") // or nsq://…, amqp://…, nats://…
	if err != nil {
		panic(err)
	}
	served := make(chan error, 2)
	for range 2 {
		shout := worker.Func(func(_ context.Context, s string) (string, error) { return s + "!", nil })
		w, err := worker.New(broker, "shout", shout, worker.Config{Replicas: 2})
		if err != nil {
			panic(err)
		}
		go func() { served <- w.Serve(ctx) }()
	}
	if err := broker.Declare(ctx, "shout", millrace.WorkChannel); err != nil { // if no worker was so far yet
		panic(err)
	}

	f, err := fleet.Open(ctx, broker, "shout")
	if err != nil {
		panic(err)
	}
	var report fleet.Report
	for report.Answered() < 2 && err == nil { // until both have begun
		report, err = f.Report(ctx)
	}
	fmt.Println(report.Answered(), "workers,", report.Size(), "replicas", err)
	scaled, err := f.Scale(ctx, fleet.By(+3))
	fmt.Println("from", scaled.Before, "to", scaled.After, "replicas", err)
	_, err = f.Retire(ctx)
	fmt.Println("one has retired", err)
	report, err = f.Report(ctx)
	fmt.Println(report.Size(), "replicas", err)
	drained, err := f.Drain(ctx)
	fmt.Println(len(drained.Ended), "workers have ended:", <-served, <-served, err)
	if err := f.Close(ctx); err != nil {
		panic(err)
	}
	if err := broker.Close(); err != nil {
		panic(err)
	}
	// Output:
	// 2 workers, 4 replicas <nil>
	// from 4 to 7 replicas <nil>
	// one has retired <nil>
	// 6 replicas <nil>
	// 2 workers have ended: <nil> <nil> <nil>
}
