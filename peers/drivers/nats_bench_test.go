package drivers_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/peers/node"
	"github.com/millrace/millrace/worker"
)

// These measure the driver, the client and the server in one process, over loopback, with
// 200 bytes a message and files that the server syncs as it does by default:
//
//	go test -run '^$' -bench NATS ./drivers

func benchNATS(b *testing.B) (open func() millrace.Broker) {
	b.Helper()
	n, err := node.NATSServer(b.TempDir(), func(o *server.Options) { o.MaxPayload = natsPayload })
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = n.Stop() })
	return func() millrace.Broker {
		broker, err := millrace.Open(b.Context(), n.URL)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = broker.Close() })
		return broker
	}
}

func fill(b *testing.B, broker millrace.Broker, n, batch int) {
	b.Helper()
	msgs := make([]millrace.Message, batch)
	for i := range msgs {
		msgs[i].Body = bytes.Repeat([]byte("x"), 200)
	}
	for n > 0 {
		if err := broker.Publish(b.Context(), "t", msgs[:min(n, batch)]...); err != nil {
			b.Fatal(err)
		}
		n -= batch
	}
}

func BenchmarkNATSPublish(b *testing.B) {
	for _, batch := range []int{1, 10, 200} {
		b.Run(fmt.Sprint("batch=", batch), func(b *testing.B) {
			broker := benchNATS(b)()
			if err := broker.Declare(b.Context(), "t", "c"); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			fill(b, broker, b.N, batch)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

func BenchmarkNATSConsume(b *testing.B) {
	broker := benchNATS(b)()
	fill(b, broker, b.N, 200)
	sub, err := broker.Subscribe(b.Context(), "t", "c", millrace.SubscribeOptions{Prefetch: 1024})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	buf := make([]millrace.Delivery, 256)
	for got := 0; got < b.N; {
		n, err := sub.Receive(b.Context(), buf)
		if err != nil {
			b.Fatal(err)
		}
		if err := sub.Ack(b.Context(), buf[:n]...); err != nil {
			b.Fatal(err)
		}
		got += n
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// A task is published, run by a Go function, and its result gathered: two messages, each
// acknowledged to its publisher and by its consumer.
func BenchmarkNATSTasks(b *testing.B) {
	open := benchNATS(b)
	echo := worker.Func(func(_ context.Context, n int) (int, error) { return n, nil })
	w, err := worker.New(open(), "echo", echo, worker.Config{})
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.Serve(context.WithoutCancel(b.Context())) }()
	client, err := gather.New(b.Context(), open(), "echo", gather.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, err := range gather.Map[int](b.Context(), client, natsNumbers(b.N)) {
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	b.StopTimer()
	if err := w.Drain(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := <-served; err != nil {
		b.Fatal(err)
	}
}
