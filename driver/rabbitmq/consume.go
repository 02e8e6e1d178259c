package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace/millrace"
)

// consuming is a connection of a subscription, until it ends. What is not a channel is guarded
// by the subscription's mu.
type consuming struct {
	conn    *conn
	ch      *amqp.Channel
	ctx     context.Context // ends with it
	stop    context.CancelFunc
	closed  <-chan *amqp.Error // of ch
	cancels <-chan string      // consumers that the server has cancelled
	deleted chan struct{}      // of one: the channel was deleted

	consumers []*consumer // also those that were cancelled and hold something
	come      arrivals
	uneven    time.Time // since when the consumers may get more, or less, than they should
	long      *moving   // nil until there is a long task
	count     int       // of consumers that there were, for their tags
	routines  sync.WaitGroup
}

// consumer is one of a channel's consumers. RabbitMQ cannot change how many deliveries one may
// have outstanding: for more there is another one, for less one is cancelled.
type consumer struct {
	tag         string
	prefetch    int
	outstanding int
	cancelled   bool
	moves       bool          // gets the copies of long tasks: see hold.go
	done        chan struct{} // closed when nothing comes from it any more
}

// subscribe makes a subscription, and returns when it consumes.
func (b *Broker) subscribe(ctx context.Context, topic, channel string, opts millrace.SubscribeOptions) (*subscription, error) {
	s := &subscription{
		b: b, topic: topic, channel: channel, lease: opts.Lease, target: opts.Prefetch,
		ephemeral: millrace.Ephemeral(topic) || millrace.Ephemeral(channel),
		over:      make(chan struct{}), news: make(chan struct{}, 1), retune: make(chan struct{}, 1),
		spoke: time.Now(),
	}
	s.ctx, s.stop = context.WithCancelCause(context.WithoutCancel(b.ctx))
	c, err := s.connect(ctx)
	if err != nil {
		s.stop(err)
		return nil, err
	}
	b.mu.Lock()
	closed := b.closed
	if !closed {
		b.subs[s] = struct{}{}
		b.routines.Add(1)
	}
	b.mu.Unlock()
	if closed {
		s.stop(millrace.ErrClosed)
		c.end()
		return nil, millrace.ErrClosed
	}
	go s.run(c)
	return s, nil
}

// run keeps the subscription going until it is closed, or its channel deleted.
func (s *subscription) run(c *consuming) {
	defer s.b.routines.Done()
	defer close(s.over)
	defer func() {
		s.b.mu.Lock()
		delete(s.b.subs, s)
		s.b.mu.Unlock()
	}()
	for {
		err := s.follow(c)
		if s.ctx.Err() != nil || errors.Is(err, errIdle) {
			s.settled()
			s.hearOut(c)
		}
		s.lose(c, err)
		if s.ctx.Err() != nil {
			s.leave(c)
		}
		c.end()
		if s.ctx.Err() != nil || errors.Is(err, errDeleted) {
			s.stop(millrace.ErrClosed)
			return
		}
		if c = s.reconnect(); c == nil {
			return
		}
	}
}

// reconnect tries until it succeeds; it returns nil when the subscription is closed.
func (s *subscription) reconnect() *consuming {
	for try := 0; s.ctx.Err() == nil; try++ {
		sleep(s.ctx, backoff(try))
		c, err := s.connect(s.ctx)
		if err == nil {
			return c
		}
		s.mu.Lock()
		s.trouble = err
		s.mu.Unlock()
	}
	return nil
}

// lose forgets what came over a connection: the server has it again, or will when it notices.
func (s *subscription) lose(c *consuming, why error) {
	s.mu.Lock()
	s.c = nil
	s.held.lose()
	s.settles.list = nil
	s.trouble = fmt.Errorf("the connection to %s was lost: %w", c.conn.name, why)
	if errors.Is(why, errDeleted) {
		s.ended = errDeleted
	}
	s.mu.Unlock()
	wake(s.news)
}

// end closes the connection, and returns when nothing comes from it any more.
func (c *consuming) end() {
	c.stop()
	c.conn.end()
	c.routines.Wait()
}

// connect declares the channel and starts to consume from it.
func (s *subscription) connect(ctx context.Context) (*consuming, error) {
	queue := ownQueue(s.topic, s.channel)
	if !s.ephemeral {
		var err error
		if queue, err = s.b.declare(ctx, s.topic, s.channel); err != nil {
			return nil, err
		}
	}
	conn, err := s.b.addr.dial(ctx, "consumes "+queue, s.lease/3)
	if err != nil {
		return nil, err
	}
	c := &consuming{conn: conn, deleted: make(chan struct{}, 1)}
	c.ctx, c.stop = context.WithCancel(s.ctx)
	if err := s.start(ctx, c, queue); err != nil {
		s.lose(c, err)
		c.end()
		return nil, err
	}
	return c, nil
}

// start consumes from the queue, over a new connection. The queue of an ephemeral channel is made
// over the same one, so that mostly one node less can take it away.
func (s *subscription) start(ctx context.Context, c *consuming, queue string) error {
	if s.ephemeral {
		if err := s.b.declareTopic(ctx, s.topic); err != nil {
			return err
		}
		if err := s.b.declareEphemeral(ctx, c.conn, s.topic, queue); err != nil {
			return err
		}
	}
	err := s.b.inTime(ctx, c.conn, func() (err error) {
		if c.ch, err = c.conn.Channel(); err == nil {
			c.closed = c.ch.NotifyClose(make(chan *amqp.Error, 1))
			c.cancels = c.ch.NotifyCancel(make(chan string, 64))
		}
		return err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.c, s.queue, s.trouble, s.idle.since = c, queue, nil, time.Now()
	s.mu.Unlock()
	if err := s.tune(ctx, c); err != nil {
		return err
	}
	return s.openInbox(ctx, c, queue)
}

// follow does what there is to do until the connection ends, and returns why.
func (s *subscription) follow(c *consuming) error {
	clock := time.NewTicker(min(max(s.lease/16, 5*time.Millisecond), time.Second))
	defer clock.Stop()
	// The prefetch may change with every task; a moment later some of that has cancelled out.
	soon := time.NewTimer(0)
	defer soon.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case err := <-c.closed:
			if err == nil {
				err = amqp.ErrClosed
			}
			s.b.learnTimeout(err)
			return err
		case <-c.deleted:
			return errDeleted
		case _, cancelled := <-c.cancels:
			if cancelled { // what the server does when a queue is deleted
				return s.cancelled(c)
			}
			c.cancels = nil // c.closed says more
		case <-s.retune:
			soon.Reset(2 * time.Millisecond)
		case <-soon.C:
			if err := s.tune(s.ctx, c); err != nil {
				return err
			}
		case <-clock.C:
			if err := s.look(c); err != nil {
				return err
			}
		}
	}
}

// errQueueLost is why an ephemeral channel is made again.
var errQueueLost = errors.New("the node went that had the ephemeral channel's queue")

// cancelled says why the server has ended a consumer. A queue that is on one node alone may have
// gone with that; when its channel was deleted the inbox says so, if not at the same moment.
func (s *subscription) cancelled(c *consuming) error {
	if !s.ephemeral {
		return errDeleted
	}
	late := time.NewTimer(tellWithin)
	defer late.Stop()
	select {
	case <-c.deleted:
		return errDeleted
	case <-late.C:
	case <-s.ctx.Done():
	}
	return errQueueLost
}

// look does what the time asks for: it gives back what was held for too long. When nobody
// receives, nothing more is sent to this subscription first, or it would come back at once.
func (s *subscription) look(c *consuming) error {
	now := time.Now()
	s.mu.Lock()
	expired := s.held.takeExpired(now)
	deaf := s.waiting == 0 && (len(expired) > 0 || s.held.waits() && now.Sub(s.spoke) > s.lease)
	s.silent = s.silent || deaf
	s.mu.Unlock()
	err := s.tune(s.ctx, c)
	s.mu.Lock()
	s.nackAll(expired)
	s.held.free(expired)
	s.mu.Unlock()
	s.flush()
	if err == nil {
		err = s.moveLong(c, now)
	}
	if err == nil && s.idles(c, now) {
		err = errIdle
	}
	return err
}

// consume adds a consumer of a queue.
func (s *subscription) consume(ctx context.Context, c *consuming, queue string, one *consumer) error {
	s.mu.Lock()
	c.count++
	one.tag = strconv.Itoa(c.count)
	one.done = make(chan struct{})
	s.mu.Unlock()
	var deliveries <-chan amqp.Delivery
	err := s.b.inTime(ctx, c.conn, func() (err error) {
		if err = c.ch.Qos(one.prefetch, 0, false); err == nil {
			deliveries, err = c.ch.Consume(queue, one.tag, false, false, false, false, nil)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	c.consumers = append(c.consumers, one)
	s.mu.Unlock()
	c.routines.Go(func() {
		defer close(one.done)
		for d := range deliveries {
			if s.arrived(c, one, &d) {
				s.flush()
			}
		}
	})
	return nil
}

// arrived takes a delivery from a consumer, and returns whether there is something to flush.
func (s *subscription) arrived(c *consuming, from *consumer, d *amqp.Delivery) bool {
	id, moved := d.Headers[headerMoved].(string)
	headers := s.b.replies.note(read(d))
	wait := time.Until(time.UnixMilli(number(d.Headers[headerDue])))

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != c {
		return false // the server gives it to somebody else
	}
	c.come.note(d.DeliveryTag)
	from.outstanding++
	s.idle = idleness{}
	if from.moves && moved {
		s.movedHere(c, from, id, d.DeliveryTag)
		return true
	}
	h := s.held.fresh()
	h.tag, h.from, h.since = d.DeliveryTag, from, time.Now()
	h.d = millrace.Delivery{
		Message: millrace.Message{Headers: headers, Body: d.Body},
		Attempt: attempt(d), Published: published(d),
	}
	if d.Headers[headerDue] != nil && wait > 0 {
		s.wait(c, h, wait)
		return false
	}
	s.held.add(h)
	if s.waiting > 0 {
		wake(s.news)
	}
	return false
}

// wait delays a delivery once more whose delay was longer than the rungs are. The caller holds mu.
func (s *subscription) wait(c *consuming, h *holding, d time.Duration) {
	s.held.hide(h)
	letters := []letter{s.b.copyOf(h)}
	set(&letters[0].message, headerAttempts, int64(h.d.Attempt)-1)
	queue := s.queue
	c.routines.Go(func() {
		err := s.b.delayed(c.ctx, letters, queue, d)
		s.mu.Lock()
		if h.busy { // else the connection was lost
			s.held.remove(h)
			if err == nil {
				s.ackAll([]*holding{h})
			} else {
				s.nackAll([]*holding{h})
			}
		}
		s.mu.Unlock()
		s.flush()
	})
}
