package broker

import (
	"context"
	"slices"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/seglog"
)

// Consumer is one of those that compete for a channel's messages. It is a
// millrace.Subscription.
type Consumer struct {
	channel *Channel
	id      uint32
	lease   time.Duration
	wake    chan struct{} // there may be something to receive
	done    chan struct{} // closed when the consumer is

	// receiving is held by the one Receive that runs, with what it works with.
	receiving chan struct{}
	records   []seglog.Record
	again     *seglog.Reader // for redeliveries, which may stand anywhere

	// The channel's lock guards what follows.
	prefetch int
	held     int  // deliveries that are neither acked nor given back
	waits    bool // it is on the channel's waiting list
	closed   bool
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
			c.giveUp()
			return 0, context.Cause(ctx)
		}
	}
}

// giveUp leaves the waiting list, and passes on a wake-up that will not be used.
func (c *Consumer) giveUp() {
	ch := c.channel
	ch.mu.Lock()
	if c.waits {
		c.waits = false
		i := slices.Index(ch.waiting, c)
		ch.waiting = slices.Delete(ch.waiting, i, i+1)
	}
	var next *Consumer
	if ch.hasMore() {
		next = ch.nextWaiting()
	}
	ch.mu.Unlock()
	next.wakeUp()
}

func (c *Consumer) endError() error {
	ch := c.channel
	ch.mu.Lock()
	err := ch.ended
	ch.mu.Unlock()
	if err == nil {
		err = millrace.ErrClosed
	}
	return ch.errorf(err)
}

// take moves messages from the channel to buf without waiting. When there are none, the
// consumer is on the waiting list when it returns, or lacks room and will be woken by
// what makes room.
func (c *Consumer) take(buf []millrace.Delivery) (int, error) {
	ch := c.channel
	at := now()
	deadline := at + int64(c.lease)
	ch.mu.Lock()
	if c.closed {
		ch.mu.Unlock()
		return 0, c.endError()
	}
	room := min(len(buf), c.prefetch-c.held)
	if room <= 0 {
		ch.mu.Unlock()
		return 0, nil
	}
	n := ch.redeliver(c, buf[:room], at, deadline)
	from, limit := ch.ledger.Cursor(), ch.limit
	read := n == 0 && !ch.reading && from < limit
	if read {
		ch.reading = true
	} else if n == 0 && !c.waits {
		c.waits = true
		ch.waiting = append(ch.waiting, c)
	}
	if n > 0 {
		c.held += n
		ch.arm(at)
	}
	next := ch.passOn(n > 0)
	ch.mu.Unlock()
	next.wakeUp()
	switch {
	case read:
		return c.takeNew(buf[:room], from, limit, deadline)
	case n > 0:
		return c.fetchAgain(buf[:n])
	}
	return 0, nil
}

// passOn wakes the next consumer when this one has taken something and left more. The
// lock is held.
func (ch *Channel) passOn(took bool) *Consumer {
	if took && len(ch.waiting) > 0 && ch.hasMore() {
		return ch.nextWaiting()
	}
	return nil
}

// redeliver leases to the consumer messages that were given back or are due. Only their
// Seq and Attempt are filled in. The lock is held.
func (ch *Channel) redeliver(c *Consumer, buf []millrace.Delivery, at, deadline int64) int {
	n := 0
	for n < len(buf) {
		seq, attempt, ok := ch.ledger.Redeliver(at, deadline, c.id)
		if !ok {
			break
		}
		buf[n] = millrace.Delivery{Seq: seq, Attempt: attempt, Tag: uint64(attempt)}
		n++
	}
	return n
}

// fetchAgain reads the messages of redeliveries. One that cannot be found, because its
// record is damaged, is dropped: the damage was reported.
func (c *Consumer) fetchAgain(buf []millrace.Delivery) (int, error) {
	if c.again == nil {
		c.again = c.channel.topic.log.NewReader(buf[0].Seq)
	}
	var one [1]seglog.Record
	n := 0
	var lost []millrace.Delivery
	for i := range buf {
		d := buf[i]
		c.again.Seek(d.Seq)
		read, err := c.again.Read(one[:])
		if err != nil {
			_ = c.Nack(context.Background(), time.Second, buf[i:]...)
			if n > 0 {
				return n, nil
			}
			return 0, c.channel.errorf(err)
		}
		if read == 0 || one[0].Seq != d.Seq {
			lost = append(lost, d)
			continue
		}
		d.Message = millrace.Message{Headers: one[0].Headers, Body: one[0].Body}
		d.Published = one[0].Time
		buf[n] = d
		n++
	}
	if len(lost) > 0 {
		_ = c.Ack(context.Background(), lost...)
	}
	return n, nil
}

// takeNew reads messages that were never delivered. The caller has set reading.
func (c *Consumer) takeNew(buf []millrace.Delivery, from, limit uint64, deadline int64) (int, error) {
	ch := c.channel
	if cap(c.records) < len(buf) {
		c.records = make([]seglog.Record, len(buf))
	}
	records := c.records[:len(buf)]
	ch.reader.Seek(from)
	read, err := ch.reader.Read(records)
	at := now()
	ch.mu.Lock()
	ch.reading = false
	n := 0
	if err == nil && read == 0 {
		// The log has nothing between the cursor and the limit: they are holes.
		if ch.ledger.Cursor() < limit {
			ch.ledger.Skip(limit)
			ch.touch()
		}
	}
	for i := range records[:read] {
		r := &records[i]
		switch {
		case r.Seq >= limit || c.closed:
			// Left for later: the cursor stays before it.
		case r.Seq < ch.ledger.Cursor():
			// The channel was emptied meanwhile.
			continue
		case r.Due > at:
			ch.ledger.Defer(r.Seq, r.Due)
			ch.touch()
			continue
		default:
			buf[n] = millrace.Delivery{
				Message: millrace.Message{Headers: r.Headers, Body: r.Body},
				Seq:     r.Seq, Published: r.Time,
				Attempt: ch.ledger.Deliver(r.Seq, deadline, c.id),
			}
			buf[n].Tag = uint64(buf[n].Attempt)
			n++
			continue
		}
		break
	}
	c.held += n
	ch.arm(at)
	next := ch.passOn(true)
	ended := ch.ended != nil
	ch.mu.Unlock()
	clear(records)
	next.wakeUp()
	if ended {
		ch.reader.Close()
	}
	if err != nil {
		return 0, ch.errorf(err)
	}
	if n == 0 {
		c.wakeUp() // what was read is not to be delivered now: look further
	}
	return n, nil
}

// settle applies op to the lease of each delivery, and gathers those that had ended.
func (c *Consumer) settle(ds []millrace.Delivery, releases bool, op func(seq uint64, attempt uint32) bool) error {
	if len(ds) == 0 {
		return nil
	}
	ch := c.channel
	ch.mu.Lock()
	if ch.ended != nil || c.closed {
		ch.mu.Unlock()
		return c.endError()
	}
	var lost []int
	for i := range ds {
		if !op(ds[i].Seq, ds[i].Attempt) {
			lost = append(lost, i)
		}
	}
	if releases {
		c.held -= len(ds) - len(lost)
	}
	ch.touch()
	ch.arm(now())
	var next *Consumer
	if releases && ch.hasMore() {
		next = ch.nextWaiting()
	}
	ch.mu.Unlock()
	if releases {
		c.wakeUp() // it may have lacked room
	}
	next.wakeUp()
	if lost != nil {
		return ch.errorf(&millrace.LeaseError{Lost: lost})
	}
	return nil
}

// Ack says that the messages were handled. See millrace.Subscription.
func (c *Consumer) Ack(_ context.Context, ds ...millrace.Delivery) error {
	return c.settle(ds, true, c.channel.ledger.Ack)
}

// Nack gives the messages back, to be delivered again after the delay.
func (c *Consumer) Nack(_ context.Context, delay time.Duration, ds ...millrace.Delivery) error {
	at := now()
	due := at + int64(max(delay, 0))
	return c.settle(ds, true, func(seq uint64, attempt uint32) bool {
		return c.channel.ledger.Nack(seq, attempt, at, due)
	})
}

// Extend gives the deliveries a whole new lease from now.
func (c *Consumer) Extend(_ context.Context, ds ...millrace.Delivery) error {
	deadline := now() + int64(c.lease)
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
	c.receiving <- struct{}{} // wait for the Receive that runs, which owns the reader
	defer func() { <-c.receiving }()
	if c.again != nil {
		c.again.Close()
		c.again = nil
	}
	return nil
}
