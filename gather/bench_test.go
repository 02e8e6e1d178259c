package gather_test

import (
	"context"
	"encoding/binary"
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

// numbers yields n inputs of eight bytes, in the same memory.
func numbers(n int) iter.Seq[[]byte] {
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

func BenchmarkMap(b *testing.B) {
	for _, mode := range []string{"mem", "sync=2s", "sync=always"} {
		b.Run(mode, func(b *testing.B) {
			broker := open(b, mode)
			start(b, broker, "bench", echo, worker.Config{})
			client, err := gather.New(b.Context(), broker, "bench", gather.Config{})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			n := 0
			for _, err := range gather.Map[[]byte](b.Context(), client, numbers(b.N)) {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
			elapsed := b.Elapsed()
			b.StopTimer()
			b.ReportMetric(float64(n)/elapsed.Seconds(), "tasks/s")
			if err := client.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func open(b testing.TB, mode string) millrace.Broker {
	b.Helper()
	address := "mem:"
	if mode != "mem" {
		address = (&url.URL{Scheme: "file", Path: b.TempDir(), RawQuery: mode}).String()
	}
	broker, err := millrace.Open(b.Context(), address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { broker.Close() })
	return broker
}

var _ = time.Now
