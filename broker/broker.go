package broker

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/seglog"
)

// Broker holds topics. Open one with Open; all its methods may be used concurrently.
type Broker struct {
	opts      Options
	lock      io.Closer         // of the data directory; nil in memory
	committer *seglog.Committer // nil in memory
	tail      *seglog.Tail
	memory    atomic.Int64 // bytes held by logs in memory

	mu     sync.RWMutex // guards what follows
	topics map[string]*Topic
	closed bool

	house  housekeeper
	timers sync.WaitGroup // the channels' timers that are armed
}

// Open opens the broker in opts.Dir, or one in memory. Returns an error that wraps
// ErrInUse when another process has the directory, ErrNewerVersion when a later version
// has written there, and otherwise what the file system says.
func Open(opts Options) (*Broker, error) {
	b := &Broker{opts: opts.withDefaults(), topics: make(map[string]*Topic)}
	if b.opts.fs != nil {
		if err := b.openDir(); err != nil {
			return nil, err
		}
	}
	b.house.start(b)
	return b, nil
}

// Topic returns the topic of that name, and creates it if need be. Returns ErrBadName,
// ErrClosed, ErrNoSpace, wrapped.
func (b *Broker) Topic(name string) (*Topic, error) {
	if t := b.Lookup(name); t != nil {
		return t, nil
	}
	if err := millrace.CheckName(name); err != nil {
		return nil, err
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil, millrace.ErrClosed
	}
	t, ok := b.topics[name]
	if !ok {
		t = newTopic(b, name)
		b.topics[name] = t
	}
	b.mu.Unlock()
	// Whoever comes first opens the log, the others wait for it; not under the lock.
	if err := t.ready(); err != nil {
		b.forget(t)
		return nil, fmt.Errorf("create topic %s: %w", name, explain(err))
	}
	return t, nil
}

// Lookup returns the topic of that name, or nil.
func (b *Broker) Lookup(name string) *Topic {
	b.mu.RLock()
	t := b.topics[name]
	b.mu.RUnlock()
	if t == nil || t.ready() != nil {
		return nil
	}
	return t
}

// Topics returns all topics, in no particular order.
func (b *Broker) Topics() []*Topic {
	b.mu.RLock()
	defer b.mu.RUnlock()
	ts := make([]*Topic, 0, len(b.topics))
	for _, t := range b.topics {
		ts = append(ts, t)
	}
	return ts
}

// forget takes a topic out of the map, if it still is the one there.
func (b *Broker) forget(t *Topic) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.topics[t.name] == t {
		delete(b.topics, t.name)
	}
}

// Publish appends the messages to the topic, which it creates if need be, and returns
// when they are safe. Returns ErrTooLarge, ErrNoSpace, ErrBadName, ErrClosed, wrapped.
func (b *Broker) Publish(topic string, msgs []millrace.Message) error {
	for {
		t, err := b.Topic(topic)
		if err != nil {
			return err
		}
		err = t.Publish(msgs)
		if !errors.Is(err, errTopicGone) {
			return err
		}
	}
}

// Subscribe makes a consumer of the channel, which it creates if need be, as it does
// the topic. Returns ErrBadName, ErrNoSpace, ErrClosed, wrapped.
func (b *Broker) Subscribe(topic, channel string, opts millrace.SubscribeOptions) (*Consumer, error) {
	for {
		t, err := b.Topic(topic)
		if err != nil {
			return nil, err
		}
		ch, err := t.Channel(channel)
		if err == nil {
			var c *Consumer
			if c, err = ch.subscribe(opts.WithDefaults()); err == nil {
				return c, nil
			}
		}
		if !errors.Is(err, errTopicGone) && !errors.Is(err, errChannelGone) {
			return nil, err
		}
	}
}

// DeleteTopic removes the topic with its channels and all its messages. Its consumers
// get ErrClosed. Deleting a topic that does not exist is no error.
func (b *Broker) DeleteTopic(name string) error {
	t := b.Lookup(name)
	if t == nil {
		return nil
	}
	if err := t.delete(); err != nil {
		return fmt.Errorf("delete topic %s: %w", name, explain(err))
	}
	return nil
}

// Close ends all consumers, makes safe what was accepted, and frees the directory.
func (b *Broker) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	b.mu.Unlock()
	b.house.close()
	var errs []error
	for _, t := range b.Topics() {
		errs = append(errs, t.close())
	}
	b.timers.Wait()
	if b.committer != nil {
		b.committer.Close()
		errs = append(errs, b.lock.Close())
	}
	return errors.Join(errs...)
}

// explain adds to an error of the layers below the sentinel that users act on.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", millrace.ErrNoSpace, err)
	case errors.Is(err, seglog.ErrClosed):
		return fmt.Errorf("%w: %w", millrace.ErrClosed, err)
	}
	return err
}

// now is the clock of leases and deferrals, in Unix nanoseconds.
func now() int64 { return time.Now().UnixNano() }
