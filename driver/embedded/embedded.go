// Package embedded is the driver for the broker in this process. Importing it makes two
// kinds of URL known to millrace.Open:
//
//	mem:                        a broker in memory, as long as the process
//	file:///var/lib/jobs        a broker whose messages are in that directory
//	file:///var/lib/jobs?sync=2s
//
// sync is "always" (the default), "never", or a duration: see package broker. A relative
// directory is written file:jobs.
package embedded

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

func init() {
	millrace.Register("mem", open)
	millrace.Register("file", open)
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

func parse(u *url.URL) (broker.Options, error) {
	var opts broker.Options
	dir := u.Path
	if u.Opaque != "" {
		dir = u.Opaque
	}
	switch {
	case u.Host != "" && u.Host != "localhost":
		return opts, fmt.Errorf("%w: %q names a host; write %s:///%s/… for a directory", millrace.ErrBadURL, u, u.Scheme, u.Host)
	case u.Scheme == "mem" && strings.Trim(dir, "/") != "":
		return opts, fmt.Errorf("%w: mem: takes no directory; write file://%s", millrace.ErrBadURL, dir)
	case u.Scheme == "file" && dir == "":
		return opts, fmt.Errorf("%w: file: needs a directory, as in file:///var/lib/jobs", millrace.ErrBadURL)
	case u.Scheme == "file":
		opts.Dir = dir
	}
	for key, values := range u.Query() {
		if key != "sync" || u.Scheme != "file" {
			return opts, fmt.Errorf("%w: unknown option %q; only file: URLs have one, sync", millrace.ErrBadURL, key)
		}
		sync, err := ParseSync(values[0])
		if err != nil {
			return opts, fmt.Errorf("%w: %w", millrace.ErrBadURL, err)
		}
		opts.Sync = sync
	}
	return opts, nil
}

// ParseSync reads "always", "never" or a positive duration as broker.Options.Sync.
func ParseSync(s string) (time.Duration, error) {
	switch s {
	case "always":
		return broker.SyncAlways, nil
	case "never":
		return broker.SyncNever, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("sync=%s: write always, never, or a duration such as 2s", s)
	}
	return d, nil
}

// Broker is a broker.Broker behind the interface that all drivers share.
type Broker struct{ broker *broker.Broker }

var _ millrace.Broker = Broker{}

// New returns the driver for b. Closing it closes b.
func New(b *broker.Broker) Broker { return Broker{b} }

// Declare makes sure that the topic and the channel exist.
func (b Broker) Declare(ctx context.Context, topic, channel string) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	t, err := b.broker.Topic(topic)
	if err == nil && channel != "" {
		_, err = t.Channel(channel)
	}
	return err
}

// Publish appends the messages to the topic and returns when they are safe. It does not
// stop half-way when the context ends.
func (b Broker) Publish(ctx context.Context, topic string, msgs ...millrace.Message) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return b.broker.Publish(topic, msgs)
}

// Subscribe starts to consume from a channel.
func (b Broker) Subscribe(ctx context.Context, topic, channel string, opts millrace.SubscribeOptions) (millrace.Subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	c, err := b.broker.Subscribe(topic, channel, opts)
	if err != nil {
		return nil, err // not a nil *Consumer in the interface
	}
	return c, nil
}

// Depth tells how much waits in a channel.
func (b Broker) Depth(_ context.Context, topic, channel string) (millrace.Depth, error) {
	if t := b.broker.Lookup(topic); t != nil {
		if ch := t.Lookup(channel); ch != nil {
			return ch.Depth(), nil
		}
	}
	return millrace.Depth{}, fmt.Errorf("depth of channel %s of topic %s: %w", channel, topic, millrace.ErrNotFound)
}

// Delete removes the channel, or the whole topic when channel is "".
func (b Broker) Delete(_ context.Context, topic, channel string) error {
	if channel == "" {
		return b.broker.DeleteTopic(topic)
	}
	if t := b.broker.Lookup(topic); t != nil {
		return t.DeleteChannel(channel)
	}
	return nil
}

// Close closes the broker.
func (b Broker) Close() error { return b.broker.Close() }
