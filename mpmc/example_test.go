package mpmc_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/mpmc"
)

func Example() {
	ctx := context.Background()
	tasks := mpmc.New[int](16)
	squares := mpmc.NewUnbounded[int]()

	var workers sync.WaitGroup
	for range 3 {
		workers.Go(func() {
			for n := range tasks.All(ctx) {
				_ = squares.Send(ctx, n*n) // unbounded: it fails only once closed
			}
		})
	}
	for n := range 100 {
		if err := tasks.Send(ctx, n); err != nil {
			fmt.Println(err)
		}
	}
	tasks.Close()
	workers.Wait()
	squares.Close()

	sum := 0
	for n := range squares.All(ctx) {
		sum += n
	}
	fmt.Println(sum)
	// Output: 328350
}

func ExampleChan_RecvBatch() {
	ctx := context.Background()
	c := mpmc.NewUnbounded[string]()
	_, _ = c.SendAll(ctx, []string{"a", "b", "c", "d", "e"})
	c.Close()

	buf := make([]string, 3)
	for {
		n, err := c.RecvBatch(ctx, buf)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(buf[:n])
	}
	// Output:
	// [a b c]
	// [d e]
	// mpmc: channel is closed
}

func ExampleChan_Recv_context() {
	ctx, cancel := context.WithTimeoutCause(context.Background(), time.Millisecond, fmt.Errorf("nothing came"))
	defer cancel()
	c := mpmc.NewUnbounded[int]()
	_, err := c.Recv(ctx)
	fmt.Println(err)
	// Output: nothing came
}

func ExampleChan_Ready() {
	c := mpmc.NewUnbounded[string]()
	stop := make(chan struct{})
	_ = c.TrySend("hello")
	_ = c.TrySend("goodbye")

	for {
		select {
		case <-c.Ready():
			v, err := c.TryRecv()
			if err == mpmc.ErrEmpty {
				continue // somebody else was faster
			}
			fmt.Println(v, err)
			if v == "goodbye" {
				close(stop)
			}
		case <-stop:
			return
		}
	}
	// Output:
	// hello <nil>
	// goodbye <nil>
}
