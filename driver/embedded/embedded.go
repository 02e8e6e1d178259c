// Package embedded is the driver for the broker in this process. Importing it makes two
// kinds of URL known to millrace.Open:
//
//	mem:                        a broker in memory, as long as the process
//	file:///var/lib/jobs        a broker whose messages are in that directory
//	file:///var/lib/jobs?sync=2s
//
// sync is "always" (the default), "never", or a duration: see package broker. A relative
// directory is written file:jobs.
//
// Each mem: that is opened is a broker of its own. A directory can be open once: a second
// Open returns an error that wraps broker.ErrInUse. To have the broker in one program and
// its users in others, run millrace serve.
package embedded

import (
	"context"
	"net/url"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

func init() {
	millrace.Register("mem", open)
	millrace.Register("file", open)
}

// Options returns how millrace.Open would open the broker at the URL. Returns an error that
// wraps millrace.ErrBadURL when it is not one of this package's.
func Options(brokerURL string) (broker.Options, error) {
	u, err := url.Parse(brokerURL)
	if err != nil {
		return broker.Options{}, badURL("%w", err)
	}
	if u.Scheme != "mem" && u.Scheme != "file" {
		return broker.Options{}, badURL("%s is not a broker in a directory, as in file:///var/lib/jobs", u.Redacted())
	}
	return parse(u)
}

// open opens the broker that the URL names.
func open(_ context.Context, u *url.URL) (millrace.Broker, error) {
	opts, err := parse(u)
	if err != nil {
		return nil, err
	}
	b, err := broker.Open(opts)
	if err != nil {
		return nil, err
	}
	return New(b), nil
}

// Broker is a broker.Broker behind the interface that all drivers share.
type Broker struct{ broker *broker.Broker }

var _ millrace.Broker = Broker{}

// New returns the driver for b. Closing it closes b.
func New(b *broker.Broker) Broker { return Broker{b} }

// Declare makes sure that the topic and the channel exist.
func (b Broker) Declare(ctx context.Context, topic, channel string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var err error
	if channel == "" {
		_, err = b.broker.Topic(topic)
	} else {
		_, err = b.broker.Channel(topic, channel)
	}
	return err
}

// Publish appends the messages to the topic and returns when they are safe. It does not
// stop half-way when the context ends.
func (b Broker) Publish(ctx context.Context, topic string, msgs ...millrace.Message) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return b.broker.Publish(topic, msgs)
}

// Subscribe starts to consume from a channel.
func (b Broker) Subscribe(ctx context.Context, topic, channel string, opts millrace.SubscribeOptions) (millrace.Subscription, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c, err := b.broker.Subscribe(topic, channel, opts)
	if err != nil {
		return nil, err // not a nil *Consumer in the interface
	}
	return c, nil
}

// Depth tells how much waits in a channel. What was published with a delay is deferred from
// the moment on when it is published.
func (b Broker) Depth(ctx context.Context, topic, channel string) (millrace.Depth, error) {
	if ctx.Err() != nil {
		return millrace.Depth{}, context.Cause(ctx)
	}
	return b.broker.Depth(topic, channel)
}

// Delete removes the channel, or the whole topic when channel is "".
func (b Broker) Delete(ctx context.Context, topic, channel string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if channel == "" {
		return b.broker.DeleteTopic(topic)
	}
	return b.broker.DeleteChannel(topic, channel)
}

// Close closes the broker.
func (b Broker) Close() error { return b.broker.Close() }
