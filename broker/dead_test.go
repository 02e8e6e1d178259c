package broker_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// inEveryKindWith is inEveryKind with a limit to how often a message is delivered.
func inEveryKindWith(t *testing.T, attempts int, test func(t *testing.T, b bench)) {
	for kind, opts := range map[string]broker.Options{"memory": {}, "files": {Dir: "data"}} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts.MaxAttempts = attempts
				if opts.Dir != "" {
					opts = opts.On(vfs.NewMem())
				}
				test(t, open(t, opts))
			})
		})
	}
}

// refuse receives n messages and gives them back, so many times.
func refuse(t *testing.T, c *broker.Consumer, n, times int) {
	t.Helper()
	for range times {
		if err := c.Nack(t.Context(), 0, receive(t, c, n)...); err != nil {
			t.Error(err)
		}
	}
}

// deadLetters subscribes to the dead letters of a topic.
func (b bench) deadLetters(topic string) *broker.Consumer {
	b.t.Helper()
	return b.subscribe(broker.DeadTopic(topic), millrace.DeadChannel, millrace.SubscribeOptions{Prefetch: 100_000, Lease: time.Hour})
}

func (b bench) stats(topic, channel string) broker.ChannelStats {
	return b.Lookup(topic).Lookup(channel).Stats()
}

func TestAMessageThatUsedUpItsAttemptsIsADeadLetter(t *testing.T) {
	inEveryKindWith(t, 3, func(t *testing.T, b bench) {
		c := b.subscribe("orders", "billing", millrace.SubscribeOptions{})
		published := time.Now().UTC().Format(time.RFC3339Nano)
		own := millrace.Headers(nil).Append("color", "red").Append("error", "the client's own").Append("color", "blue")
		if err := b.Publish("orders", []millrace.Message{{Headers: own, Body: []byte("bad")}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		refuse(t, c, 1, 3)
		nothing(t, c, time.Hour)
		letter := receive(t, b.deadLetters("orders"), 1)[0]
		if string(letter.Body) != "bad" || letter.Attempt != 1 {
			t.Errorf("the letter is %s", describe([]millrace.Delivery{letter}))
		}
		if !strings.HasSuffix(string(letter.Headers), string(own)) {
			t.Errorf("the message's own headers are not kept: %q", letter.Headers)
		}
		for key, want := range map[string]string{
			millrace.HeaderError:     "delivered 3 times without being finished",
			millrace.HeaderErrorKind: broker.KindUnfinished,
			millrace.HeaderAttempts:  "3",
			millrace.HeaderQueue:     "orders",
			millrace.HeaderChannel:   "billing",
			millrace.HeaderSequence:  "1",
			millrace.HeaderPublished: published,
			"color":                  "red",
		} {
			if got := letter.Headers.Text(key); got != want {
				t.Errorf("header %s: %q, want %q", key, got, want)
			}
		}
		s := b.stats("orders", "billing")
		if s.Dead != 1 || s.Finished != 0 || s.Requeued != 3 || s.Ready+s.InFlight+s.Deferred != 0 {
			t.Errorf("the channel says %+v", s)
		}
	})
}

func TestWithoutALimitMessagesAreDeliveredUntilTheyAreAcked(t *testing.T) {
	inEveryKindWith(t, 0, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "a")
		refuse(t, c, 1, 100)
		wantDeliveries(t, receive(t, c, 1), "a@101")
		if b.Lookup("t.dead") != nil {
			t.Error("there are dead letters")
		}
	})
}

// Whatever ends a delivery, it was one.
func TestEveryDeliveryIsAnAttempt(t *testing.T) {
	for name, fail := range map[string]func(t *testing.T, b bench, c *broker.Consumer) *broker.Consumer{
		"given back": func(t *testing.T, _ bench, c *broker.Consumer) *broker.Consumer {
			refuse(t, c, 1, 1)
			return c
		},
		"given back with a delay": func(t *testing.T, _ bench, c *broker.Consumer) *broker.Consumer {
			if err := c.Nack(t.Context(), 10*time.Second, receive(t, c, 1)...); err != nil {
				t.Error(err)
			}
			return c
		},
		"the lease ended": func(t *testing.T, _ bench, c *broker.Consumer) *broker.Consumer {
			receive(t, c, 1)
			time.Sleep(millrace.DefaultLease)
			return c
		},
		"the consumer closed": func(t *testing.T, b bench, c *broker.Consumer) *broker.Consumer {
			receive(t, c, 1)
			c.Close()
			return b.subscribe("t", "c", millrace.SubscribeOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inEveryKindWith(t, 2, func(t *testing.T, b bench) {
				c := b.subscribe("t", "c", millrace.SubscribeOptions{})
				// A message that waits before it is delivered at all has not been delivered.
				if err := b.Publish("t", []millrace.Message{{Body: []byte("a"), Delay: time.Second}}); err != nil {
					t.Fatal(err)
				}
				c = fail(t, b, c)
				c = fail(t, b, c)
				nothing(t, c, time.Hour)
				wantDeliveries(t, receive(t, b.deadLetters("t"), 1), "a@1")
			})
		})
	}
}

// The last attempt counts like the others: what it acks is no dead letter.
func TestTheLastAttemptCanSucceed(t *testing.T) {
	inEveryKindWith(t, 2, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "a")
		refuse(t, c, 1, 1)
		ack(t, c, receive(t, c, 1)...)
		nothing(t, c, time.Hour)
		if s := b.stats("t", "c"); s.Dead != 0 || s.Finished != 1 || b.Lookup("t.dead") != nil {
			t.Errorf("the channel says %+v", s)
		}
	})
}

// A consumer that would have got it gets the next one instead, though it has room for one.
func TestADeadLetterTakesNoRoomOfItsConsumer(t *testing.T) {
	inEveryKindWith(t, 1, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1})
		b.publish("t", numbers(0, 5)...)
		for i := range 5 {
			d := receive(t, c, 1)
			wantDeliveries(t, d, fmt.Sprintf("%d@1", i))
			if err := c.Nack(t.Context(), 0, d...); err != nil {
				t.Error(err)
			}
		}
		nothing(t, c, time.Hour)
		if c.Held() != 0 {
			t.Errorf("the consumer holds %d", c.Held())
		}
		wantDeliveries(t, receive(t, b.deadLetters("t"), 5), "0@1 1@1 2@1 3@1 4@1")
	})
}

func TestEachChannelGivesUpForItself(t *testing.T) {
	inEveryKindWith(t, 1, func(t *testing.T, b bench) {
		bad, good := b.subscribe("t", "bad", millrace.SubscribeOptions{}), b.subscribe("t", "good", millrace.SubscribeOptions{})
		b.publish("t", "a")
		refuse(t, bad, 1, 1)
		nothing(t, bad, time.Second)
		ack(t, good, receive(t, good, 1)...)
		letters := b.deadLetters("t")
		letter := receive(t, letters, 1)
		if got := letter[0].Headers.Text(millrace.HeaderChannel); got != "bad" {
			t.Errorf("channel %s gave it up", got)
		}
		ack(t, letters, letter...)
		nothing(t, letters, time.Hour)
	})
}

// Whoever else reads the topic of dead letters, they wait in their channel.
func TestDeadLettersWaitInTheirChannel(t *testing.T) {
	inEveryKindWith(t, 1, func(t *testing.T, b bench) {
		audit := b.subscribe("t.dead", "audit", millrace.SubscribeOptions{})
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "a")
		refuse(t, c, 1, 1)
		nothing(t, c, time.Second)
		wantDeliveries(t, receive(t, audit, 1), "a@1")
		wantDeliveries(t, receive(t, b.deadLetters("t"), 1), "a@1")
	})
}

func TestDeadLettersAreNotBuriedAgain(t *testing.T) {
	inEveryKindWith(t, 1, func(t *testing.T, b bench) {
		for _, topic := range []string{"t", "e#ephemeral"} {
			c := b.subscribe(topic, "c", millrace.SubscribeOptions{})
			b.publish(topic, "a")
			refuse(t, c, 1, 1)
			nothing(t, c, time.Second)
			letters := b.deadLetters(topic)
			refuse(t, letters, 1, 10)
			wantDeliveries(t, receive(t, letters, 1), "a@11")
			for _, b := range b.Topics() {
				if strings.Contains(b.Name(), ".dead.dead") {
					t.Errorf("there is a topic %s", b.Name())
				}
			}
		}
	})
}

// The letters of an ephemeral topic are as safe as its messages were: in memory.
func TestTheDeadLettersOfAnEphemeralTopicAreEphemeral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		opts := broker.Options{Dir: "data", MaxAttempts: 1}.On(disk)
		b := open(t, opts)
		c := b.subscribe("e#ephemeral", "c", millrace.SubscribeOptions{})
		b.publish("e#ephemeral", "a")
		refuse(t, c, 1, 1)
		nothing(t, c, time.Second)
		c.Close()
		wantDeliveries(t, receive(t, b.subscribe("e.dead#ephemeral", "dead", millrace.SubscribeOptions{}), 1), "a@1")
		closed(b, disk)
		if b = open(t, opts); b.Lookup("e.dead#ephemeral") != nil {
			t.Error("they outlived a restart")
		}
	})
}

// Of these a worker makes a dead letter, and an answer.
func TestATaskWhoseAnswerIsAwaitedIsLeftToWorkers(t *testing.T) {
	inEveryKindWith(t, 2, func(t *testing.T, b bench) {
		c := b.subscribe("q", "work", millrace.SubscribeOptions{})
		if err := b.Publish("q", []millrace.Message{
			{Body: []byte("asked"), Headers: millrace.Headers(nil).Append(millrace.HeaderID, "j-0").Append(millrace.HeaderReplyTo, "r")},
			{Body: []byte("told"), Headers: millrace.Headers(nil).Append(millrace.HeaderID, "j-1")},
			{Body: []byte("nobody"), Headers: millrace.Headers(nil).Append(millrace.HeaderReplyTo, "")},
		}); err != nil {
			t.Fatal(err)
		}
		refuse(t, c, 3, 2)
		refuse(t, c, 1, 20)
		wantDeliveries(t, receive(t, c, 1), "asked@23")
		wantDeliveries(t, receive(t, b.deadLetters("q"), 2), "told@1 nobody@1")
	})
}

// One that was as large as a message can be has headers more as a letter.
func TestTheLargestMessageFitsIntoALetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const largest = 1000
		b := open(t, broker.Options{MaxMessage: largest, MaxAttempts: 1})
		topic := strings.Repeat("t", millrace.MaxNameLen-len(millrace.DeadSuffix))
		c := b.subscribe(topic, strings.Repeat("c", millrace.MaxNameLen), millrace.SubscribeOptions{})
		b.publish(topic, strings.Repeat("x", largest))
		refuse(t, c, 1, 1)
		nothing(t, c, time.Second)
		if got := receive(t, b.deadLetters(topic), 1)[0]; len(got.Body) != largest {
			t.Errorf("%d bytes are left of it", len(got.Body))
		}
	})
}

// A limit that was lowered holds for what was delivered before.
func TestDeliveriesBeforeARestartCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "a", "b")
		refuse(t, c, 2, 6)
		receive(t, c, 1)
		closed(b, disk)
		b = open(t, broker.Options{Dir: "data", MaxAttempts: 3}.On(disk))
		c = b.subscribe("t", "c", millrace.SubscribeOptions{})
		nothing(t, c, time.Second)
		attempts := map[string]string{}
		for _, d := range receive(t, b.deadLetters("t"), 2) {
			attempts[string(d.Body)] = d.Headers.Text(millrace.HeaderAttempts)
		}
		if !maps.Equal(attempts, map[string]string{"a": "7", "b": "6"}) {
			t.Errorf("attempts %v", attempts)
		}
	})
}
