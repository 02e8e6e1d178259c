package broker_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// While its letter cannot be written, a message is kept, and the others flow.
func TestALetterThatCannotBeWrittenIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		disk := vfs.NewMem()
		b := open(t, broker.Options{
			Dir: "data", MaxAttempts: 2, Logger: slog.New(slog.NewTextHandler(&out, nil)),
		}.On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 2})
		b.publish("t", "bad")
		refuse(t, c, 1, 2)
		b.publish("t", "good")
		disk.SetFree(0)
		d := receive(t, c, 1)
		wantDeliveries(t, d, "good@1")
		ack(t, c, d...)
		go nothingOrClosed(c)
		time.Sleep(time.Hour + time.Second) // between two tries
		if s := b.stats("t", "c"); s.Deferred != 1 || s.Dead != 0 || s.Requeued != 2 {
			t.Errorf("while the disk is full the channel says %+v", s)
		}
		disk.SetFree(1 << 30)
		time.Sleep(10 * time.Second)
		letter := receiveWithin(t, time.Second, b.deadLetters("t"), 1)[0]
		if got := letter.Headers.Text(millrace.HeaderAttempts); string(letter.Body) != "bad" || got != "2" {
			t.Errorf("%s was delivered %s times", letter.Body, got)
		}
		synctest.Wait()
		text := out.String()
		if strings.Count(text, "dead letters cannot be written") != 1 || strings.Count(text, "dead letters can be written again") != 1 ||
			!strings.Contains(text, "no space left") || !strings.Contains(text, "topic=t channel=c") {
			t.Errorf("the log says:\n%s", text)
		}
	})
}

func TestATopicWithTooLongANameKeepsItsMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		b := open(t, broker.Options{MaxAttempts: 1, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		topic := strings.Repeat("t", millrace.MaxNameLen)
		c := b.subscribe(topic, "c", millrace.SubscribeOptions{})
		b.publish(topic, "bad")
		refuse(t, c, 1, 1)
		nothing(t, c, time.Hour)
		b.publish(topic, "good")
		wantDeliveries(t, receive(t, c, 1), "good@1")
		synctest.Wait()
		if d := b.depth(topic, "c"); d.Deferred != 1 {
			t.Errorf("depth %+v", d)
		}
		if strings.Count(out.String(), "bad name") != 1 {
			t.Errorf("the log says:\n%s", out.String())
		}
	})
}

// hangs makes letters wait for hang when they are written.
func hangs(hang <-chan struct{}) func(vfs.Op) error {
	return func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite && strings.Contains(op.Name, "t.dead") && strings.HasSuffix(op.Name, ".seg") {
			<-hang
		}
		return nil
	}
}

// A disk that hangs keeps the letter waiting, and nothing else.
func TestWhileALetterIsWrittenTheOtherMessagesFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		b := open(t, broker.Options{Dir: "data", MaxAttempts: 1}.On(vfs.Inject(vfs.NewMem(), hangs(hang))))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1})
		b.publish("t", "bad", "good", "better")
		refuse(t, c, 1, 1)
		for _, want := range []string{"good@1", "better@1"} {
			d := receive(t, c, 1)
			wantDeliveries(t, d, want)
			ack(t, c, d...)
		}
		if s := b.stats("t", "c"); s.InFlight != 1 || s.Dead != 0 {
			t.Errorf("the channel says %+v", s)
		}
		c.Close() // which gives back what it holds: the letter's message is not among it
		close(hang)
		wantDeliveries(t, receive(t, b.deadLetters("t"), 1), "bad@1")
		nothing(t, b.subscribe("t", "c", millrace.SubscribeOptions{}), time.Minute)
		nothing(t, b.deadLetters("t"), time.Minute)
	})
}

// The broker closes, or the channel goes, while letters are written.
func TestEndingWhileLettersAreWritten(t *testing.T) {
	for name, end := range map[string]func(b bench) error{
		"the broker":  func(b bench) error { return b.Close() },
		"the topic":   func(b bench) error { return b.DeleteTopic("t") },
		"the channel": func(b bench) error { return b.DeleteChannel("t", "c") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hang := make(chan struct{})
				disk := vfs.NewMem()
				b := open(t, broker.Options{Dir: "data", MaxAttempts: 1, Logger: quiet()}.On(vfs.Inject(disk, hangs(hang))))
				c := b.subscribe("t", "c", millrace.SubscribeOptions{})
				b.publish("t", numbers(0, 10)...)
				refuse(t, c, 10, 1)
				go nothingOrClosed(c)
				synctest.Wait()
				ended := make(chan error)
				go func() { ended <- end(b) }()
				time.Sleep(time.Second)
				close(hang)
				if err := <-ended; err != nil {
					t.Error(err)
				}
				_ = b.Close()
				b = open(t, broker.Options{Dir: "data", MaxAttempts: 1}.On(disk))
				if name == "the broker" {
					left := len(drain(t, b.Broker, "t", "c"))
					if n := len(drain(t, b.Broker, "t.dead", "dead")); left+n < 10 {
						t.Errorf("%d messages are left and %d letters", left, n)
					}
				}
			})
		})
	}
}

// nothingOrClosed receives until there is an error.
func nothingOrClosed(c *broker.Consumer) {
	var buf [10]millrace.Delivery
	for {
		if _, err := c.Receive(context.Background(), buf[:]); err != nil {
			return
		}
	}
}

// A flood of them is buried in batches, each once.
func TestManyDeadLetters(t *testing.T) {
	b := open(t, broker.Options{Dir: t.TempDir(), Sync: broker.SyncNever, MaxAttempts: 1})
	const n = 20_000
	bodies := numbers(0, n)
	bodies[7] = strings.Repeat("7", 3<<20) // larger than what is published together
	b.publish("t", bodies...)
	for range 4 {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: n})
		receive(t, c, n/4)
		c.Close()
	}
	c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 100})
	go nothingOrClosed(c)
	seen := map[string]bool{}
	for _, d := range receive(t, b.deadLetters("t"), n) {
		seen[string(d.Body)] = true
	}
	if len(seen) != n {
		t.Errorf("%d letters are of %d messages", n, len(seen))
	}
}
