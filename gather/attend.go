package gather

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/control"
)

// attendAgain is how long a client waits before it tries again to be seen.
const attendAgain = time.Second

// attend lets the workers see that the client is there, until it ends. When they see for
// some time that it is not, because its process was killed, they remove its reply topic.
func (c *Client) attend() {
	for {
		_ = c.beSeen() // when the broker is gone for good, receive is told too
		select {
		case <-time.After(attendAgain):
		case <-c.ctx.Done():
			return
		}
	}
}

// beSeen has a channel on the control topic, which goes with the client. What is said there
// is for workers.
func (c *Client) beSeen() error {
	topic := control.Topic(c.queue)
	sub, err := c.broker.Subscribe(c.ctx, topic, control.ClientChannel(c.id), millrace.SubscribeOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = sub.Close() }()
	hello := control.Order{Op: control.Attend, ReplyTo: c.replyTo}
	if err := c.broker.Publish(c.ctx, topic, hello.Encode()); err != nil {
		return err
	}
	buf := make([]millrace.Delivery, 16)
	for {
		n, err := sub.Receive(c.ctx, buf)
		if err != nil {
			return err
		}
		if err := sub.Ack(c.ctx, buf[:n]...); err != nil && !errors.Is(err, millrace.ErrLeaseLost) {
			return err
		}
		clear(buf[:n])
	}
}

// listen subscribes to the reply topic, and makes it if need be.
func (c *Client) listen(ctx context.Context) (err error) {
	if err := c.broker.Declare(ctx, c.replyTo, control.ReplyChannel); err != nil {
		return fmt.Errorf("gather: declare reply topic %s: %w", c.replyTo, err)
	}
	c.replies, err = c.broker.Subscribe(ctx, c.replyTo, control.ReplyChannel, millrace.SubscribeOptions{Prefetch: 2 * receiveBatch, Lease: replyLease})
	if err != nil {
		return fmt.Errorf("gather: subscribe to reply topic %s: %w", c.replyTo, err)
	}
	return nil
}
