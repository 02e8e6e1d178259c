package broker

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace"
)

// Consumer is one of those that compete for a channel's messages. It is a
// millrace.Subscription.
type Consumer struct {
	channel *Channel
	id      uint32
	lease   time.Duration
	wake    chan struct{} // there may be something to receive, or room for it
	done    chan struct{} // closed when the consumer is

	receiving chan struct{} // holds a token while a Receive runs

	silent atomic.Bool // it is quiet, and a lease of its has ended since it spoke

	// The channel's lock guards what follows.
	prefetch int
	held     int  // deliveries that are neither acked nor given back
	full     bool // its Receive waits for room
	waits    bool // it is on the channel's waiting list
	closed   bool
	quiet    bool                 // see SetQuiet
	extended map[uint64]firstSeen // by ExtendSeqs; nil until it was used
}

var _ millrace.Subscription = (*Consumer)(nil)

func newConsumer(ch *Channel, id uint32, opts millrace.SubscribeOptions) *Consumer {
	return &Consumer{
		channel: ch, id: id, lease: opts.Lease, prefetch: opts.Prefetch,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		receiving: make(chan struct{}, 1),
	}
}

// wakeUp makes the consumer look again. On nil it does nothing.
func (c *Consumer) wakeUp() {
	if c == nil {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Receive waits for at least one message and fills buf with those that are there. See
// millrace.Subscription.
func (c *Consumer) Receive(ctx context.Context, buf []millrace.Delivery) (int, error) {
	if len(buf) == 0 {
		return 0, nil
	}
	select {
	case c.receiving <- struct{}{}:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-c.done:
		return 0, c.endError()
	}
	defer func() { <-c.receiving }()
	for {
		if ctx.Err() != nil {
			c.giveUp()
			return 0, context.Cause(ctx)
		}
		n, err := c.take(buf)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-c.wake:
		case <-c.done:
			return 0, c.endError()
		case <-ctx.Done():
		}
	}
}

// giveUp leaves the waiting list, and passes on a wake-up that will not be used: the
// context may have ended before or after it came.
func (c *Consumer) giveUp() {
	ch := c.channel
	ch.mu.Lock()
	ch.leave(c)
	next := ch.passOn()
	ch.mu.Unlock()
	next.wakeUp()
}

// endError says why the consumer, which is closed, gets nothing.
func (c *Consumer) endError() error {
	err := c.channel.ending()
	if err == nil {
		err = millrace.ErrClosed
	}
	return c.channel.errorf(err)
}

// tag names a lease of this consumer's: other consumers have other tags for whatever
// they get, and the same consumer for each attempt.
func (c *Consumer) tag(attempt uint32) uint64 { return uint64(c.id)<<32 | uint64(attempt) }

// settle applies op to the lease of each delivery and gathers those that had ended.
func (c *Consumer) settle(ds []millrace.Delivery, ends bool, op func(seq uint64, attempt uint32) bool) error {
	l := c.channel.ledger
	return c.settleEach(len(ds), ends, func(i int) bool {
		attempt := uint32(ds[i].Tag) //nolint:gosec // the lower half is meant
		if ds[i].Tag != c.tag(attempt) {
			return false
		}
		// After a replay somebody else may hold the same attempt.
		owner, _, ok := l.InFlight(ds[i].Seq, attempt)
		return ok && owner == c.id && op(ds[i].Seq, attempt)
	})
}

// settleEach calls op for 0 to n-1, with the lock held, and gathers those for which the
// lease had ended. ends says that op ends leases.
func (c *Consumer) settleEach(n int, ends bool, op func(i int) bool) error {
	if n == 0 {
		return nil
	}
	ch := c.channel
	ch.mu.Lock()
	if ch.ended != nil || c.closed {
		ch.mu.Unlock()
		return c.endError()
	}
	var lost []int
	for i := range n {
		if !op(i) {
			lost = append(lost, i)
		}
	}
	var next *Consumer
	roomy := false
	if ends {
		c.held -= n - len(lost)
		roomy = c.full
		c.full = false
		ch.touch()
		next = ch.passOn()
	}
	ch.arm(ch.now())
	ch.mu.Unlock()
	next.wakeUp()
	if roomy {
		c.wakeUp()
	}
	if lost != nil {
		return ch.errorf(&millrace.LeaseError{Lost: lost})
	}
	return nil
}

// Ack says that the messages were handled. See millrace.Subscription.
func (c *Consumer) Ack(_ context.Context, ds ...millrace.Delivery) error {
	return c.settle(ds, true, c.channel.ledger.Ack)
}

// Nack gives the messages back, to be delivered again after the delay. With a delay it
// returns when the deferral is as safe as a message that was published, or with an error
// that wraps ErrNoSpace or what the disk says: they are deferred all the same, but may come
// too soon after a crash.
func (c *Consumer) Nack(_ context.Context, delay time.Duration, ds ...millrace.Delivery) error {
	at := c.channel.now()
	due := after(at, max(delay, 0))
	err := c.settle(ds, true, func(seq uint64, attempt uint32) bool {
		return c.channel.ledger.Nack(seq, attempt, at, due)
	})
	if delay > 0 {
		err = errors.Join(err, c.channel.topic.persist(c.channel))
	}
	return err
}

// Extend gives the deliveries a whole new lease from now.
func (c *Consumer) Extend(_ context.Context, ds ...millrace.Delivery) error {
	deadline := after(c.channel.now(), c.lease)
	return c.settle(ds, false, func(seq uint64, attempt uint32) bool {
		return c.channel.ledger.Extend(seq, attempt, deadline)
	})
}

// SetPrefetch changes the most deliveries that the consumer holds; 0 pauses it.
func (c *Consumer) SetPrefetch(n int) {
	c.channel.mu.Lock()
	c.prefetch = n
	c.channel.mu.Unlock()
	c.wakeUp()
}

// Close gives back what the consumer holds, at once. A Receive that waits returns with
// an error that wraps ErrClosed.
func (c *Consumer) Close() error {
	c.channel.unsubscribe(c)
	return nil
}
