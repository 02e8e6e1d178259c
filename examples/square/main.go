// Command square is the smallest use of the library: a worker, and a client that maps a
// stream of inputs over it.
package main

import (
	"context"
	"fmt"
	"log"
	"slices"

	"github.com/millrace/millrace"
	_ "github.com/millrace/millrace/driver/embedded" // mem: and file:
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

func square(_ context.Context, n int) (int, error) { return n * n, nil }

func main() {
	ctx, stop := context.WithCancelCause(context.Background())
	broker, err := millrace.Open(ctx, "mem:") // or file:///var/lib/jobs
	if err != nil {
		log.Fatal(err)
	}
	w, err := worker.New(broker, "square", worker.Func(square), worker.Config{})
	if err != nil {
		log.Fatal(err)
	}
	go func() { stop(w.Serve(ctx)) }() // without its worker, the loop below ends

	client, err := gather.New(ctx, broker, "square", gather.Config{})
	if err != nil {
		log.Fatal(err)
	}
	for r, err := range gather.MapOrdered[int](ctx, client, slices.Values([]int{1, 2, 3})) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(r.Index, r.Value)
	}
	if err := client.Close(ctx); err != nil { // nothing stays at a broker that others use
		log.Fatal(err)
	}
}
