package rabbitmq

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace/millrace"
)

func init() {
	millrace.Register("amqp", open)
	millrace.Register("amqps", open)
}

// heartbeat is that of connections which hold no delivery.
const heartbeat = 5 * time.Second

// Broker is a RabbitMQ server or cluster. It has one connection for questions, one for what is published,
// because the server stops to read that when it is short of memory or disk, and one for each
// subscription, whose heartbeats follow its lease.
type Broker struct {
	addr      *address
	controls  *link
	publishes *link

	version    atomic.Int64 // of the server: 403 is 4.3
	maxSize    atomic.Int64 // of a message
	maxHeaders atomic.Int64 // of a message

	consumerTimeout atomic.Int64 // the server's, in nanoseconds

	known   names // topics, and rungs of the delays, that this process has declared
	queues  names // of channels, by ownQueue
	replies replies

	name      string // of this process, for others
	deferrals deferrals

	sessionTurn chan struct{} // who is in it may use the one below
	session     *session

	ctx      context.Context // ends when the broker is closed
	stop     context.CancelCauseFunc
	routines sync.WaitGroup

	mu     sync.Mutex // guards the two below
	closed bool
	subs   map[*subscription]struct{}
}

var _ millrace.Broker = (*Broker)(nil)

// open connects to the server, so that what is wrong with the URL is known at once.
func open(ctx context.Context, u *url.URL) (millrace.Broker, error) {
	addr, err := parse(u)
	if err != nil {
		return nil, err
	}
	b := &Broker{addr: addr, name: rand.Text(), sessionTurn: make(chan struct{}, 1), subs: make(map[*subscription]struct{})}
	b.ctx, b.stop = context.WithCancelCause(context.Background())
	b.maxSize.Store(maxSize)
	b.consumerTimeout.Store(int64(addr.consumerTimeout))
	b.controls = newLink(b.dialControls)
	b.publishes = newLink(func(ctx context.Context) (*conn, error) { return addr.dial(ctx, "publishes", heartbeat) })
	c, err := b.dialControls(ctx)
	if err != nil {
		return nil, err
	}
	b.controls.begin(c)
	return b, nil
}

// dialControls connects, and makes sure that there is what all topics share.
func (b *Broker) dialControls(ctx context.Context) (*conn, error) {
	c, err := b.addr.dial(ctx, "declares", heartbeat)
	if err != nil {
		return nil, err
	}
	b.version.Store(c.version())
	if err := b.makeCommon(c); err != nil {
		c.end()
		return nil, fmt.Errorf("prepare the vhost %q of %s: %w", b.addr.vhost, c.name, err)
	}
	// A list of headers may be there twice, and there are other properties.
	b.maxHeaders.Store(int64(c.Config.FrameSize/2 - 2048))
	return c, nil
}

// begin is told before a goroutine is started, and says whether it may be.
func (b *Broker) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.routines.Add(1)
	}
	return !b.closed
}

// Declare makes sure that the topic and the channel exist.
func (b *Broker) Declare(ctx context.Context, topic, channel string) error {
	err := b.usable(ctx, topic, channel)
	switch {
	case err != nil:
	case channel == "":
		err = b.declareTopic(ctx, topic)
	default:
		_, err = b.declare(ctx, topic, channel)
	}
	return wrap(err, "declare", topic, channel)
}

// declare is declareChannel, and remembers the queue.
func (b *Broker) declare(ctx context.Context, topic, channel string) (queue string, err error) {
	if queue, err = b.declareChannel(ctx, topic, channel); err == nil {
		b.queues.put(ownQueue(topic, channel), queue)
	}
	return queue, err
}

// usable checks what every method checks first.
func (b *Broker) usable(ctx context.Context, topic, channel string) error {
	if b.ctx.Err() != nil {
		return millrace.ErrClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return checkChannel(topic, channel)
}

// wrap says what was being done.
func wrap(err error, doing, topic, channel string) error {
	if err == nil {
		return nil
	}
	what := topic
	if channel != "" {
		what += ", channel " + channel
	}
	return fmt.Errorf("rabbitmq: %s %s: %w", doing, what, named(err))
}

// Subscribe starts to consume from a channel, on a connection of its own.
func (b *Broker) Subscribe(ctx context.Context, topic, channel string, opts millrace.SubscribeOptions) (millrace.Subscription, error) {
	err := b.usable(ctx, topic, channel)
	if err == nil && channel == "" {
		err = millrace.CheckName(channel)
	}
	if err != nil {
		return nil, wrap(err, "subscribe to", topic, channel)
	}
	s, err := b.subscribe(ctx, topic, channel, opts.WithDefaults())
	if err != nil {
		return nil, wrap(err, "subscribe to", topic, channel)
	}
	return s, nil
}

// Delete removes the channel, or the whole topic when channel is "".
func (b *Broker) Delete(ctx context.Context, topic, channel string) error {
	err := b.usable(ctx, topic, channel)
	switch {
	case err != nil:
	case channel == "":
		err = b.deleteTopic(ctx, topic)
	default:
		err = b.deleteChannel(ctx, topic, channel)
		b.queues.remove(ownQueue(topic, channel))
	}
	return wrap(err, "delete", topic, channel)
}

// Depth tells how much waits in a channel. Deferred is what this process, and those that
// subscribe to the channel, have delayed: RabbitMQ does not tell whose the delayed messages are. Returns an
// error that wraps ErrUncounted, with what is known, when some consumers do not say what they hold.
func (b *Broker) Depth(ctx context.Context, topic, channel string) (millrace.Depth, error) {
	err := b.usable(ctx, topic, channel)
	if err == nil && channel == "" {
		err = millrace.CheckName(channel)
	}
	if err != nil {
		return millrace.Depth{}, wrap(err, "depth of", topic, channel)
	}
	d, err := b.depth(ctx, topic, channel)
	return d, wrap(err, "depth of", topic, channel)
}

func (b *Broker) depth(ctx context.Context, topic, channel string) (d millrace.Depth, err error) {
	queue, known := b.queues.get(ownQueue(topic, channel))
	var q amqp.Queue
	if known {
		q, err = b.inspect(ctx, queue)
	}
	if !known || errors.Is(err, millrace.ErrNotFound) {
		b.queues.remove(ownQueue(topic, channel))
		if queue, err = b.queueOf(ctx, topic, channel); err == nil {
			q, err = b.inspect(ctx, queue)
		}
	}
	if err != nil {
		return d, err
	}
	b.queues.put(ownQueue(topic, channel), queue)
	all, err := b.census(ctx, topic, queue, q.Consumers)
	return millrace.Depth{Ready: int64(q.Messages), InFlight: all.Held, Deferred: all.Deferred}, err
}

// Close ends all subscriptions and connections.
func (b *Broker) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return fmt.Errorf("rabbitmq: close: %w", millrace.ErrClosed)
	}
	b.closed = true
	subs := make([]*subscription, 0, len(b.subs))
	for s := range b.subs {
		subs = append(subs, s)
	}
	b.mu.Unlock()
	b.stop(millrace.ErrClosed)
	var ends sync.WaitGroup
	for _, s := range subs {
		ends.Go(func() { _ = s.Close() }) // it may be closed already
	}
	ends.Go(b.publishes.close)
	ends.Go(b.controls.close)
	ends.Wait()
	b.routines.Wait()
	return nil
}
