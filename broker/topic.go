package broker

import (
	"errors"
	"fmt"
	"sync"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/ledger"
	"github.com/millrace/millrace/internal/seglog"
)

// errTopicGone and errChannelGone make the caller start over: what it looked up was
// deleted meanwhile.
var (
	errTopicGone   = fmt.Errorf("broker: topic was deleted: %w", millrace.ErrClosed)
	errChannelGone = fmt.Errorf("broker: channel was deleted: %w", millrace.ErrClosed)
)

// Topic is a named stream of messages. Each of its channels gets every message.
type Topic struct {
	name   string
	broker *Broker
	dir    string // "" when its messages are in memory
	open   sync.Once
	err    error // what open met
	log    *seglog.Log

	mu       sync.Mutex // guards what follows
	channels []*Channel // never changed in place: a copy may be used without the lock
	// released is where a new channel starts and where all channels end. It follows
	// the end of the log while the topic has a channel, and stands still while it has
	// none; so the first channel gets what waited for it.
	released uint64
	gone     bool
}

func newTopic(b *Broker, name string) *Topic {
	t := &Topic{name: name, broker: b, released: 1}
	if b.opts.fs != nil && !millrace.Ephemeral(name) {
		t.dir = b.topicDir(name)
	}
	return t
}

// Name returns the topic's name.
func (t *Topic) Name() string { return t.name }

// ready opens the topic's log the first time it is called.
func (t *Topic) ready() error {
	t.open.Do(func() { t.err = t.load() })
	return t.err
}

// Publish appends the messages, in order, and returns when they are safe. Returns
// ErrTooLarge before any was accepted, ErrNoSpace, ErrClosed, wrapped.
func (t *Topic) Publish(msgs []millrace.Message) error {
	if err := t.admit(msgs); err != nil {
		return fmt.Errorf("publish to %s: %w", t.name, err)
	}
	at := now()
	ticket, err := t.log.Append(at, len(msgs), func(i int) seglog.Entry {
		m := &msgs[i]
		e := seglog.Entry{Headers: m.Headers, Body: m.Body}
		if m.Delay > 0 {
			e.Due = at + int64(m.Delay)
		}
		return e
	})
	if err == nil {
		err = t.log.Commit(ticket)
	}
	if err == nil {
		return nil
	}
	if t.isGone() {
		return errTopicGone
	}
	return fmt.Errorf("publish to %s: %w", t.name, explain(err))
}

// admit refuses what is too large, and in memory what would be too much.
func (t *Topic) admit(msgs []millrace.Message) error {
	limit := t.broker.opts.MaxMessage
	var bytes int64
	for i := range msgs {
		m := &msgs[i]
		if size := m.Size(); size > limit {
			return fmt.Errorf("message %d of %d has %d bytes, the limit is %d: %w",
				i+1, len(msgs), size, limit, millrace.ErrTooLarge)
		}
		bytes += int64(seglog.Entry{Headers: m.Headers, Body: m.Body}.Size())
	}
	if t.dir != "" {
		return nil
	}
	if held := t.broker.memory.Add(bytes); held > t.broker.opts.MaxMemory {
		t.broker.memory.Add(-bytes)
		return fmt.Errorf("the broker in memory holds %d bytes, the limit is %d: %w",
			held-bytes, t.broker.opts.MaxMemory, millrace.ErrNoSpace)
	}
	return nil
}

func (t *Topic) isGone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.gone
}

// committed is called by the log when more of it is visible.
func (t *Topic) committed(end uint64) {
	t.mu.Lock()
	if len(t.channels) == 0 || end <= t.released {
		t.mu.Unlock()
		return
	}
	t.released = end
	channels := t.channels
	t.mu.Unlock()
	for _, ch := range channels {
		ch.extend(end)
	}
}

// Channels returns the topic's channels.
func (t *Topic) Channels() []*Channel {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.channels
}

// Lookup returns the channel of that name, or nil.
func (t *Topic) Lookup(name string) *Channel {
	for _, ch := range t.Channels() {
		if ch.name == name {
			return ch
		}
	}
	return nil
}

// Channel returns the channel of that name, and creates it if need be: the first one
// of a topic gets all that waits in it, a later one only what is published from now on.
func (t *Topic) Channel(name string) (*Channel, error) {
	if ch := t.Lookup(name); ch != nil {
		return ch, ch.ready()
	}
	if err := millrace.CheckName(name); err != nil {
		return nil, err
	}
	t.mu.Lock()
	if t.gone {
		t.mu.Unlock()
		return nil, errTopicGone
	}
	for _, ch := range t.channels {
		if ch.name == name {
			t.mu.Unlock()
			return ch, ch.ready()
		}
	}
	ch := newChannel(t, name, t.released, ledger.New(t.released))
	t.channels = append(t.channels[:len(t.channels):len(t.channels)], ch)
	t.mu.Unlock()
	if err := ch.ready(); err != nil {
		t.undo(ch)
		return nil, fmt.Errorf("create channel %s of topic %s: %w", name, t.name, explain(err))
	}
	// The end may have moved since, and what was visible before is released now.
	t.committed(t.log.End())
	ch.extend(t.limit())
	return ch, nil
}

func (t *Topic) limit() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.released
}

// undo drops a channel that could not be made. What waited in the topic for its first
// channel goes on waiting.
func (t *Topic) undo(ch *Channel) {
	ch.end(errChannelGone)
	if t.drop(ch) {
		t.mu.Lock()
		t.released = min(t.released, ch.start)
		t.mu.Unlock()
	}
}

// drop takes a channel out of the list and says whether it was the last one.
func (t *Topic) drop(ch *Channel) (last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rest := make([]*Channel, 0, len(t.channels))
	for _, c := range t.channels {
		if c != ch {
			rest = append(rest, c)
		}
	}
	last = len(rest) == 0 && len(t.channels) > 0
	t.channels = rest
	return last
}

// DeleteChannel removes the channel. Its consumers get ErrClosed. Deleting one that
// does not exist is no error.
func (t *Topic) DeleteChannel(name string) error {
	ch := t.Lookup(name)
	if ch == nil {
		return nil
	}
	if err := t.deleteChannel(ch); err != nil {
		return fmt.Errorf("delete channel %s of topic %s: %w", name, t.name, explain(err))
	}
	return nil
}

func (t *Topic) deleteChannel(ch *Channel) error {
	if !ch.end(errChannelGone) {
		return nil
	}
	last := t.drop(ch)
	var err error
	if last && t.dir != "" {
		err = t.saveReleased()
	}
	if err = errors.Join(err, ch.journal.remove()); err != nil {
		return err
	}
	t.broker.house.reclaim(t)
	if last && millrace.Ephemeral(t.name) {
		return t.delete()
	}
	return nil
}

// delete ends the topic and removes what it has on disk.
func (t *Topic) delete() error {
	if !t.end(errTopicGone) {
		return nil
	}
	err := t.closeLog()
	if t.dir != "" {
		err = errors.Join(err, t.broker.removeTopicDir(t))
	}
	t.broker.forget(t)
	return err
}

// end marks the topic as gone and ends its channels; false when it was gone before.
func (t *Topic) end(why error) bool {
	t.mu.Lock()
	gone := t.gone
	t.gone = true
	channels := t.channels
	t.mu.Unlock()
	if gone {
		return false
	}
	for _, ch := range channels {
		ch.end(why)
	}
	return true
}

// close ends the topic and keeps what it has on disk.
func (t *Topic) close() error {
	if t.ready() != nil || !t.end(millrace.ErrClosed) {
		return nil
	}
	var errs []error
	for _, ch := range t.Channels() {
		errs = append(errs, ch.journal.close(ch))
	}
	return errors.Join(append(errs, t.closeLog())...)
}

func (t *Topic) closeLog() error {
	if t.dir == "" {
		t.broker.memory.Add(-t.log.Size())
	}
	return t.log.Close()
}

// Depth returns how many messages wait in the topic itself, because it has no channel.
func (t *Topic) Depth() int64 { return t.log.Count(t.limit(), t.log.End()) }
