package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace"
)

const (
	// rememberFor is how long a stream knows the ids of its messages: longer than it
	// takes to find out that an acknowledgement was lost, and to elect a leader.
	rememberFor = 20 * time.Second
	// maxPulls is how many subscriptions a channel may have, about.
	maxPulls = 1 << 15
)

// stream creates the topic's stream if need be, and returns how many consumers it has.
func (b *broker) stream(ctx context.Context, topic string) (consumers int, err error) {
	cfg := jetstream.StreamConfig{
		Name:        Stream(topic),
		Description: "Millrace topic " + topic,
		Subjects:    []string{Subject(topic)},
		Retention:   jetstream.InterestPolicy,
		Discard:     jetstream.DiscardNew, // a full stream refuses
		Storage:     jetstream.FileStorage,
		Replicas:    b.replicas,
		Duplicates:  rememberFor,
	}
	if millrace.Ephemeral(topic) {
		cfg.Storage = jetstream.MemoryStorage
	}
	err = b.link.call(ctx, func(ctx context.Context) error {
		s, err := b.link.js.Stream(ctx, cfg.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			s, err = b.link.js.CreateStream(ctx, cfg)
		}
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // since a moment ago
			s, err = b.link.js.Stream(ctx, cfg.Name)
		}
		if err != nil {
			return err
		}
		consumers = s.CachedInfo().State.Consumers
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("create stream %s: %w", cfg.Name, err)
	}
	return consumers, nil
}

// keep makes sure that what is published to the topic is kept. A stream that nobody is
// interested in keeps nothing, so there must be a channel, or a holder.
func (b *broker) keep(ctx context.Context, topic string) error {
	b.mu.Lock()
	known := b.known[topic]
	b.mu.Unlock()
	if known {
		return nil
	}
	consumers, err := b.stream(ctx, topic)
	if err != nil {
		return err
	}
	if consumers == 0 {
		if err := b.hold(ctx, topic, nil); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known[topic] = true
	return nil
}

// forgotten says that the topic may not be there any more.
func (b *broker) forgotten(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.known, topic)
}

// hold gives the topic a holder, does something, and takes the holder away again when the
// topic has a channel then.
//
// Whoever takes away a consumer, a channel or a holder, has first seen another one that
// stays until its own remover has put up a holder: so there is always one, whatever
// happens at the same time. The name of a holder is used once, so that nobody takes away
// one that he has not put up or seen.
func (b *broker) hold(ctx context.Context, topic string, do func() error) error {
	holder := newHolder()
	cfg := jetstream.ConsumerConfig{
		Durable:       holder,
		Description:   "keeps what waits for the topic's first channel",
		AckPolicy:     jetstream.AckExplicitPolicy,
		DeliverPolicy: jetstream.DeliverNewPolicy,
	}
	if err := b.createConsumer(ctx, topic, cfg); err != nil {
		return err
	}
	if do != nil {
		if err := do(); err != nil {
			return err
		}
	}
	names, err := b.consumers(ctx, topic)
	if err != nil || !slices.ContainsFunc(names, isChannel) {
		return err
	}
	return b.deleteConsumer(ctx, topic, holder)
}

func isChannel(consumer string) bool { return !isHolder(consumer) }

// channel creates the topic and the channel if need be. The server is to wait for acks as
// long as the lease, unless somebody uses the channel with another; 0 is any lease.
func (b *broker) channel(ctx context.Context, topic, channel string, lease time.Duration) error {
	for n := 0; ; n++ {
		err := b.tryChannel(ctx, topic, channel, lease)
		if !isNotFound(err) {
			return err
		}
		// Somebody deletes it at the same time. We may have taken away the holder that he
		// had put up, seeing the channel, so it must be there in the end.
		if err := b.link.sleep(ctx, n, err); err != nil {
			return err
		}
	}
}

func (b *broker) tryChannel(ctx context.Context, topic, channel string, lease time.Duration) error {
	if _, err := b.stream(ctx, topic); err != nil {
		return err
	}
	names, err := b.consumers(ctx, topic)
	if err != nil {
		return err
	}
	if !slices.Contains(names, Consumer(channel)) {
		first := !slices.ContainsFunc(names, isChannel)
		if err := b.createConsumer(ctx, topic, channelConfig(channel, lease, first)); err != nil {
			return err
		}
	}
	for _, name := range names {
		if isHolder(name) {
			if err := b.deleteConsumer(ctx, topic, name); err != nil {
				return err
			}
		}
	}
	if lease == 0 {
		return nil
	}
	return b.settleOn(ctx, topic, channel, lease)
}

func channelConfig(channel string, lease time.Duration, first bool) jetstream.ConsumerConfig {
	cfg := jetstream.ConsumerConfig{
		Durable:       Consumer(channel),
		Description:   "Millrace channel " + channel,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       cmp.Or(lease, millrace.DefaultLease),
		MaxDeliver:    -1,
		MaxAckPending: -1, // subscriptions have their own limits; deferred messages count too
		MaxWaiting:    maxPulls,
		DeliverPolicy: jetstream.DeliverNewPolicy,
	}
	if first {
		cfg.DeliverPolicy = jetstream.DeliverAllPolicy
	}
	if millrace.Ephemeral(channel) {
		cfg.MemoryStorage, cfg.InactiveThreshold = true, leaveAfter
	}
	return cfg
}

// settleOn has the server wait for acks as long as the lease, unless somebody uses the
// channel with another. Whoever neither asks nor holds anything at the moment, as between
// two requests, is not seen: so all are told.
func (b *broker) settleOn(ctx context.Context, topic, channel string, lease time.Duration) error {
	info, err := b.look(ctx, topic, channel)
	if err != nil {
		return err
	}
	if info.Config.AckWait == lease || info.NumWaiting > 0 || info.NumAckPending > 0 {
		return nil
	}
	cfg := info.Config
	cfg.AckWait = lease
	err = b.link.call(ctx, func(ctx context.Context) error {
		_, err := b.link.js.UpdateConsumer(ctx, Stream(topic), cfg)
		return err
	})
	if err == nil {
		b.link.send(presenceSubject(topic, channel), "", []byte(leaseWord))
	}
	return err
}

// look asks for the state of a channel.
func (b *broker) look(ctx context.Context, topic, channel string) (*jetstream.ConsumerInfo, error) {
	var info *jetstream.ConsumerInfo
	err := b.link.call(ctx, func(ctx context.Context) error {
		c, err := b.link.js.Consumer(ctx, Stream(topic), Consumer(channel))
		if err == nil {
			info = c.CachedInfo()
		}
		return err
	})
	return info, err
}

// consumers lists the names of the stream's consumers.
func (b *broker) consumers(ctx context.Context, topic string) ([]string, error) {
	var names []string
	err := b.link.call(ctx, func(ctx context.Context) error {
		names = names[:0]
		s, err := b.link.js.Stream(ctx, Stream(topic))
		if err != nil {
			return err
		}
		list := s.ConsumerNames(ctx)
		for name := range list.Name() {
			names = append(names, name)
		}
		return list.Err()
	})
	return names, err
}

func (b *broker) createConsumer(ctx context.Context, topic string, cfg jetstream.ConsumerConfig) error {
	err := b.link.call(ctx, func(ctx context.Context) error {
		_, err := b.link.js.CreateConsumer(ctx, Stream(topic), cfg)
		return err
	})
	if errors.Is(err, jetstream.ErrConsumerExists) { // since a moment ago, with another lease
		return nil
	}
	if err != nil {
		return fmt.Errorf("create consumer %s: %w", cfg.Durable, err)
	}
	return nil
}

// deleteConsumer is no error when there is none.
func (b *broker) deleteConsumer(ctx context.Context, topic, name string) error {
	err := b.link.call(ctx, func(ctx context.Context) error {
		return b.link.js.DeleteConsumer(ctx, Stream(topic), name)
	})
	if isNotFound(err) {
		return nil
	}
	return err
}

func (b *broker) deleteTopic(ctx context.Context, topic string) error {
	b.forgotten(topic)
	err := b.link.call(ctx, func(ctx context.Context) error {
		return b.link.js.DeleteStream(ctx, Stream(topic))
	})
	if isNotFound(err) {
		return nil
	}
	return err
}

func (b *broker) deleteChannel(ctx context.Context, topic, channel string) error {
	names, err := b.consumers(ctx, topic)
	if isNotFound(err) || err == nil && !slices.Contains(names, Consumer(channel)) {
		return nil
	}
	if err != nil {
		return err
	}
	remove := func() error { return b.deleteConsumer(ctx, topic, Consumer(channel)) }
	if !millrace.Ephemeral(topic) {
		return b.hold(ctx, topic, remove)
	}
	if err := remove(); err != nil {
		return err
	}
	if names, err = b.consumers(ctx, topic); err == nil && len(names) == 0 {
		return b.deleteTopic(ctx, topic)
	}
	if isNotFound(err) {
		return nil
	}
	return err
}
