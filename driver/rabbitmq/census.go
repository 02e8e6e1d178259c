package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace/millrace"
)

// RabbitMQ does not tell, over AMQP, what a queue's consumers hold. So all subscriptions to a queue,
// in whatever process, are asked, by their inboxes; the answers come by direct reply-to. That
// all have answered is known because each also consumes one queue, the roster, in which there is never
// a message.

// ErrUncounted is returned by Depth, with what is known, when some consumers do not say what
// they hold: programs in other languages never do, and one that hangs does not until the server
// has noticed.
var ErrUncounted = errors.New("some consumers do not say what they hold")

// censusWithin is how long subscriptions may take to answer.
const censusWithin = time.Second

// answer is what a subscription says of itself, and of the process that it is in.
type answer struct {
	Consumers int    `json:"consumers"` // of the queue, as the server counts them
	Held      int64  `json:"held"`
	Process   string `json:"process"`
	Deferred  int64  `json:"deferred"` // to the queue, by the whole process
}

func roster(queue string) string { return queue + "//census" }

// census adds up what the consumers of a queue say, of whom the server knows that many.
func (b *Broker) census(ctx context.Context, topic, queue string, consumers int) (answer, error) {
	own, all := b.ownAnswer(queue)
	there := 0
	switch q, err := b.inspect(ctx, roster(queue)); {
	case err == nil:
		there = q.Consumers
	case !errors.Is(err, millrace.ErrNotFound):
		return all, err
	}
	var err error
	if there > own {
		all, err = b.ask(ctx, queue, there)
	}
	all.Deferred += b.deferrals.count(topic, queue)
	if err == nil && all.Consumers < consumers {
		err = fmt.Errorf("%w: %d of %d", ErrUncounted, consumers-all.Consumers, consumers)
	}
	return all, err
}

// ownAnswer adds up the subscriptions of this process to a queue, of which there are count.
func (b *Broker) ownAnswer(queue string) (count int, all answer) {
	b.mu.Lock()
	subs := make([]*subscription, 0, len(b.subs))
	for s := range b.subs {
		subs = append(subs, s)
	}
	b.mu.Unlock()
	for _, s := range subs {
		if one, is := s.answer(queue); is {
			count++
			all.Consumers += one.Consumers
			all.Held += one.Held
		}
	}
	return count, all
}

// answer says what the subscription holds, if it is one to that queue and connected.
func (s *subscription) answer(queue string) (a answer, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil || s.queue != queue {
		return a, false
	}
	for _, one := range s.c.consumers {
		if !one.moves && (!one.cancelled || one.outstanding > 0) { // as quorum queues count
			a.Consumers++
		}
	}
	a.Held = int64(len(s.held.all))
	return a, true
}

// ask asks all subscriptions to a queue, of which there are count, and adds up what they say. What this
// process has delayed is left out.
func (b *Broker) ask(ctx context.Context, queue string, count int) (all answer, err error) {
	c, err := b.publishes.get(ctx)
	if err != nil {
		return all, err
	}
	if err := c.unblocked(ctx); err != nil {
		return all, err
	}
	bounded, cancel := context.WithTimeout(ctx, censusWithin)
	defer cancel()
	said := make(chan answer, count)
	err = b.inTime(bounded, c, func() error {
		ch, err := c.Channel()
		if err != nil {
			return err
		}
		defer func() { _ = ch.Close() }()
		answers, err := ch.Consume("amq.rabbitmq.reply-to", "", true, true, false, false, nil)
		if err != nil {
			return err
		}
		question := amqp.Publishing{Type: askHeld, ReplyTo: "amq.rabbitmq.reply-to"}
		if err := ch.PublishWithContext(bounded, inboxExchange, queueKey(queue), false, false, question); err != nil {
			return err
		}
		for range count {
			select {
			case d, ok := <-answers:
				var a answer
				if !ok || json.Unmarshal(d.Body, &a) != nil {
					return ErrUncounted
				}
				said <- a
			case <-bounded.Done():
				return ErrUncounted
			}
		}
		return nil
	})
	processes := map[string]bool{b.name: true} // of which what they have delayed is counted
	for range len(said) {
		a := <-said
		all.Consumers += a.Consumers
		all.Held += a.Held
		if !processes[a.Process] {
			all.Deferred += a.Deferred
			processes[a.Process] = true
		}
	}
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		err = ErrUncounted
	}
	return all, err
}
