package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Each subscription has an inbox: a queue of its own, which goes with its connection. Through inboxExchange
// all subscriptions to a queue, or a topic, can be told something at once. What, is the type of
// the message.
const (
	askHeld = "held?" // to be answered with what is held
	// tellDeleted is told before a channel or its topic is deleted. The server does cancel the
	// consumers of a queue that is deleted, but not if there is another one of that name when
	// it gets to that: then it moves them there, where they may be another channel's.
	tellDeleted = "deleted"
)

// tellWithin is how much later than a consumer's end an inbox may hear of why.
const tellWithin = time.Second

// openInbox makes the inbox of a subscription, and enters it into the roster of its queue, until the
// connection ends. It has another channel, because deliveries of all kinds are numbered together.
func (s *subscription) openInbox(ctx context.Context, c *consuming, queue string) error {
	var inbox <-chan amqp.Delivery
	err := s.b.inTime(ctx, c.conn, func() error {
		ch, err := c.conn.Channel()
		if err != nil {
			return err
		}
		q, err := ch.QueueDeclare("", false, true, true, false, nil)
		if err != nil {
			return err
		}
		for _, key := range []string{queueKey(queue), topicKey(s.topic)} {
			if err := ch.QueueBind(q.Name, key, inboxExchange, true, nil); err != nil {
				return err
			}
		}
		inbox, err = ch.Consume(q.Name, "", true, true, false, false, nil)
		return err
	})
	if err != nil {
		return err
	}
	nothing, err := s.enrol(ctx, c, queue)
	if err != nil {
		return err
	}
	c.routines.Go(func() { s.stayEnrolled(c, queue, nothing) })
	c.routines.Go(func() {
		for d := range inbox {
			s.told(c, queue, &d)
		}
	})
	return nil
}

// enrol enters the subscription into the roster of its queue, on a channel of its own. Nothing
// comes from there.
func (s *subscription) enrol(ctx context.Context, c *consuming, queue string) (nothing <-chan amqp.Delivery, err error) {
	err = s.b.inTime(ctx, c.conn, func() error {
		ch, err := c.conn.Channel()
		if err != nil {
			return err
		}
		if err = s.b.declarePassing(ch, roster(queue)); err == nil {
			nothing, err = ch.Consume(roster(queue), "", true, false, false, false, nil)
		}
		if err != nil {
			_ = ch.Close() // it may have ended with the error
		}
		return err
	})
	return nothing, err
}

// stayEnrolled enters the subscription again when the node has gone that had the roster.
func (s *subscription) stayEnrolled(c *consuming, queue string, nothing <-chan amqp.Delivery) {
	for try := 0; ; try++ {
		if nothing != nil {
			for range nothing { // until the roster, or the connection, has gone
			}
			try = 0
		}
		if c.ctx.Err() != nil || c.conn.IsClosed() {
			return
		}
		sleep(c.ctx, backoff(try))
		nothing, _ = s.enrol(c.ctx, c, queue) // until then Depth says that somebody does not answer
	}
}

// told does what an inbox is told.
func (s *subscription) told(c *consuming, queue string, d *amqp.Delivery) {
	switch d.Type {
	case tellDeleted:
		wake(c.deleted)
	case askHeld:
		a, _ := s.answer(queue)
		a.Process, a.Deferred = s.b.name, s.b.deferrals.count(s.topic, queue)
		body, err := json.Marshal(a)
		if err != nil {
			panic(err) // two numbers can be encoded
		}
		letters := []letter{{key: d.ReplyTo, message: amqp.Publishing{Body: body}}}
		bounded, cancel := context.WithTimeout(c.ctx, censusWithin)
		defer cancel()
		_ = s.b.send(bounded, letters, errIsGone) // whoever asked gives up as well
	}
}

// tellDeleted ends all subscriptions that the key is of.
func (b *Broker) tellDeleted(ctx context.Context, key string) error {
	letters := []letter{{exchange: inboxExchange, key: key, message: amqp.Publishing{Type: tellDeleted}}}
	err := b.send(ctx, letters, errIsGone)
	if errors.Is(err, errGone) {
		err = nil // there are none
	}
	return err
}
