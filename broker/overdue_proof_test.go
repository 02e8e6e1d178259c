package broker_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// What was deferred is overdue when the broker is opened, and something else is not for an
// hour: the broker can be closed at once.
func TestABrokerOpenedWithOverdueMessagesCloses(t *testing.T) {
	dir := t.TempDir()
	opts := broker.Options{Dir: dir, Sync: broker.SyncNever, Logger: quiet()}
	b := open(t, opts)
	b.channel("t", "c")
	for _, delay := range []time.Duration{time.Millisecond, time.Hour} {
		b.must(b.Publish("t", []millrace.Message{{Body: []byte("later"), Delay: delay}}))
	}
	c := b.subscribe("t", "c", millrace.SubscribeOptions{})
	b.must(c.Nack(t.Context(), time.Millisecond, receive(t, c, 1)...))
	b.must(b.Close())
	time.Sleep(5 * time.Millisecond)
	for range 30 {
		b, err := broker.Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan error)
		go func() { closed <- b.Close() }()
		select {
		case err := <-closed:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("it does not end")
		}
	}
}
