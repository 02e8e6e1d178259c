package broker_test

import (
	"context"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// BenchmarkPublishConsume publishes 100-byte messages in batches of 200 and consumes and
// acks them at the same time.
func BenchmarkPublishConsume(b *testing.B) {
	for _, c := range []struct {
		name string
		opts broker.Options
	}{
		{"mem", broker.Options{}},
		{"sync=2s", broker.Options{Dir: "yes", Sync: 2 * time.Second}},
		{"sync=always", broker.Options{Dir: "yes"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			if c.opts.Dir != "" {
				c.opts.Dir = b.TempDir()
			}
			br := open(b, c.opts)
			consumer := br.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 4096})
			const batch = 200
			n := (b.N + batch - 1) / batch * batch
			b.ReportAllocs()
			b.ResetTimer()
			go func() {
				msgs := make([]millrace.Message, batch)
				for i := range msgs {
					msgs[i].Body = make([]byte, 100)
				}
				for i := 0; i < n; i += batch {
					if err := br.Publish("t", msgs); err != nil {
						b.Error(err)
						return
					}
				}
			}()
			buf := make([]millrace.Delivery, 512)
			for got := 0; got < n; {
				k, err := consumer.Receive(context.Background(), buf)
				if err != nil {
					b.Fatal(err)
				}
				if err := consumer.Ack(context.Background(), buf[:k]...); err != nil {
					b.Fatal(err)
				}
				got += k
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msgs/s")
		})
	}
}
