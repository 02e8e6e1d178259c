package nats

import (
	"context"
	"fmt"
	"net/url"
	"sync"

	"github.com/millrace/millrace"
)

func init() { millrace.Register("nats", open) }

// open connects to the servers that the URL names.
func open(ctx context.Context, u *url.URL) (millrace.Broker, error) {
	t, err := parse(u)
	if err != nil {
		return nil, err
	}
	b := &broker{replicas: t.replicas, subs: map[*subscription]struct{}{}, known: map[string]bool{}}
	if b.link, err = dial(ctx, t, b.renewed); err != nil {
		return nil, err
	}
	if b.publisher, err = newPublisher(b.link); err != nil {
		b.link.nc.Close()
		return nil, err
	}
	return b, nil
}

// broker is a connection to JetStream.
type broker struct {
	link      *link
	publisher *publisher
	replicas  int

	mu     sync.Mutex // guards all below
	subs   map[*subscription]struct{}
	known  map[string]bool // topics that keep what is published
	closed bool
}

var _ millrace.Broker = (*broker)(nil)

// renewed tells the subscriptions that there is a new connection.
func (b *broker) renewed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.disturbed() // which does not wait
	}
}

// names checks what every call gets. channel may be "" where that has a meaning.
func (b *broker) names(ctx context.Context, topic, channel string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	b.mu.Lock()
	closed := b.closed
	b.mu.Unlock()
	if closed {
		return millrace.ErrClosed
	}
	if err := millrace.CheckName(topic); err != nil || channel == "" {
		return err
	}
	return millrace.CheckName(channel)
}

// Declare implements millrace.Broker.
func (b *broker) Declare(ctx context.Context, topic, channel string) error {
	if err := b.names(ctx, topic, channel); err != nil {
		return err
	}
	if channel == "" {
		return b.keep(ctx, topic)
	}
	if err := b.channel(ctx, topic, channel, 0); err != nil {
		return fmt.Errorf("declare channel %s of topic %s: %w", channel, topic, err)
	}
	return nil
}

// Publish implements millrace.Broker.
func (b *broker) Publish(ctx context.Context, topic string, msgs ...millrace.Message) error {
	if err := b.names(ctx, topic, ""); err != nil {
		return err
	}
	if len(msgs) == 0 {
		return nil
	}
	if err := b.publish(ctx, topic, msgs); err != nil {
		return fmt.Errorf("publish to topic %s: %w", topic, err)
	}
	return nil
}

// Subscribe implements millrace.Broker.
func (b *broker) Subscribe(ctx context.Context, topic, channel string, opts millrace.SubscribeOptions) (millrace.Subscription, error) {
	if err := b.names(ctx, topic, channel); err != nil {
		return nil, err
	}
	if channel == "" {
		return nil, millrace.CheckName("")
	}
	s := newSubscription(b, topic, channel, opts.WithDefaults())
	if err := s.join(ctx); err != nil {
		return nil, fmt.Errorf("subscribe to channel %s of topic %s: %w", channel, topic, err)
	}
	b.mu.Lock()
	closed := b.closed
	if !closed {
		b.subs[s] = struct{}{}
	}
	b.mu.Unlock()
	if closed {
		s.leave()
		return nil, millrace.ErrClosed
	}
	s.start()
	return s, nil
}

// Depth implements millrace.Broker. What was given back or deferred is in flight until it
// is delivered again.
func (b *broker) Depth(ctx context.Context, topic, channel string) (millrace.Depth, error) {
	if err := b.names(ctx, topic, channel); err != nil {
		return millrace.Depth{}, err
	}
	info, err := b.look(ctx, topic, channel)
	if isNotFound(err) {
		return millrace.Depth{}, fmt.Errorf("%w: channel %s of topic %s (%w)", millrace.ErrNotFound, channel, topic, err)
	}
	if err != nil {
		return millrace.Depth{}, fmt.Errorf("depth of channel %s of topic %s: %w", channel, topic, err)
	}
	return millrace.Depth{
		Ready:    int64(info.NumPending), //nolint:gosec // it counts messages on a disk
		InFlight: int64(info.NumAckPending),
	}, nil
}

// Delete implements millrace.Broker.
func (b *broker) Delete(ctx context.Context, topic, channel string) error {
	if err := b.names(ctx, topic, channel); err != nil {
		return err
	}
	var err error
	if channel == "" {
		err = b.deleteTopic(ctx, topic)
	} else {
		err = b.deleteChannel(ctx, topic, channel)
	}
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", topic, channel, err)
	}
	return nil
}

// Close implements millrace.Broker.
func (b *broker) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return millrace.ErrClosed
	}
	b.closed = true
	subs := make([]*subscription, 0, len(b.subs))
	for s := range b.subs {
		subs = append(subs, s)
	}
	b.mu.Unlock()
	var all sync.WaitGroup
	for _, s := range subs {
		all.Go(func() { _ = s.Close() })
	}
	all.Wait()
	b.link.flush()
	b.link.close()
	b.link.nc.Close()
	return nil
}

// forget takes a subscription that has ended off the list.
func (b *broker) forget(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s)
}
