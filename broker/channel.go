package broker

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/ledger"
	"github.com/millrace/millrace/internal/seglog"
)

// expiryStep is the least time between two looks for leases that have ended, so that
// many leases with different ends cost no more than many with one end.
const expiryStep = 10 * time.Millisecond

// Channel is a named queue on a topic: a ledger over the topic's log. Its consumers
// compete for its messages.
type Channel struct {
	topic   *Topic
	name    string
	start   uint64 // where its ledger started when it was made
	open    sync.Once
	err     error // what open met
	journal *journal

	// reader reads new messages; it belongs to whoever has set reading.
	reader *seglog.Reader

	mu        sync.Mutex // guards what follows
	ledger    *ledger.Ledger
	limit     uint64 // messages below it may be delivered
	reading   bool
	consumers map[uint32]*Consumer
	lastID    uint32
	waiting   []*Consumer // for messages, longest first
	timer     *time.Timer
	timerAt   int64 // when the timer fires; 0: it is not set
	dirty     bool  // the housekeeper knows that there is something to write
	ended     error // why no consumer gets anything any more
}

func newChannel(t *Topic, name string, start uint64, l *ledger.Ledger) *Channel {
	ch := &Channel{
		topic: t, name: name, start: start, ledger: l, limit: start,
		consumers: make(map[uint32]*Consumer),
	}
	path := ""
	if t.dir != "" && !millrace.Ephemeral(name) {
		path = journalPath(t.dir, name)
	}
	ch.journal = newJournal(t.broker, path)
	return ch
}

// Name returns the channel's name.
func (ch *Channel) Name() string { return ch.name }

// ready makes the channel durable the first time it is called.
func (ch *Channel) ready() error {
	ch.open.Do(func() {
		ch.reader = ch.topic.log.NewReader(ch.ledger.Cursor())
		ch.err = ch.journal.create(ch)
	})
	return ch.err
}

// Depth returns what the channel holds.
func (ch *Channel) Depth() millrace.Depth {
	ch.mu.Lock()
	c := ch.ledger.Counts()
	cursor, limit := ch.ledger.Cursor(), ch.limit
	ch.mu.Unlock()
	return millrace.Depth{
		Ready:    ch.topic.log.Count(cursor, limit) + int64(c.Ready),
		InFlight: int64(c.InFlight),
		Deferred: int64(c.Deferred),
	}
}

// extend lets the channel deliver what is below limit.
func (ch *Channel) extend(limit uint64) {
	ch.mu.Lock()
	var c *Consumer
	if limit > ch.limit {
		ch.limit = limit
		c = ch.nextWaiting()
	}
	ch.mu.Unlock()
	c.wakeUp()
}

// nextWaiting takes the consumer that has waited longest off the list; the caller wakes
// it up when it has given back the lock.
func (ch *Channel) nextWaiting() *Consumer {
	for len(ch.waiting) > 0 {
		c := ch.waiting[0]
		ch.waiting = slices.Delete(ch.waiting, 0, 1)
		c.waits = false
		if !c.closed {
			return c
		}
	}
	return nil
}

// hasMore says whether a consumer would find something. The lock is held.
func (ch *Channel) hasMore() bool {
	return ch.ledger.Counts().Ready > 0 || !ch.reading && ch.ledger.Cursor() < ch.limit
}

func (ch *Channel) subscribe(opts millrace.SubscribeOptions) (*Consumer, error) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.ended != nil {
		return nil, ch.ended
	}
	ch.lastID++
	c := newConsumer(ch, ch.lastID, opts)
	ch.consumers[c.id] = c
	return c, nil
}

// unsubscribe gives back what the consumer holds.
func (ch *Channel) unsubscribe(c *Consumer) {
	ch.mu.Lock()
	if c.closed {
		ch.mu.Unlock()
		return
	}
	c.closed = true
	delete(ch.consumers, c.id)
	var next *Consumer
	if ch.ledger.Release(c.id) > 0 {
		ch.touch()
		next = ch.nextWaiting()
	} else if c.waits || ch.hasMore() {
		next = ch.nextWaiting() // it might have been woken for something it did not take
	}
	last := len(ch.consumers) == 0 && ch.ended == nil
	ch.mu.Unlock()
	close(c.done)
	next.wakeUp()
	if last && millrace.Ephemeral(ch.name) {
		if err := ch.topic.deleteChannel(ch); err != nil {
			ch.topic.broker.opts.Logger.Error("delete an ephemeral channel", "topic", ch.topic.name, "channel", ch.name, "error", err)
		}
	}
}

// end makes the channel deliver nothing any more; false when it had ended before.
func (ch *Channel) end(why error) bool {
	ch.mu.Lock()
	if ch.ended != nil {
		ch.mu.Unlock()
		return false
	}
	ch.ended = why
	consumers := make([]*Consumer, 0, len(ch.consumers))
	for _, c := range ch.consumers {
		consumers = append(consumers, c)
	}
	ch.stopTimer()
	idle := !ch.reading && ch.reader != nil
	ch.reading = true // for good: nobody starts to read any more
	ch.mu.Unlock()
	for _, c := range consumers {
		ch.unsubscribe(c)
	}
	if idle {
		ch.reader.Close()
	}
	return true
}

// touch tells the housekeeper, once, that the ledger has something to write or that a
// segment may have been used up. The lock is held.
func (ch *Channel) touch() {
	if !ch.dirty {
		ch.dirty = true
		ch.topic.broker.house.tell(ch)
	}
}

// arm sets the timer for the next lease that ends or deferral that is due. The lock is
// held.
func (ch *Channel) arm(at int64) {
	next := ch.ledger.NextDeadline()
	if next != 0 {
		next = max(next, at+int64(expiryStep))
	}
	if due := ch.ledger.NextDue(); due != 0 && (next == 0 || due < next) {
		next = due
	}
	if next == 0 || ch.ended != nil || ch.timerAt != 0 && ch.timerAt <= next {
		return
	}
	ch.stopTimer()
	ch.timerAt = next
	ch.topic.broker.timers.Add(1)
	ch.timer = time.AfterFunc(time.Duration(max(next-at, 0)), ch.tick)
}

func (ch *Channel) stopTimer() {
	if ch.timerAt != 0 && ch.timer.Stop() {
		ch.topic.broker.timers.Done()
	}
	ch.timerAt = 0
}

// tick makes ready what has lost its lease or become due, and wakes a consumer.
func (ch *Channel) tick() {
	defer ch.topic.broker.timers.Done()
	at := now()
	ch.mu.Lock()
	if ch.ended != nil {
		ch.mu.Unlock()
		return
	}
	ch.timerAt = 0
	lost := ch.ledger.Expire(at, func(_ uint64, _, owner uint32) {
		if c := ch.consumers[owner]; c != nil {
			c.held--
		}
	})
	if lost > 0 {
		ch.touch()
	}
	var c *Consumer
	if _, ok := ch.ledger.NextRedelivery(at); ok {
		c = ch.nextWaiting()
	}
	ch.arm(at)
	ch.mu.Unlock()
	c.wakeUp()
}

func (ch *Channel) errorf(err error) error {
	return fmt.Errorf("channel %s of topic %s: %w", ch.name, ch.topic.name, err)
}
