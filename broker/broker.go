package broker

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
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
	opened    time.Time
	lock      io.Closer         // of the data directory; nil in memory
	committer *seglog.Committer // nil in memory
	tail      *seglog.Tail      // nil in memory
	memory    atomic.Int64      // bytes held by logs in memory

	mu     sync.RWMutex // guards what follows
	topics map[string]*Topic
	// remains are deleted topics whose files could not be removed: those go before there
	// is another topic of that name.
	remains map[string]bool
	closed  bool

	house   housekeeper
	records recordPool
	water   lowWater
	changes changes
	health  health
	damages atomic.Uint64 // pieces of files that could not be read

	timers  sync.WaitGroup // of the channels: those that are set, and those that fire
	burials sync.WaitGroup // goroutines that write dead letters
	burying chan struct{}  // holds a token for each of them
	once    sync.Once      // of Close
	err     error          // what Close returned
}

// Open opens the broker in opts.Dir, or one in memory. Returns an error that wraps
// ErrInUse when another process has the directory, ErrNewerVersion when a later version
// has written there, and otherwise what the file system says.
func Open(opts Options) (*Broker, error) {
	b := &Broker{opts: opts.withDefaults(), opened: time.Now(), topics: make(map[string]*Topic), remains: make(map[string]bool), burying: make(chan struct{}, maxBurials)}
	b.house.prepare()
	b.health.start(b)
	b.water.start(b)
	if b.opts.fs != nil {
		if err := b.openDir(); err != nil {
			return nil, err
		}
	}
	b.house.start()
	return b, nil
}

// Topic returns the topic of that name, and creates it if need be. Returns ErrBadName,
// ErrClosed, ErrNoSpace, wrapped.
func (b *Broker) Topic(name string) (*Topic, error) {
	for {
		t, err := b.enter(name)
		if err != nil {
			return nil, err
		}
		// Whoever comes first opens the log, the others wait for it.
		if err := t.ready(); err != nil {
			b.forget(t)
			return nil, fmt.Errorf("create topic %s: %w", name, explain(err))
		}
		switch err := t.ending(); {
		case err == nil:
			return t, nil
		case !errors.Is(err, errTopicGone):
			return nil, err
		}
		<-t.deleted // then the name is free again
	}
}

// enter returns the topic of that name, which may not be open yet.
func (b *Broker) enter(name string) (*Topic, error) {
	b.mu.RLock()
	t, closed := b.topics[name], b.closed
	b.mu.RUnlock()
	if closed {
		return nil, millrace.ErrClosed
	}
	if t != nil {
		return t, nil
	}
	if err := millrace.CheckName(name); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, millrace.ErrClosed
	}
	if b.topics[name] == nil {
		b.topics[name] = newTopic(b, name)
	}
	return b.topics[name], nil
}

// forget takes a topic out of the map, if it still is the one there.
func (b *Broker) forget(t *Topic) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.topics[t.name] == t {
		delete(b.topics, t.name)
	}
}

// forgetDeleted is forget, and notes whether the topic's files remain.
func (b *Broker) forgetDeleted(t *Topic, remains bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.topics[t.name] == t {
		delete(b.topics, t.name)
	}
	if remains {
		b.remains[t.name] = true
	}
}

// noteRemains notes that something may be left of a topic that could not be made.
func (b *Broker) noteRemains(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remains[name] = true
}

// removeRemains removes what is left of a deleted topic that had the name of t.
func (b *Broker) removeRemains(t *Topic) error {
	b.mu.RLock()
	remains := b.remains[t.name]
	b.mu.RUnlock()
	if !remains {
		return nil
	}
	if err := b.removeTopicDir(t); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.remains, t.name)
	return nil
}

// Lookup returns the topic of that name, or nil.
func (b *Broker) Lookup(name string) *Topic {
	b.mu.RLock()
	t, closed := b.topics[name], b.closed
	b.mu.RUnlock()
	if t == nil || closed || t.ready() != nil || t.ending() != nil {
		return nil
	}
	return t
}

// Topics returns all topics, in no particular order.
func (b *Broker) Topics() []*Topic {
	return slices.DeleteFunc(b.entered(), func(t *Topic) bool {
		return t.ready() != nil || t.ending() != nil
	})
}

// entered returns the topics that are there, or are being opened.
func (b *Broker) entered() []*Topic {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return slices.Collect(maps.Values(b.topics))
}

// Publish appends the messages to the topic, which it creates if need be, and returns
// when they are safe. Returns ErrTooLarge, ErrNoSpace, ErrBadName, ErrClosed, wrapped.
func (b *Broker) Publish(topic string, msgs []millrace.Message) error {
	for {
		t, err := b.Topic(topic)
		if err != nil {
			return fmt.Errorf("publish to topic %s: %w", topic, err)
		}
		if err = t.Publish(msgs); !errors.Is(err, errTopicGone) {
			return err
		}
	}
}

// Subscribe makes a consumer of the channel, which it creates if need be, as it does
// the topic. Returns ErrBadName, ErrNoSpace, ErrClosed, wrapped.
func (b *Broker) Subscribe(topic, channel string, opts millrace.SubscribeOptions) (*Consumer, error) {
	for {
		ch, err := b.Channel(topic, channel)
		if err != nil {
			return nil, fmt.Errorf("subscribe to channel %s of topic %s: %w", channel, topic, err)
		}
		c, err := ch.subscribe(opts.WithDefaults())
		if !errors.Is(err, errTopicGone) && !errors.Is(err, errChannelGone) {
			return c, err
		}
	}
}

// Channel returns the channel, and creates it if need be, as it does the topic. Returns
// ErrBadName, ErrNoSpace, ErrClosed, wrapped.
func (b *Broker) Channel(topic, channel string) (*Channel, error) {
	for {
		t, err := b.Topic(topic)
		if err != nil {
			return nil, err
		}
		ch, err := t.Channel(channel)
		if !errors.Is(err, errTopicGone) {
			return ch, err
		}
	}
}

// Depth returns what the channel holds. Returns ErrNotFound, ErrClosed, wrapped.
func (b *Broker) Depth(topic, channel string) (millrace.Depth, error) {
	if t := b.Lookup(topic); t != nil {
		if ch := t.Lookup(channel); ch != nil {
			return ch.Depth(), nil
		}
	}
	err := b.closedError()
	if err == nil {
		err = millrace.ErrNotFound
	}
	return millrace.Depth{}, fmt.Errorf("depth of channel %s of topic %s: %w", channel, topic, err)
}

// DeleteTopic removes the topic with its channels and all its messages. Its consumers
// get ErrClosed. Deleting a topic that does not exist is no error. With an error
// it may be there again after a restart, unless it is deleted again.
func (b *Broker) DeleteTopic(name string) error {
	b.mu.RLock()
	t, remains := b.topics[name], b.remains[name]
	b.mu.RUnlock()
	err := b.closedError()
	if err == nil && t == nil && remains {
		if t, err = b.enter(name); err == nil {
			if err = t.ready(); err != nil { // it removes the old one
				b.forget(t)
			}
		}
	}
	if err == nil && t != nil && t.ready() == nil {
		err = t.delete()
	}
	if err != nil {
		return fmt.Errorf("delete topic %s: %w", name, explain(err))
	}
	return nil
}

// DeleteChannel removes the channel with all that waits in it. Its consumers get
// ErrClosed. Deleting a channel that does not exist is no error.
func (b *Broker) DeleteChannel(topic, channel string) error {
	if t := b.Lookup(topic); t != nil {
		return t.DeleteChannel(channel)
	}
	if err := b.closedError(); err != nil {
		return fmt.Errorf("delete channel %s of topic %s: %w", channel, topic, err)
	}
	return nil
}

func (b *Broker) closedError() error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed {
		return millrace.ErrClosed
	}
	return nil
}

// Close ends all consumers, makes safe what was accepted, and frees the directory. A
// second Close waits for the first, and returns the same.
func (b *Broker) Close() error {
	b.once.Do(func() { b.err = b.close() })
	return b.err
}

func (b *Broker) close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.house.close()
	var errs []error
	for _, t := range b.entered() {
		if err := t.close(); err != nil {
			errs = append(errs, fmt.Errorf("close topic %s: %w", t.name, explain(err)))
		}
	}
	b.timers.Wait()
	b.burials.Wait()
	if b.committer != nil {
		b.committer.Close()
		errs = append(errs, b.lock.Close())
	}
	return errors.Join(errs...)
}

// now is the clock of leases and deferrals, in Unix nanoseconds. It goes on evenly while
// the broker is open, so that a lease lasts as long as was said when somebody sets the
// machine's clock.
func (b *Broker) now() int64 { return b.opened.Add(time.Since(b.opened)).UnixNano() }

// after is at and d later, as far as time goes.
func after(at int64, d time.Duration) int64 {
	if int64(d) > math.MaxInt64-at {
		return math.MaxInt64
	}
	return at + int64(d)
}

// explain adds to an error of the layers below the sentinel that users act on.
func explain(err error) error {
	switch {
	case err == nil, errors.Is(err, millrace.ErrNoSpace), errors.Is(err, millrace.ErrClosed):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", millrace.ErrNoSpace, err)
	case errors.Is(err, seglog.ErrClosed):
		return fmt.Errorf("%w: %w", millrace.ErrClosed, err)
	}
	return err
}
