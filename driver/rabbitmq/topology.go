package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace/millrace"
)

// A topic on the server. A message goes to the queues of all channels; when there is none, it
// cannot be routed, and RabbitMQ gives it to the alternate exchange, which has the
// topic's own queue. The first durable channel takes that queue over by binding it to the
// topic's exchange: no message is in both queues, or in none, at any moment.
//
//	           TOPIC (fanout) ──┬──► queue TOPIC            the first channel
//	             │              ├──► queue TOPIC/CHANNEL    another
//	not routable │              └──► queue TOPIC/NAME#ephemeral
//	             ▼
//	 TOPIC//unclaimed (fanout) ───► queue TOPIC

// declareTopic makes sure that the topic exists. A queue of its name that is there already is
// used whatever its arguments are.
func (b *Broker) declareTopic(ctx context.Context, topic string) error {
	err := b.control(ctx, func(ch *amqp.Channel) error { return b.makeTopic(ch, topic, true) })
	if hasCode(err, amqp.PreconditionFailed) && strings.Contains(err.Error(), "queue") {
		err = b.control(ctx, func(ch *amqp.Channel) error { return b.makeTopic(ch, topic, false) })
	}
	if hasCode(err, amqp.PreconditionFailed) {
		return fmt.Errorf("the exchange %q is of another kind than a topic's: choose another name, or a vhost for Millrace alone: %w", topic, err)
	}
	if err == nil {
		b.known.add(topic)
	}
	return err
}

// makeTopic asks for everything at once, and waits for the last answer.
func (b *Broker) makeTopic(ch *amqp.Channel, topic string, withQueue bool) error {
	const wait, noWait = false, true
	ephemeral := millrace.Ephemeral(topic)
	durable := !ephemeral
	if err := ch.ExchangeDeclare(topic, amqp.ExchangeFanout, durable, ephemeral, false, noWait,
		amqp.Table{"alternate-exchange": topic + unclaimedSuffix}); err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(topic+unclaimedSuffix, amqp.ExchangeFanout, durable, ephemeral, true, noWait, nil); err != nil {
		return err
	}
	if withQueue {
		if _, err := ch.QueueDeclare(topic, true, false, false, noWait, b.topicQueue(ephemeral)); err != nil {
			return err
		}
	}
	for _, key := range []string{topicKey(topic), queueKey(topic)} {
		bind := ch.ExchangeBind
		if key == queueKey(topic) {
			bind = ch.QueueBind
		}
		if err := bind(topic, key, arriveExchange, noWait, nil); err != nil {
			return err
		}
	}
	return ch.QueueBind(topic, "", topic+unclaimedSuffix, wait, nil)
}

// topicQueue returns the arguments of a topic's queue. That of an ephemeral topic goes when
// nobody has come for half an hour.
func (b *Broker) topicQueue(ephemeral bool) amqp.Table {
	if ephemeral {
		return b.quorum(amqp.Table{"x-expires": int64(30 * 60 * 1000)})
	}
	return b.quorum(nil)
}

// quorum returns the arguments of a replicated queue. From 4.0 on RabbitMQ would drop a
// message at its twentieth delivery.
func (b *Broker) quorum(args amqp.Table) amqp.Table {
	if args == nil {
		args = amqp.Table{}
	}
	args["x-queue-type"] = "quorum"
	if b.version.Load() >= 400 {
		args["x-delivery-limit"] = int64(-1)
	}
	return args
}

// declareChannel makes sure that the topic and the channel exist, and returns the channel's queue.
func (b *Broker) declareChannel(ctx context.Context, topic, channel string) (queue string, err error) {
	if err := b.declareTopic(ctx, topic); err != nil {
		return "", err
	}
	if millrace.Ephemeral(channel) || millrace.Ephemeral(topic) {
		c, err := b.controls.get(ctx)
		if err != nil {
			return "", err
		}
		queue = ownQueue(topic, channel)
		return queue, b.declareEphemeral(ctx, c, topic, queue)
	}
	switch isFirst, err := b.claim(ctx, topic, channel); {
	case err != nil:
		return "", err
	case isFirst:
		return topic, b.control(ctx, func(ch *amqp.Channel) error {
			return ch.QueueBind(topic, "", topic, false, nil)
		})
	}
	queue = ownQueue(topic, channel)
	there, err := b.queueExists(ctx, queue)
	if err != nil {
		return "", err
	}
	if !there {
		if err := b.noteChannel(ctx, topic, channel); err != nil {
			return "", err
		}
	}
	return queue, b.control(ctx, func(ch *amqp.Channel) error {
		if !there {
			if _, err := ch.QueueDeclare(queue, true, false, false, true, b.quorum(nil)); err != nil {
				return err
			}
		}
		return bindChannel(ch, topic, queue)
	})
}

// bindChannel makes the queue get what is published to the topic, and what is delayed for it alone.
func bindChannel(ch *amqp.Channel, topic, queue string) error {
	if err := ch.QueueBind(queue, queueKey(queue), arriveExchange, true, nil); err != nil {
		return err
	}
	return ch.QueueBind(queue, "", topic, false, nil)
}

// claim makes the channel the first of its topic, unless another one is, and returns whether it
// is now. An exchange through which nothing goes serves as a register that is set once: the server
// refuses to declare it with another alternate exchange than it has.
func (b *Broker) claim(ctx context.Context, topic, channel string) (bool, error) {
	err := b.control(ctx, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(topic+firstSuffix, amqp.ExchangeFanout, true, false, true, false,
			amqp.Table{"alternate-exchange": channel})
	})
	if hasCode(err, amqp.PreconditionFailed) {
		return false, nil
	}
	return err == nil, err
}

// declareEphemeral makes the queue of an ephemeral channel, over that connection. When the
// topic has no durable one, and this is the first, what waits in the topic is moved there.
func (b *Broker) declareEphemeral(ctx context.Context, c *conn, topic, queue string) error {
	err := b.over(ctx, c, func(ch *amqp.Channel) error {
		if err := b.declarePassing(ch, queue); err != nil {
			return err
		}
		return bindChannel(ch, topic, queue)
	})
	if err != nil {
		return err
	}
	if claimed, err := b.exchangeExists(ctx, topic+firstSuffix); err != nil || claimed {
		return err
	}
	return b.moveAll(ctx, topic, queue)
}

// moveAll moves the messages of one queue to another; what it does not get to stays.
func (b *Broker) moveAll(ctx context.Context, from, to string) error {
	for {
		more := false
		err := b.control(ctx, func(ch *amqp.Channel) error {
			d, ok, err := ch.Get(from, false)
			if more = ok; err != nil || !ok {
				return err
			}
			letters := []letter{{key: to, message: again(&d)}}
			if err := b.send(ctx, letters, errIsGone); err != nil {
				return err
			}
			return ch.Ack(d.DeliveryTag, false)
		})
		if err != nil || !more {
			return err
		}
	}
}

// errGone is returned when a message was meant for a queue that is not there any more.
var errGone = errors.New("the queue has gone")

// errIsGone is what to do when a message cannot be routed, and nothing can be done.
func errIsGone(context.Context) error { return errGone }

// noteChannel notes that the topic has this channel besides its first, for deleteTopic: RabbitMQ does not
// tell what is bound to an exchange.
func (b *Broker) noteChannel(ctx context.Context, topic, channel string) error {
	makeQueue := func(ctx context.Context) error {
		return b.control(ctx, func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare(topic+channelsSuffix, true, false, false, false, b.quorum(nil))
			return err
		})
	}
	if err := makeQueue(ctx); err != nil {
		return err
	}
	note := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(channel)}
	return b.send(ctx, []letter{{key: topic + channelsSuffix, message: note}}, makeQueue)
}

// notedChannels returns the channels that were noted, and forgets those that forget says.
func (b *Broker) notedChannels(ctx context.Context, topic string, forget func(channel string) bool) (all []string, err error) {
	err = b.control(ctx, func(ch *amqp.Channel) error {
		all = nil
		for { // what is not acked is there again when ch is closed
			d, ok, err := ch.Get(topic+channelsSuffix, false)
			if err != nil || !ok {
				return err
			}
			all = append(all, string(d.Body))
			if forget(string(d.Body)) {
				if err := ch.Ack(d.DeliveryTag, false); err != nil {
					return err
				}
			}
		}
	})
	if hasCode(err, amqp.NotFound) {
		return nil, nil
	}
	return all, err
}

func (b *Broker) queueExists(ctx context.Context, queue string) (bool, error) {
	_, err := b.inspect(ctx, queue)
	if errors.Is(err, millrace.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// inspect returns what the server tells of a queue, or millrace.ErrNotFound.
func (b *Broker) inspect(ctx context.Context, queue string) (q amqp.Queue, err error) {
	err = b.control(ctx, func(ch *amqp.Channel) error {
		q, err = ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		return err
	})
	if isMissing(err) {
		err = millrace.ErrNotFound
	}
	return q, err
}

// isMissing says whether the server knows of no such thing. A queue whose only node is down is
// not missing.
func isMissing(err error) bool {
	return hasCode(err, amqp.NotFound) && !strings.Contains(err.Error(), "down or inaccessible")
}

func (b *Broker) exchangeExists(ctx context.Context, exchange string) (bool, error) {
	err := b.control(ctx, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(exchange, amqp.ExchangeFanout, true, false, false, false, nil)
	})
	if isMissing(err) {
		return false, nil
	}
	return err == nil, err
}

// queueOf returns the queue of a channel. Returns an error that wraps millrace.ErrNotFound when there is
// no such channel.
func (b *Broker) queueOf(ctx context.Context, topic, channel string) (string, error) {
	own := ownQueue(topic, channel)
	if there, err := b.queueExists(ctx, own); err != nil || there {
		return own, err
	}
	switch claimed, err := b.exchangeExists(ctx, topic+firstSuffix); {
	case err != nil:
		return "", err
	case claimed && !millrace.Ephemeral(channel):
		isFirst, err := b.claim(ctx, topic, channel)
		if err != nil || isFirst {
			return topic, err
		}
	}
	return "", fmt.Errorf("%w: topic %s, channel %s", millrace.ErrNotFound, topic, channel)
}

// deleteChannel removes a channel with its queue. When it was the first, the next one that is
// declared is.
func (b *Broker) deleteChannel(ctx context.Context, topic, channel string) error {
	queue, err := b.queueOf(ctx, topic, channel)
	if errors.Is(err, millrace.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := b.tellDeleted(ctx, queueKey(queue)); err != nil {
		return err
	}
	if err := b.deleteQueue(ctx, queue); err != nil {
		return err
	}
	if queue == topic {
		return b.deleteExchange(ctx, topic+firstSuffix)
	}
	_, err = b.notedChannels(ctx, topic, func(other string) bool { return other == channel })
	return err
}

// deleteTopic removes everything of a topic. The queues of ephemeral channels, which nobody
// knows, go when their subscriptions end.
func (b *Broker) deleteTopic(ctx context.Context, topic string) error {
	b.known.remove(topic)
	if err := b.tellDeleted(ctx, topicKey(topic)); err != nil {
		return err
	}
	if err := b.deleteExchange(ctx, topic); err != nil {
		return err
	}
	others, err := b.notedChannels(ctx, topic, func(string) bool { return false })
	if err != nil {
		return err
	}
	for _, channel := range others {
		if err := b.deleteQueue(ctx, ownQueue(topic, channel)); err != nil {
			return err
		}
	}
	for _, queue := range []string{topic, topic + channelsSuffix} {
		if err := b.deleteQueue(ctx, queue); err != nil {
			return err
		}
	}
	for _, exchange := range []string{topic + firstSuffix, topic + unclaimedSuffix} {
		if err := b.deleteExchange(ctx, exchange); err != nil {
			return err
		}
	}
	return nil
}

func (b *Broker) deleteQueue(ctx context.Context, queue string) error {
	return b.control(ctx, func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(queue, false, false, false)
		return err
	})
}

func (b *Broker) deleteExchange(ctx context.Context, exchange string) error {
	return b.control(ctx, func(ch *amqp.Channel) error { return ch.ExchangeDelete(exchange, false, false) })
}
