package broker

import (
	"context"

	"github.com/millrace/millrace"
)

// Wait waits until a Receive might not have to, so that whoever has many consumers needs
// a buffer only for those that have something. It returns the errors of Receive.
func (c *Consumer) Wait(ctx context.Context) error {
	select {
	case c.receiving <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.done:
		return c.endError()
	}
	defer func() { <-c.receiving }()
	for {
		if ctx.Err() != nil {
			c.giveUp()
			return context.Cause(ctx)
		}
		if ready, err := c.look(); ready || err != nil {
			return err
		}
		select {
		case <-c.wake:
		case <-c.done:
			return c.endError()
		case <-ctx.Done():
		}
	}
}

// look says whether there is something to take, and room for it. If not, the consumer is
// on the waiting list, or is woken by what makes room. What has become due is there when
// the alarm has rung.
func (c *Consumer) look() (ready bool, err error) {
	ch := c.channel
	var next *Consumer
	ch.mu.Lock()
	ch.leave(c)
	c.full = false
	switch {
	case c.closed || ch.ended != nil:
		ch.mu.Unlock()
		return false, c.endError()
	case c.room() <= 0:
		c.full = true
		next = ch.passOn()
	case !ch.hasMore():
		ch.wait(c)
	default:
		ready = true
	}
	ch.mu.Unlock()
	next.wakeUp()
	return ready, nil
}

// TryReceive is Receive that waits for nothing: it returns 0 when there is nothing for the
// consumer now, or when another Receive runs.
func (c *Consumer) TryReceive(buf []millrace.Delivery) (int, error) {
	if len(buf) == 0 {
		return 0, nil
	}
	select {
	case c.receiving <- struct{}{}:
	default:
		return 0, nil
	}
	defer func() { <-c.receiving }()
	n, err := c.take(buf)
	if n == 0 {
		c.giveUp() // nobody is to wake it up, for it does not wait
	}
	return n, err
}
