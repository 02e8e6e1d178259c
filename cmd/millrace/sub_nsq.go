package main

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/nsqio/go-nsq"

	"github.com/millrace/millrace"
)

const (
	// reconnectAfter is how long a consumer waits before it looks for a broker that has
	// gone.
	reconnectAfter = time.Second
	// goodbye is how long a consumer waits for the broker's last word.
	goodbye = 2 * time.Second
)

// nsqConsumer is a consumer by NSQ's protocol, with what sub needs of a
// millrace.Subscription.
type nsqConsumer struct {
	consumer *nsq.Consumer
	incoming chan *nsq.Message
	fatal    chan error // why the broker has refused it; has room for one

	mu   sync.Mutex // guards what follows
	next uint64
	held map[uint64]*nsq.Message // by Delivery.Tag
}

// subscribeNSQ subscribes to a channel of the broker at the address.
func subscribeNSQ(at *nsqAddress, topic, channel string, prefetch int) (*nsqConsumer, error) {
	cfg := nsqConfig(at)
	cfg.MaxAttempts = 0 // go-nsq would drop messages
	cfg.MaxInFlight = prefetch
	cfg.LookupdPollInterval, cfg.LookupdPollJitter = reconnectAfter, 0
	cfg.OutputBufferTimeout = 25 * time.Millisecond
	consumer, err := nsq.NewConsumer(topic, channel, cfg)
	if err != nil {
		return nil, err
	}
	c := &nsqConsumer{
		consumer: consumer,
		incoming: make(chan *nsq.Message, prefetch),
		fatal:    make(chan error, 1),
		held:     make(map[uint64]*nsq.Message),
	}
	consumer.SetLogger(nsqComplaints{c.fatal}, nsq.LogLevelError)
	consumer.AddHandler(nsq.HandlerFunc(func(m *nsq.Message) error {
		m.DisableAutoResponse()
		c.incoming <- m // there is room for as many as may be in flight
		return nil
	}))
	if err := consumer.ConnectToNSQD(at.tcp); err != nil {
		consumer.Stop()
		return nil, cannotReach(at.tcp, err)
	}
	return c, nil
}

// nsqComplaints is where go-nsq logs errors: the only way to learn that a subscription was
// refused.
type nsqComplaints struct{ fatal chan error }

// Output implements go-nsq's logger.
func (l nsqComplaints) Output(_ int, line string) error {
	_, reason, found := strings.Cut(line, "protocol error - ")
	code, _, _ := strings.Cut(reason, " ")
	switch code {
	case "E_FIN_FAILED", "E_REQ_FAILED", "E_TOUCH_FAILED":
		return nil // the message will come again
	}
	if found {
		select {
		case l.fatal <- &refusal{reason: reason}:
		default:
		}
	}
	return nil
}

// Receive waits until there is at least one delivery, and fills buf with what is there.
func (c *nsqConsumer) Receive(ctx context.Context, buf []millrace.Delivery) (n int, err error) {
	select {
	case m := <-c.incoming:
		buf[0], n = c.hold(m), 1
	case err := <-c.fatal:
		return 0, err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	for n < len(buf) {
		select {
		case m := <-c.incoming:
			buf[n] = c.hold(m)
			n++
		default:
			return n, nil
		}
	}
	return n, nil
}

func (c *nsqConsumer) hold(m *nsq.Message) millrace.Delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	c.held[c.next] = m
	d := millrace.Delivery{Attempt: uint32(m.Attempts), Published: m.Timestamp, Tag: c.next}
	d.Body = m.Body
	var seq [8]byte
	if n, err := hex.Decode(seq[:], m.ID[:]); err == nil && n == len(seq) {
		for _, b := range seq {
			d.Seq = d.Seq<<8 | uint64(b)
		}
	}
	return d
}

// Ack finishes the messages.
func (c *nsqConsumer) Ack(_ context.Context, ds ...millrace.Delivery) error {
	for _, d := range ds {
		c.mu.Lock()
		m := c.held[d.Tag]
		delete(c.held, d.Tag)
		c.mu.Unlock()
		if m != nil {
			m.Finish()
		}
	}
	return nil
}

// SetPrefetch changes the most messages that are in flight.
func (c *nsqConsumer) SetPrefetch(n int) { c.consumer.ChangeMaxInFlight(n) }

// Close gives back what is held, and ends the subscription.
func (c *nsqConsumer) Close() error {
	c.mu.Lock()
	for _, m := range c.held {
		m.RequeueWithoutBackoff(0)
	}
	clear(c.held)
	c.mu.Unlock()
	c.consumer.Stop()
	late := time.After(goodbye)
	for {
		select {
		case m := <-c.incoming:
			m.RequeueWithoutBackoff(0)
		case <-c.consumer.StopChan:
			return nil
		case <-late:
			return errors.New("the broker does not answer; what was in flight is delivered again")
		}
	}
}
