package door

import (
	"strings"
	"testing"

	"github.com/millrace/millrace/broker"
)

// What a client has requeued too often it can read as a dead letter, with the reason in
// front; the figures tell how many there are.
func TestWhatIsRequeuedTooOftenIsADeadLetter(t *testing.T) {
	b, err := broker.Open(broker.Options{Logger: quiet(), MaxAttempts: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	d := serveTCPOf(t, b, Config{})
	producer, consumer, undertaker := d.dial(), d.dial(), d.dial()
	consumer.send("SUB orders work\n", "RDY 1\n")
	consumer.want("OK")
	producer.send(pub("orders", "bad"))
	producer.want("OK")
	if stats := ask(d.Handler(false), "GET /stats?format=json&topic=orders", "").body; strings.Contains(stats, "dead_letter") {
		t.Errorf("without dead letters there is a key that nsqd has not: %s", stats)
	}
	for range 2 {
		m := consumer.message()
		consumer.send("REQ " + m.id + " 0\n")
	}
	undertaker.send("SUB orders.dead dead\n", "RDY 1\n")
	undertaker.want("OK")
	m := undertaker.message()
	line, body, _ := strings.Cut(m.body, "\n")
	if body != "bad" || m.attempts != 1 || !strings.HasPrefix(line, "MR1 {") ||
		!strings.Contains(line, `"error":"delivered 2 times without being finished"`) || !strings.Contains(line, `"channel":"work"`) {
		t.Errorf("the letter is %q, attempt %d", m.body, m.attempts)
	}
	consumer.send("FIN " + m.id + "\n") // of a lease that it does not have any more
	consumer.want("!E_FIN_FAILED FIN " + m.id + " failed ID not in flight")
	h := d.Handler(false)
	eventually(t, "the figures tell of it", func() bool {
		return strings.Contains(ask(h, "GET /stats?format=json", "").body, `"percentiles":null},"dead_letter_count":1}`) &&
			strings.Contains(ask(h, "GET /metrics", "").body, "\n"+`millrace_channel_dead_letters_total{channel="work",topic="orders"} 1`+"\n")
	})
}
