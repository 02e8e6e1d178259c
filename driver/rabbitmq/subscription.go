package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace"
)

// subscription is one consumer of a channel. One goroutine, run, keeps its connection and
// decides what the server may send; the callers' goroutines take deliveries and settle them.
type subscription struct {
	b              *Broker
	topic, channel string
	lease          time.Duration
	ephemeral      bool // its queue goes with its last consumer

	ctx    context.Context // ends when it is to be closed
	stop   context.CancelCauseFunc
	over   chan struct{} // closed when run has returned
	news   chan struct{} // of one: there is something to receive
	retune chan struct{} // of one: what the server may send has changed

	mu      sync.Mutex // guards all below, and how much of c is said there; never held while waiting
	queue   string
	c       *consuming // nil while there is no connection
	trouble error      // why there is none
	ended   error      // why there never will be
	target  int        // prefetch
	waiting int        // calls of Receive
	spoke   time.Time  // when Receive was called last
	silent  bool       // a lease ended, and nobody has called Receive since
	idle    idleness
	held    holdings
	settles settles
}

var _ millrace.Subscription = (*subscription)(nil)

// Receive waits for deliveries.
func (s *subscription) Receive(ctx context.Context, buf []millrace.Delivery) (int, error) {
	s.mu.Lock()
	s.waiting++
	s.spoke = time.Now()
	if s.silent {
		s.silent = false
		wake(s.retune)
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.waiting--
		s.spoke = time.Now()
		s.mu.Unlock()
	}()
	for {
		n, more, err := s.receive(ctx, buf)
		if more {
			wake(s.news) // another call may wait
		}
		if n > 0 || err != nil || len(buf) == 0 {
			return n, err
		}
		select {
		case <-s.news:
		case <-ctx.Done():
		case <-s.ctx.Done():
		}
	}
}

// receive fills buf with what is there, and says whether there is more.
func (s *subscription) receive(ctx context.Context, buf []millrace.Delivery) (n int, more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended != nil:
		return 0, true, wrap(s.ended, "receive from", s.topic, s.channel)
	case s.ctx.Err() != nil:
		return 0, true, wrap(millrace.ErrClosed, "receive from", s.topic, s.channel)
	case ctx.Err() != nil:
		return 0, s.held.waits(), wrap(waitedFor(ctx, s.trouble), "receive from", s.topic, s.channel)
	case s.target == 0:
		return 0, false, nil
	}
	n = s.held.hand(buf, time.Now().Add(s.lease))
	return n, s.held.waits(), nil
}

// Ack says that the messages were handled.
func (s *subscription) Ack(ctx context.Context, ds ...millrace.Delivery) error {
	return s.settle(ctx, "ack", ds, (*subscription).ackAll)
}

// Nack gives the messages back, to be delivered again after the delay. A delayed message is a
// confirmed copy, published before the one that was delivered is acked.
func (s *subscription) Nack(ctx context.Context, delay time.Duration, ds ...millrace.Delivery) error {
	if delay > 0 {
		return s.nackLater(ctx, delay, ds)
	}
	return s.settle(ctx, "nack", ds, (*subscription).nackAll)
}

// settle takes deliveries whose leases have not ended from what is held, and settles them.
func (s *subscription) settle(ctx context.Context, doing string, ds []millrace.Delivery, how func(*subscription, []*holding)) error {
	if ctx.Err() != nil {
		return wrap(context.Cause(ctx), doing+" on", s.topic, s.channel)
	}
	s.mu.Lock()
	if err := s.closedNow(); err != nil {
		s.mu.Unlock()
		return wrap(err, doing+" on", s.topic, s.channel)
	}
	hs, lost := s.held.find(ds, time.Now())
	for _, h := range hs {
		s.held.remove(h)
	}
	how(s, hs)
	s.held.free(hs)
	s.mu.Unlock()
	s.flush()
	return s.leaseError(doing, lost)
}

// closedNow returns why nothing can be settled any more. The caller holds mu.
func (s *subscription) closedNow() error {
	if s.ended != nil {
		return s.ended
	}
	if s.ctx.Err() != nil {
		return millrace.ErrClosed
	}
	return nil
}

func (s *subscription) leaseError(doing string, lost []int) error {
	if len(lost) == 0 {
		return nil
	}
	return wrap(&millrace.LeaseError{Lost: lost}, doing+" on", s.topic, s.channel)
}

// nackLater publishes delayed copies. Until they are safe nobody else settles the deliveries.
func (s *subscription) nackLater(ctx context.Context, delay time.Duration, ds []millrace.Delivery) error {
	s.mu.Lock()
	if err := s.closedNow(); err != nil {
		s.mu.Unlock()
		return wrap(err, "nack on", s.topic, s.channel)
	}
	hs, lost := s.held.find(ds, time.Now())
	queue := s.queue
	letters := make([]letter, len(hs))
	for i, h := range hs {
		h.busy = true
		letters[i] = s.b.copyOf(h)
	}
	s.mu.Unlock()

	err := s.b.delayed(ctx, letters, queue, delay)
	s.mu.Lock()
	hs = slices.DeleteFunc(hs, func(h *holding) bool { return !h.busy }) // of a connection that was lost meanwhile
	for _, h := range hs {
		s.held.release(h, time.Now())
		if err == nil {
			s.held.remove(h)
		}
	}
	if err == nil {
		s.ackAll(hs)
		s.held.free(hs)
	}
	s.mu.Unlock()
	s.flush()
	if err != nil {
		return wrap(err, "nack on", s.topic, s.channel)
	}
	return s.leaseError("nack", lost)
}

// copyOf makes a message of what is held, to be delivered as its next attempt.
func (b *Broker) copyOf(h *holding) letter {
	var l letter
	write(&l.message, b.replies.original(h.d.Headers))
	set(&l.message, headerAttempts, int64(h.d.Attempt))
	l.message.Body = h.d.Body
	l.message.DeliveryMode = 2 // persistent
	if h.d.Published != 0 {
		l.message.Timestamp = time.Unix(0, h.d.Published)
	}
	return l
}

// delayed sends letters to a queue after a delay.
func (b *Broker) delayed(ctx context.Context, letters []letter, queue string, d time.Duration) error {
	now := time.Now()
	for i := range letters {
		delay(&letters[i], queueKey(queue), d, now)
	}
	prepare := func(ctx context.Context) error { return b.makeDelays(ctx, letters) }
	if err := prepare(ctx); err != nil || len(letters) == 0 {
		return err
	}
	err := b.send(ctx, letters, prepare)
	if err == nil {
		b.deferrals.add(queueKey(queue), now, d, int64(len(letters)))
	}
	return err
}

// Extend gives the deliveries a whole new lease. RabbitMQ is not told: it has no leases.
func (s *subscription) Extend(ctx context.Context, ds ...millrace.Delivery) error {
	if ctx.Err() != nil {
		return wrap(context.Cause(ctx), "extend on", s.topic, s.channel)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.closedNow(); err != nil {
		return wrap(err, "extend on", s.topic, s.channel)
	}
	now := time.Now()
	hs, lost := s.held.find(ds, now)
	for _, h := range hs {
		h.deadline = now.Add(s.lease)
	}
	return s.leaseError("extend", lost)
}

// SetPrefetch changes the most deliveries held.
func (s *subscription) SetPrefetch(n int) {
	s.mu.Lock()
	s.target = max(0, n)
	s.mu.Unlock()
	wake(s.retune)
	wake(s.news) // what is there may be received again
}

// Close gives back what is held, and ends the subscription.
func (s *subscription) Close() error {
	s.mu.Lock()
	closed := s.closedNow()
	s.stop(millrace.ErrClosed)
	s.mu.Unlock()
	<-s.over
	if closed != nil && !errors.Is(closed, errDeleted) {
		return wrap(closed, "close the subscription to", s.topic, s.channel)
	}
	return nil
}

// errDeleted is why a subscription has ended whose channel was deleted.
var errDeleted = fmt.Errorf("%w: the channel was deleted", millrace.ErrClosed)

// wake leaves a note in a channel of one, if there is none yet.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
