package gather_test

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"net/url"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

// echo is the cheapest handler there is: what is left is the way there and back.
var echo = worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) { return t.Payload, nil })

// eightBytes yields n inputs, in the same memory.
func eightBytes(n int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var input [8]byte
		for i := range n {
			binary.LittleEndian.PutUint64(input[:], uint64(i))
			if !yield(input[:]) {
				return
			}
		}
	}
}

// BenchmarkMap maps inputs of eight bytes with a Go function, from the iterator over
// the broker to the worker and back. Each task is two messages, published, consumed
// and acked; "of-bare" compares its rate with that of bare messages at the same
// broker, in the same run.
//
// The bars: 600 000 tasks/s in memory, 300 000 with sync=2s.
func BenchmarkMap(b *testing.B) {
	for _, mode := range []string{"mem", "sync=2s", "sync=always"} {
		b.Run(mode, func(b *testing.B) {
			tasks := mapRate(b, mode)
			b.StopTimer()
			b.ReportMetric(tasks, "tasks/s")
			b.ReportMetric(tasks/bareRate(b, mode, 2_000_000), "of-bare")
		})
	}
}

func mapRate(b *testing.B, mode string) (perSecond float64) {
	broker := open(b, mode)
	stop := serve(b, broker, echo, worker.Config{})
	client := newClient(b, broker, gather.Config{})
	for _, err := range gather.Map[[]byte](b.Context(), client, eightBytes(20_000)) { // up to speed
		must(b, err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	start, n := time.Now(), 0
	for _, err := range gather.Map[[]byte](b.Context(), client, eightBytes(b.N)) {
		must(b, err)
		n++
	}
	perSecond = float64(n) / time.Since(start).Seconds()
	b.StopTimer()
	if n != b.N {
		b.Fatalf("%d results for %d inputs", n, b.N)
	}
	closeAll(b, client, broker, stop)
	return perSecond
}

// bareRate publishes messages that are like requests, consumes and acks them.
func bareRate(b *testing.B, mode string, n int) (perSecond float64) {
	const batch = 1024
	broker := open(b, mode)
	sub, err := broker.Subscribe(b.Context(), "bare", "work", millrace.SubscribeOptions{Prefetch: 16 * batch})
	must(b, err)
	headers := millrace.Headers(nil).Append("id", "abcdefghijklmnop-1234567").Append("reply-to", "reply.abcdefghijklmnop")
	msgs := make([]millrace.Message, batch)
	for i := range msgs {
		msgs[i] = millrace.Message{Headers: headers, Body: []byte("8 bytes.")}
	}
	start := time.Now()
	published := make(chan error, 1)
	go func() {
		var err error
		for sent := 0; sent < n && err == nil; sent += batch {
			err = broker.Publish(b.Context(), "bare", msgs[:min(batch, n-sent)]...)
		}
		published <- err
	}()
	buf := make([]millrace.Delivery, batch)
	for got := 0; got < n; {
		k, err := sub.Receive(b.Context(), buf)
		must(b, errors.Join(err, sub.Ack(b.Context(), buf[:k]...)))
		got += k
	}
	perSecond = float64(n) / time.Since(start).Seconds()
	must(b, errors.Join(<-published, sub.Close(), broker.Close()))
	return perSecond
}

// BenchmarkCall asks one at a time: the latency of the whole way.
func BenchmarkCall(b *testing.B) {
	for _, mode := range []string{"mem", "sync=2s", "sync=always"} {
		b.Run(mode, func(b *testing.B) {
			broker := open(b, mode)
			stop := serve(b, broker, echo, worker.Config{})
			client := newClient(b, broker, gather.Config{})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := gather.Call[[]byte](b.Context(), client, []byte("8 bytes.")); err != nil {
					b.Fatal(err)
				}
			}
			closeAll(b, client, broker, stop)
		})
	}
}

func open(t testing.TB, mode string) millrace.Broker {
	t.Helper()
	address := "mem:"
	if mode != "mem" {
		address = (&url.URL{Scheme: "file", Path: t.TempDir(), RawQuery: mode}).String()
	}
	broker, err := millrace.Open(context.Background(), address)
	must(t, err)
	return broker
}
