package mpmc_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/mpmc"
)

// A way of moving total ints from senders to receivers; it returns when all have
// been received.
type way struct {
	name string
	move func(senders, receivers, total int)
}

const batch = 64

var ways = []way{
	{"unbounded", func(s, r, n int) { moveSingly(mpmc.NewUnbounded[int](), s, r, n) }},
	{"bounded=1024", func(s, r, n int) { moveSingly(mpmc.New[int](1024), s, r, n) }},
	{"unbounded,batch=64", func(s, r, n int) { moveBatches(mpmc.NewUnbounded[int](), s, r, n) }},
	{"bounded=1024,batch=64", func(s, r, n int) { moveBatches(mpmc.New[int](1024), s, r, n) }},
}

// BenchmarkAgainstGoChannel moves the same ints through a Go channel of capacity
// 1024 and through a Chan, in turns, and reports the medians and their ratio.
func BenchmarkAgainstGoChannel(b *testing.B) {
	for _, threads := range []int{1, 4, 16} {
		for _, w := range ways {
			b.Run(fmt.Sprintf("%s/%dx%d", w.name, threads, threads), func(b *testing.B) {
				const total = 2_000_000
				var ours, theirs []float64
				for b.Loop() {
					for range 5 {
						theirs = append(theirs, rate(moveGoChannel, threads, total))
						ours = append(ours, rate(w.move, threads, total))
					}
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(theirs)/1e6, "gochan-Mitems/s")
				b.ReportMetric(median(ours)/1e6, "mpmc-Mitems/s")
				b.ReportMetric(median(ours)/median(theirs), "ratio")
			})
		}
	}
}

func rate(move func(senders, receivers, total int), threads, total int) float64 {
	start := time.Now()
	move(threads, threads, total)
	return float64(total) / time.Since(start).Seconds()
}

func median(xs []float64) float64 {
	slices.Sort(xs)
	return xs[len(xs)/2]
}

func moveGoChannel(senders, receivers, total int) {
	c := make(chan int, 1024)
	done := spawn(receivers, func() {
		for range c {
		}
	})
	spawn(senders, func() {
		for i := range total / senders {
			c <- i
		}
	})()
	close(c)
	done()
}

func moveSingly(c *mpmc.Chan[int], senders, receivers, total int) {
	ctx := context.Background()
	done := spawn(receivers, func() {
		for {
			if _, err := c.Recv(ctx); err != nil {
				return
			}
		}
	})
	spawn(senders, func() {
		for i := range total / senders {
			_ = c.Send(ctx, i)
		}
	})()
	c.Close()
	done()
}

func moveBatches(c *mpmc.Chan[int], senders, receivers, total int) {
	ctx := context.Background()
	done := spawn(receivers, func() {
		buf := make([]int, batch)
		for {
			if _, err := c.RecvBatch(ctx, buf); err != nil {
				return
			}
		}
	})
	spawn(senders, func() {
		vs := make([]int, batch)
		for left := total / senders; left > 0; left -= len(vs) {
			vs = vs[:min(left, batch)]
			_, _ = c.SendAll(ctx, vs)
		}
	})()
	c.Close()
	done()
}

// spawn runs n goroutines and returns a function that waits for them.
func spawn(n int, f func()) (wait func()) {
	var g sync.WaitGroup
	for range n {
		g.Go(f)
	}
	return g.Wait
}
