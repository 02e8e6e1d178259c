package broker

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/seglog"
)

// errTopicGone and errChannelGone make the caller start over: what it looked up was
// deleted meanwhile. Consumers are told them.
var (
	errTopicGone   = fmt.Errorf("the topic was deleted: %w", millrace.ErrClosed)
	errChannelGone = fmt.Errorf("the channel was deleted: %w", millrace.ErrClosed)
)

// Topic is a named stream of messages. Each of its channels gets every message.
type Topic struct {
	name    string
	broker  *Broker
	dir     string // "" when its messages are in memory
	open    sync.Once
	err     error // what open met
	log     *seglog.Log
	deleted chan struct{} // closed when it is deleted and its files are gone

	// turn holds a token while somebody makes or deletes channels or the topic itself,
	// writes journals, or removes segments.
	turn    chan struct{}
	saved   releasedFile
	remains map[string]*Channel // deleted, but their files could not be
	failing bool                // the housekeeper could not do its work here, and has said so
	sparse  map[uint64]int64    // segments with few messages left, and since when
	again   alarm               // makes the housekeeper come when nothing else does
	keeps   int64               // what retained will be

	published      atomic.Uint64 // messages, since it was opened
	publishedBytes atomic.Uint64 // of their bodies
	retained       atomic.Int64  // bytes of segments that no channel needs and Retain keeps

	mu       sync.Mutex // guards what follows
	channels []*Channel // never changed in place: a copy may be used without the lock
	// released is where a new channel starts and where all channels end. It follows the
	// end of the log while the topic has a channel, and stands still while it has none or
	// is paused; so the first channel gets what waited for it.
	released uint64
	paused   bool
	emptied  int64 // messages that Empty took out
	bytes    int64 // of its messages, if they are in memory
	ended    error // why it takes no messages and channels any more
}

func newTopic(b *Broker, name string) *Topic {
	t := &Topic{
		name: name, broker: b, released: 1,
		deleted: make(chan struct{}), turn: make(chan struct{}, 1),
	}
	if b.opts.fs != nil && !millrace.Ephemeral(name) {
		t.dir = b.topicDir(name)
	}
	t.again = alarm{running: &b.timers, ring: func() { b.house.tell(t) }}
	t.saved = releasedFile{fs: b.opts.fs, path: filepath.Join(t.dir, releasedName)}
	return t
}

// Name returns the topic's name.
func (t *Topic) Name() string { return t.name }

// ready opens the topic's log the first time it is called.
func (t *Topic) ready() error {
	t.open.Do(func() {
		if t.err = t.load(); t.err == nil {
			t.broker.changes.announce()
			t.broker.house.tell(t) // a segment may wait to be removed or rewritten since the last time
		}
	})
	return t.err
}

// ending returns why the topic has ended, nil when it has not.
func (t *Topic) ending() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

// Publish appends the messages, in order, and returns when they are safe. Returns
// ErrTooLarge before any was accepted, ErrNoSpace, ErrClosed, wrapped.
func (t *Topic) Publish(msgs []millrace.Message) error {
	return t.publish(msgs, t.broker.opts.MaxMessage)
}

// publish is Publish with another limit to the size of a message.
func (t *Topic) publish(msgs []millrace.Message, limit int) error {
	err := t.admit(msgs, limit)
	if err == nil {
		err = t.append(msgs)
	}
	if err != nil {
		return fmt.Errorf("publish to topic %s: %w", t.name, err)
	}
	return nil
}

// admit refuses what is too large, in memory what would be too much, and in files all when
// the disk has too little free.
func (t *Topic) admit(msgs []millrace.Message, limit int) error {
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
		return t.broker.water.check()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended != nil {
		return t.ended
	}
	if held := t.broker.memory.Add(bytes); held > t.broker.opts.MaxMemory {
		t.broker.memory.Add(-bytes)
		return fmt.Errorf("%d bytes are more than the memory of the broker has room for, which holds %d of at most %d: %w",
			bytes, held-bytes, t.broker.opts.MaxMemory, millrace.ErrNoSpace)
	}
	t.bytes += bytes
	return nil
}

// free gives back the memory of messages that are gone.
func (t *Topic) free(bytes int64) {
	if t.dir != "" {
		return
	}
	t.mu.Lock()
	t.bytes -= bytes
	t.mu.Unlock()
	t.broker.memory.Add(-bytes)
}

func (t *Topic) append(msgs []millrace.Message) error {
	at := t.broker.now()
	var bytes uint64
	delayed := false
	ticket, err := t.log.Append(at, len(msgs), func(i int) seglog.Entry {
		m := &msgs[i]
		bytes += uint64(len(m.Body))
		e := seglog.Entry{Headers: m.Headers, Body: m.Body}
		if m.Delay > 0 {
			e.Due = after(at, m.Delay)
			delayed = true
		}
		return e
	})
	if err == nil {
		err = t.log.Commit(ticket)
	}
	t.broker.health.note(err)
	if err == nil {
		t.published.Add(uint64(len(msgs)))
		t.publishedBytes.Add(bytes)
		if delayed {
			t.relieve()
		}
		return nil
	}
	if errors.Is(err, seglog.ErrClosed) {
		if ended := t.ending(); ended != nil {
			return ended
		}
	}
	return explain(err)
}

// committed is called by the log when more of it is visible.
func (t *Topic) committed(end uint64) {
	t.mu.Lock()
	if len(t.channels) > 0 && !t.paused {
		t.released = max(t.released, end)
	}
	// Also if somebody else has released them: they may not have told all channels yet.
	released, channels := min(t.released, end), t.channels
	t.mu.Unlock()
	for _, ch := range channels {
		ch.extend(released)
	}
}

func (t *Topic) releasedTo() uint64 { return t.state().cursor }

// state is what the topic's releasedFile is to say.
func (t *Topic) state() released {
	t.mu.Lock()
	defer t.mu.Unlock()
	return released{t.released, t.paused}
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

// Depth returns how many messages wait in the topic itself, because it has no channel or
// is paused.
func (t *Topic) Depth() int64 { return t.log.Count(t.releasedTo(), t.log.End()) }
