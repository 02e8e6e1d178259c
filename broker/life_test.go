package broker_test

import (
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

const (
	crashSegment = 256       // bytes: a segment holds few messages, so that many are begun and removed
	deferral     = time.Hour // of what is deferred
)

// life drives a broker through its life and keeps the claims up to date: begun things
// before a call, done ones after it.
type life struct {
	t *testing.T
	b *broker.Broker

	mayFail bool // then the first error ends the life

	mu     sync.Mutex // guards claims: a crash is taken in whatever goroutine writes
	claims claims
}

func (l *life) know(f func(claims)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l.claims)
}

func (l *life) must(err error) {
	l.t.Helper()
	if err != nil && l.mayFail {
		panic(fatal{err})
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

type fatal struct{ error }

// lead leads a whole life, or until the first error, which it returns.
func (l *life) lead(opts broker.Options) (err error) {
	defer func() {
		if end := recover(); end != nil {
			err = end.(fatal).error
		}
	}()
	l.wholeLife(opts)
	return nil
}

func (l *life) publish(topic string, delay time.Duration, bodies ...string) {
	msgs := messages(bodies...)
	for i := range msgs {
		msgs[i].Delay = delay
	}
	l.know(func(cs claims) {
		t := cs.topic(topic)
		t.presence = max(t.presence, maybe)
		for _, c := range t.receivers() {
			for _, body := range bodies {
				c.may[body] = true
			}
		}
	})
	due := time.Now().Add(delay)
	l.must(l.b.Publish(topic, msgs))
	l.know(func(cs claims) {
		t := cs.topic(topic)
		t.presence = present
		for _, c := range t.receivers() {
			for _, body := range bodies {
				c.must[body] = due
			}
		}
	})
}

func (l *life) channel(topic, channel string) {
	l.know(func(cs claims) {
		t := cs.topic(topic)
		t.presence = max(t.presence, maybe)
		if t.channels[channel] == nil || t.channels[channel].presence == absent {
			c := newChannelClaim()
			if r := t.receivers(); r[0] == &t.waiting {
				c = t.waiting.clone()
			}
			c.presence = maybe
			t.channels[channel] = &c
		}
	})
	_, err := l.b.Channel(topic, channel)
	l.must(err)
	l.know(func(cs claims) {
		t := cs.topic(topic)
		t.presence, t.channels[channel].presence = present, present
		t.waiting = newChannelClaim()
	})
}

func (l *life) deleteChannel(topic, channel string) {
	l.know(func(cs claims) {
		c := cs.topic(topic).channels[channel]
		c.presence = maybe
		clear(c.must)
	})
	l.must(l.b.DeleteChannel(topic, channel))
	l.know(func(cs claims) { cs.topic(topic).channels[channel].presence = absent })
}

func (l *life) deleteTopic(topic string) {
	l.know(func(cs claims) {
		t := cs.topic(topic)
		t.presence = maybe
		clear(t.waiting.must)
		for _, c := range t.channels {
			c.presence = min(c.presence, maybe)
			clear(c.must)
		}
	})
	l.must(l.b.DeleteTopic(topic))
	l.know(func(cs claims) { delete(cs, topic); cs.topic(topic) })
}

// consume receives n messages of a channel and does f with them, which may end leases.
func (l *life) consume(topic, channel string, n int, f func(c *broker.Consumer, ds []millrace.Delivery)) {
	c, err := l.b.Subscribe(topic, channel, millrace.SubscribeOptions{})
	l.must(err)
	defer c.Close()
	var all []millrace.Delivery
	for len(all) < n {
		buf := make([]millrace.Delivery, n-len(all))
		n, err := c.Receive(l.t.Context(), buf)
		l.must(err)
		all = append(all, buf[:n]...)
	}
	l.know(func(cs claims) {
		for _, d := range all {
			if claim := cs.topic(topic).channels[channel]; !claim.may[string(d.Body)] {
				l.t.Errorf("channel %s of %s delivers %s, which it should never", channel, topic, d.Body)
			}
		}
	})
	f(c, all)
}

func (l *life) ack(topic, channel string, n int) {
	l.consume(topic, channel, n, func(c *broker.Consumer, ds []millrace.Delivery) {
		l.know(func(cs claims) {
			for _, d := range ds {
				claim := cs.topic(topic).channels[channel]
				delete(claim.must, string(d.Body))
				claim.acked[string(d.Body)] = true
			}
		})
		l.must(c.Ack(l.t.Context(), ds...))
	})
}

func (l *life) nack(topic, channel string, n int, delay time.Duration) {
	l.consume(topic, channel, n, func(c *broker.Consumer, ds []millrace.Delivery) {
		l.must(c.Nack(l.t.Context(), delay, ds...))
		due := time.Now().Add(delay)
		l.know(func(cs claims) {
			for _, d := range ds {
				cs.topic(topic).channels[channel].must[string(d.Body)] = due
			}
		})
	})
}

// close stops cleanly: from then on nothing that was acked comes back.
func (l *life) close() {
	b := l.b
	l.b = nil
	l.must(b.Close())
	l.know(func(cs claims) {
		for _, t := range cs {
			for _, c := range t.channels {
				for body := range c.acked {
					delete(c.may, body)
				}
			}
		}
	})
}

// wholeLife does everything that a broker does to its disk.
func (l *life) wholeLife(opts broker.Options) {
	open := func() {
		b, err := broker.Open(opts)
		l.must(err)
		l.b = b
	}
	open()
	l.publish("t", 0, "a", "b", "c")
	l.channel("t", "one")
	l.ack("t", "one", 2)
	l.publish("t", deferral, "d", "e")
	l.publish("t", 0, "f", "g", "h", "i")
	l.channel("t", "two")
	l.publish("t", 0, "j", "k", "l")
	l.nack("t", "one", 2, deferral)
	l.nack("t", "one", 1, 0)
	l.ack("t", "one", 4)
	l.ack("t", "two", 2)
	time.Sleep(200 * time.Millisecond) // the housekeeper comes
	l.publish("t", 0, "m", "n", "o", "p", "q", "r")
	l.ack("t", "two", 4)
	time.Sleep(200 * time.Millisecond)
	l.publish("u", 0, "a", "b")
	l.channel("u", "one")
	l.ack("u", "one", 1)
	l.deleteTopic("u")
	l.publish("u", 0, "c")
	l.channel("u", "one")
	l.close()
	open()
	l.ack("t", "two", 2)
	l.deleteChannel("t", "one")
	l.publish("t", 0, "s", "t", "u")
	time.Sleep(200 * time.Millisecond)
	l.ack("t", "two", 2)
	l.deleteChannel("t", "two")
	l.publish("t", 0, "v")
	l.channel("t", "three")
	l.publish("t", 0, "w")
	l.ack("u", "one", 1)
	l.close()
	open()
	l.ack("t", "three", 1)
	l.deleteTopic("t")
	l.publish("u", 0, "d")
	l.close()
}
