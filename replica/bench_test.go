package replica_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/fanin"
	"github.com/millrace/millrace/mpmc"
	"github.com/millrace/millrace/replica"
	"github.com/millrace/millrace/supervise"
)

// BenchmarkTask is the way of a task inside a worker: queue, supervised replica,
// fenced emission into the fan-in, a reader that takes batches.
func BenchmarkTask(b *testing.B) {
	for _, replicas := range []int{1, 2, 4, 16} {
		for _, ttl := range []time.Duration{0, time.Second} {
			b.Run(fmt.Sprintf("replicas=%d/ttl=%v", replicas, ttl), func(b *testing.B) {
				benchmarkTask(b, replicas, ttl)
			})
		}
	}
}

func benchmarkTask(b *testing.B, replicas int, ttl time.Duration) {
	ctx := context.Background()
	queue := mpmc.New[int](1024)
	merger := fanin.New(fanin.Config[int]{})
	emit := merger.Emit
	handler := func(ctx context.Context, msg int) error { return replica.Emit(ctx, msg, emit) }
	s := replica.New(queue, handler, replica.Config[int]{
		Replicas: replicas, Supervise: supervise.Config{TTL: ttl},
	})
	if _, err := merger.Add("replicas", func(ctx context.Context, _ fanin.Emit[int]) error { return s.Serve(ctx) }); err != nil {
		b.Fatal(err)
	}
	merger.Close()
	served := make(chan error, 1)
	go func() { served <- merger.Serve(ctx) }()

	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		defer queue.Close()
		batch := make([]int, 256)
		for sent := 0; sent < b.N; sent += len(batch) {
			_, _ = queue.SendAll(ctx, batch[:min(len(batch), b.N-sent)])
		}
	}()
	got, batch := 0, make([]int, 256)
	for {
		n, err := merger.RecvBatch(ctx, batch)
		if err != nil {
			break
		}
		got += n
	}
	b.StopTimer()
	if err := <-served; err != nil || got != b.N {
		b.Fatalf("%d of %d came through, %v", got, b.N, err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// BenchmarkQueueAlone is the part of BenchmarkTask that is not this package's:
// the queue and the fan-in, with plain goroutines between them.
func BenchmarkQueueAlone(b *testing.B) {
	for _, goroutines := range []int{1, 4} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			ctx := context.Background()
			queue := mpmc.New[int](1024)
			merger := fanin.New(fanin.Config[int]{})
			for i := range goroutines {
				_, err := merger.Add(fmt.Sprint(i), func(ctx context.Context, emit fanin.Emit[int]) error {
					for {
						v, err := queue.Recv(ctx)
						if err != nil {
							return nil
						}
						if err := emit(ctx, v); err != nil {
							return err
						}
					}
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			merger.Close()
			served := make(chan error, 1)
			go func() { served <- merger.Serve(ctx) }()
			b.ReportAllocs()
			b.ResetTimer()
			go func() {
				defer queue.Close()
				batch := make([]int, 256)
				for sent := 0; sent < b.N; sent += len(batch) {
					_, _ = queue.SendAll(ctx, batch[:min(len(batch), b.N-sent)])
				}
			}()
			batch := make([]int, 256)
			for {
				if _, err := merger.RecvBatch(ctx, batch); err != nil {
					break
				}
			}
			b.StopTimer()
			if err := <-served; err != nil {
				b.Fatal(err)
			}
		})
	}
}
