package nats

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/millrace/millrace"
)

// subscription is one consumer of a channel.
//
// Its messages come through an inbox, a subject of its own, on request: it asks for as
// many as it may hold more (see pull.go). One goroutine, its keeper, opens and closes
// inboxes, asks for messages, and looks after what has gone wrong; everybody else tells it
// by a kick that there is something to do.
type subscription struct {
	broker         *broker
	link           *link
	topic, channel string
	lease          time.Duration

	ctx     context.Context // ends with the subscription
	stop    context.CancelFunc
	keeper  sync.WaitGroup
	closing sync.Once
	kicked  chan struct{} // capacity 1: the keeper has something to do
	arrived chan struct{} // capacity 1: a delivery is ready

	mu       sync.Mutex // guards all below
	prefetch int
	leases   leases
	ready    queue
	waiting  int   // calls of Receive that wait
	end      error // why nothing is received any more
	pull     pull
	presence *natsio.Subscription // to what is said to all consumers of the channel
}

func newSubscription(b *broker, topic, channel string, opts millrace.SubscribeOptions) *subscription {
	s := &subscription{
		broker: b, link: b.link, topic: topic, channel: channel,
		lease:   opts.Lease,
		kicked:  make(chan struct{}, 1),
		arrived: make(chan struct{}, 1),

		prefetch: opts.Prefetch,
		leases:   leases{length: opts.Lease},
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Receive implements millrace.Subscription.
func (s *subscription) Receive(ctx context.Context, buf []millrace.Delivery) (int, error) {
	if len(buf) == 0 {
		return 0, nil
	}
	for {
		if ctx.Err() != nil {
			signal(s.arrived) // for somebody else, if that is what ended the wait
			return 0, s.link.gaveUp(ctx, nil)
		}
		n, aging, err := s.take(buf, time.Now())
		if n > 0 || err != nil {
			s.tellAll(aging, s.extension())
			return n, err
		}
		s.wait(ctx)
	}
}

// take moves what is ready into buf, with whole leases. aging are the subjects where to
// say so; almost always none.
func (s *subscription) take(buf []millrace.Delivery, now time.Time) (n int, aging []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return 0, nil, s.end
	}
	for n < len(buf) && s.taken() < s.prefetch {
		d, ok := s.ready.pop()
		if !ok {
			break
		}
		if s.leases.aging(d.Tag, now) {
			ack, _ := s.leases.extend(d.Tag, now)
			aging = append(aging, ack)
		}
		if s.leases.find(d.Tag, now) == nil {
			continue // it has waited here for too long, and is somebody else's
		}
		buf[n] = d
		n++
	}
	s.offer() // what is left is for the next one
	return n, aging, nil
}

// offer wakes one call of Receive if there is something for it. The caller holds mu.
func (s *subscription) offer() {
	if s.ready.len() > 0 && s.taken() < s.prefetch {
		signal(s.arrived)
	}
}

// taken is how many deliveries were received and are held. The caller holds mu.
func (s *subscription) taken() int { return s.leases.held - s.ready.len() }

// wait returns when something has arrived, the subscription or the context ends.
func (s *subscription) wait(ctx context.Context) {
	s.mu.Lock()
	s.waiting++
	hungry := s.hungry()
	s.mu.Unlock()
	if hungry {
		signal(s.kicked)
	}
	select {
	case <-s.arrived:
	case <-s.ctx.Done():
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.waiting--
	s.mu.Unlock()
}

// The words of acknowledgement.
var (
	ackWord      = []byte("+ACK")
	nakWord      = []byte("-NAK")
	progressWord = []byte("+WPI")
)

// nakAfter is a negative acknowledgement with a delay.
func nakAfter(delay time.Duration) []byte {
	if delay <= 0 {
		return nakWord
	}
	return append(strconv.AppendInt([]byte(`-NAK {"delay":`), int64(delay), 10), '}')
}

// extension is what gives a delivery a whole new lease. The server knows one length of
// lease for a channel; another one is a negative acknowledgement that takes effect when
// the lease is over.
func (s *subscription) extension() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pull.ackWait == s.lease {
		return progressWord
	}
	return nakAfter(s.lease)
}

// Ack implements millrace.Subscription.
func (s *subscription) Ack(ctx context.Context, ds ...millrace.Delivery) error {
	return s.settle(ctx, ds, s.leases.remove, ackWord)
}

// Nack implements millrace.Subscription.
func (s *subscription) Nack(ctx context.Context, delay time.Duration, ds ...millrace.Delivery) error {
	return s.settle(ctx, ds, s.leases.remove, nakAfter(delay))
}

// Extend implements millrace.Subscription.
func (s *subscription) Extend(ctx context.Context, ds ...millrace.Delivery) error {
	return s.settle(ctx, ds, s.leases.extend, s.extension())
}

// settle does something with leases, and says it to the server.
func (s *subscription) settle(ctx context.Context, ds []millrace.Delivery, do func(uint64, time.Time) (string, bool), word []byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var (
		acks = make([]string, 0, len(ds))
		lost []int
		now  = time.Now()
	)
	s.mu.Lock()
	if s.end != nil {
		s.mu.Unlock()
		return s.end
	}
	for i := range ds {
		if ack, ok := do(ds[i].Tag, now); ok {
			acks = append(acks, ack)
		} else {
			lost = append(lost, i)
		}
	}
	hungry := s.hungry()
	s.offer()
	s.mu.Unlock()
	s.tellAll(acks, word)
	if hungry {
		signal(s.kicked)
	}
	if len(lost) > 0 {
		return &millrace.LeaseError{Lost: lost}
	}
	return nil
}

func (s *subscription) tellAll(acks []string, word []byte) {
	for _, ack := range acks {
		s.link.send(ack, "", word)
	}
}

// SetPrefetch implements millrace.Subscription.
func (s *subscription) SetPrefetch(n int) {
	s.mu.Lock()
	s.prefetch = max(0, n)
	s.offer()
	something := s.hungry() || s.greedy()
	s.mu.Unlock()
	if something {
		signal(s.kicked)
	}
}

// Close implements millrace.Subscription.
func (s *subscription) Close() error {
	s.closing.Do(s.close)
	return nil
}

func (s *subscription) close() {
	s.finish(fmt.Errorf("%w: the subscription to channel %s of topic %s", millrace.ErrClosed, s.channel, s.topic))
	s.keeper.Wait()
	s.mu.Lock()
	in := s.pull.inbox
	s.pull.inbox = nil
	s.mu.Unlock()
	if in != nil {
		in.shut()
		s.link.settled() // what was on its way has been given back
	}
	s.mu.Lock()
	held := s.leases.clear(time.Now())
	s.mu.Unlock()
	s.tellAll(held, nakWord)
	s.link.flush()
	s.broker.forget(s)
	s.leave()
}

// finish says that nothing is received any more, and why. What was said first holds.
func (s *subscription) finish(why error) {
	s.mu.Lock()
	if s.end == nil {
		s.end = why
	}
	s.mu.Unlock()
	s.stop()
}

// signal makes sure that whoever waits on a channel of capacity 1 looks again.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it will
	}
}

// queue are deliveries, first in first out.
type queue struct {
	list []millrace.Delivery
	head int
}

func (q *queue) len() int { return len(q.list) - q.head }

func (q *queue) push(d millrace.Delivery) {
	if q.head > 0 && len(q.list) == cap(q.list) {
		n := copy(q.list, q.list[q.head:])
		clear(q.list[n:])
		q.list, q.head = q.list[:n], 0
	}
	q.list = append(q.list, d)
}

func (q *queue) pop() (d millrace.Delivery, ok bool) {
	if q.len() == 0 {
		return d, false
	}
	d, q.list[q.head] = q.list[q.head], d
	q.head++
	if q.head == len(q.list) {
		q.list, q.head = q.list[:0], 0
	}
	return d, true
}

// unpush takes back the last one that was pushed. There must be one.
func (q *queue) unpush() (d millrace.Delivery) {
	last := len(q.list) - 1
	d, q.list[last] = q.list[last], d
	q.list = q.list[:last]
	return d
}
