package rabbitmq

import (
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Passing queues go with their last consumer: those of ephemeral channels, and rosters. They are
// transient classic queues, which in a cluster also go with the node that they are on, and are
// made again on another. (A durable one could, while its node is down, neither be used nor made nor
// removed, and what is published to its topic would be refused for it.)
//
// RabbitMQ permits those no more, from 4.3 on or when it is told so. There they are quorum queues,
// which the last consumer removes, and RabbitMQ itself when that could not.

// passingStays is how long such a quorum queue stays when its last consumer has died.
const passingStays = 10 * time.Second

// leaveWithin is how long RabbitMQ may take to notice that a channel has no consumers any more.
const leaveWithin = 200 * time.Millisecond

// firstWithout is the first version of RabbitMQ that permits no transient queues but exclusive ones.
const firstWithout = 403

// passes says whether passing queues are transient ones.
func (b *Broker) passes() bool {
	if b.addr.transient != nil {
		return *b.addr.transient
	}
	return b.version.Load() < firstWithout
}

// declarePassing makes sure that there is such a queue. One that was made and never consumed goes too.
func (b *Broker) declarePassing(ch *amqp.Channel, queue string) error {
	durable, autoDelete := false, true
	args := amqp.Table{"x-queue-type": "classic", "x-expires": queueStays.Milliseconds()}
	if !b.passes() {
		durable, autoDelete = true, false
		args = b.quorum(amqp.Table{"x-expires": passingStays.Milliseconds()})
	}
	_, err := ch.QueueDeclare(queue, durable, autoDelete, false, false, args)
	return err
}

// leave removes the queue of an ephemeral channel, when RabbitMQ would not and nobody else consumes
// it. One who comes in between makes it again: see cancelled.
func (s *subscription) leave(c *consuming) {
	if !s.ephemeral || s.b.passes() || c.conn.IsClosed() {
		return
	}
	late := time.AfterFunc(closeWithin, func() { _ = c.conn.socket.Close() })
	defer late.Stop()
	_ = c.ch.Close()
	_ = onChannel(c.conn, func(ch *amqp.Channel) error {
		for until := time.Now().Add(leaveWithin); time.Now().Before(until); time.Sleep(leaveWithin / 20) {
			q, err := ch.QueueDeclarePassive(s.queue, true, false, false, false, nil)
			if err == nil && q.Consumers == 0 {
				_, err = ch.QueueDelete(s.queue, false, false, false)
				return err
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
