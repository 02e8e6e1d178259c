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

// Channel is a named queue on a topic: a ledger over the topic's log. Its consumers
// compete for its messages.
type Channel struct {
	topic    *Topic
	name     string
	attempts uint32         // how often a message is delivered
	journal  *journal       // belongs to whoever has the topic's turn
	reader   *seglog.Reader // of new messages; belongs to whoever has set reading
	later    laterFiles

	mu        sync.Mutex // guards what follows
	ledger    *ledger.Ledger
	limit     uint64 // messages below it may be delivered
	paused    bool   // its consumers get nothing
	base      int64  // what of the topic had arrived before it
	arrived   uint64 // what Stats has said last
	oldest    oldest
	dead      uint64 // messages whose letters were published
	unburied  bool   // the last letters could not be
	reading   bool   // a consumer reads the log; for good once the channel has ended
	consumers map[uint32]*Consumer
	lastID    uint32
	waiting   []*Consumer // with room, for messages; longest first
	alarm     alarm
	called    bool  // the housekeeper comes, or has come, to load what is due soon
	dirty     bool  // the housekeeper knows that there is something to write
	ended     error // why no consumer gets anything any more
}

func newChannel(t *Topic, name string, l *ledger.Ledger) *Channel {
	ch := &Channel{
		topic: t, name: name, attempts: t.broker.attemptsOf(t.name), ledger: l, limit: l.Cursor(),
		consumers: make(map[uint32]*Consumer),
		reader:    t.log.NewReader(l.Cursor()),
	}
	ch.alarm = alarm{running: &t.broker.timers, ring: ch.ring}
	ch.journal = &journal{fs: t.broker.opts.fs}
	if t.dir != "" && !millrace.Ephemeral(name) {
		ch.journal.path = journalPath(t.dir, name)
	}
	return ch
}

// Name returns the channel's name.
func (ch *Channel) Name() string { return ch.name }

// Depth returns what the channel holds.
func (ch *Channel) Depth() millrace.Depth {
	ch.mu.Lock()
	c := ch.ledger.Counts()
	waiting := ch.unread()
	ch.mu.Unlock()
	return millrace.Depth{
		Ready:    waiting + int64(c.Ready),
		InFlight: int64(c.InFlight),
		Deferred: int64(c.Deferred),
	}
}

// unread is how many messages the channel was not given yet. The lock is held.
func (ch *Channel) unread() int64 {
	log := ch.topic.log
	n := log.Count(ch.ledger.Cursor(), ch.limit)
	ch.ledger.Excluded(func(lo, hi uint64) { n -= log.Count(lo, min(hi, ch.limit)) })
	return max(n-int64(ch.ledger.Ahead()), 0) // some may have lost their records since
}

func (ch *Channel) now() int64 { return ch.topic.broker.now() }

// extend lets the channel deliver what is below limit.
func (ch *Channel) extend(limit uint64) {
	ch.mu.Lock()
	ch.limit = max(ch.limit, limit)
	ch.learn()
	next := ch.passOn()
	ch.mu.Unlock()
	next.wakeUp()
}

// hasMore says whether a consumer that looks now would find something. The lock is held.
func (ch *Channel) hasMore() bool {
	return !ch.reading && !ch.paused && (ch.ledger.Counts().Ready > 0 || ch.ledger.Cursor() < ch.limit)
}

// passOn takes the consumer that has waited longest off the list, if there is something
// for it; the caller wakes it up when it has given back the lock, which it holds.
//
// No wake-up is lost as long as this holds whenever nobody has the lock: if there is
// something and somebody waits for it, then a consumer is on its way that was taken off
// the list. So passOn is called by whoever made that something be there, and by a
// consumer on its way that took less than there was, or nothing: because it lacks room,
// was closed, or its context ended.
func (ch *Channel) passOn() *Consumer {
	if len(ch.waiting) == 0 || !ch.hasMore() {
		return nil
	}
	c := ch.waiting[0]
	ch.leave(c)
	return c
}

// wait puts the consumer on the list of those that wait for messages.
func (ch *Channel) wait(c *Consumer) {
	c.waits = true
	ch.waiting = append(ch.waiting, c)
}

// leave takes it off the list, if it is there.
func (ch *Channel) leave(c *Consumer) {
	if c.waits {
		c.waits = false
		i := slices.Index(ch.waiting, c)
		ch.waiting = slices.Delete(ch.waiting, i, i+1)
	}
}

func (ch *Channel) subscribe(opts millrace.SubscribeOptions) (*Consumer, error) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.ended != nil {
		return nil, ch.errorf(ch.ended)
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
	ch.leave(c)
	if ch.ledger.Release(c.id) > 0 {
		ch.touch()
	}
	next := ch.passOn() // also when it was on its way itself
	idle := len(ch.consumers) == 0 && ch.ended == nil
	ch.mu.Unlock()
	close(c.done)
	next.wakeUp()
	if idle && millrace.Ephemeral(ch.name) {
		ch.topic.deleteIdle(ch)
	}
}

// end makes the channel deliver nothing any more.
func (ch *Channel) end(why error) {
	ch.mu.Lock()
	ch.endNow(why)
}

// endIdle is end for a channel without consumers; false when it has some, or has ended.
func (ch *Channel) endIdle(why error) bool {
	ch.mu.Lock()
	if len(ch.consumers) > 0 || ch.ended != nil {
		ch.mu.Unlock()
		return false
	}
	ch.endNow(why)
	return true
}

// endNow is end for who holds the lock, and gives it back.
func (ch *Channel) endNow(why error) {
	if ch.ended != nil {
		ch.mu.Unlock()
		return
	}
	ch.ended = why
	ch.alarm.cancel()
	consumers := make([]*Consumer, 0, len(ch.consumers))
	for _, c := range ch.consumers {
		consumers = append(consumers, c)
	}
	idle := !ch.reading
	ch.reading = true // for good: nobody starts to read any more
	ch.mu.Unlock()
	for _, c := range consumers {
		ch.unsubscribe(c)
	}
	if idle {
		ch.reader.Close() // else whoever reads does it
	}
}

// ending returns why the channel has ended, nil when it has not.
func (ch *Channel) ending() error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.ended
}

// touch tells the housekeeper, once, that the ledger has something to write or that a
// segment may have been used up. The lock is held.
func (ch *Channel) touch() {
	if !ch.dirty {
		ch.dirty = true
		ch.topic.broker.house.tell(ch.topic)
	}
}

func (ch *Channel) errorf(err error) error {
	return fmt.Errorf("channel %s of topic %s: %w", ch.name, ch.topic.name, err)
}

// expiryStep is the least time between two looks for leases that have ended, so that
// many leases with different ends cost no more than many with one end.
const expiryStep = 10 * time.Millisecond

// arm sets the alarm for the next lease that ends or deferral that is due. The lock is
// held.
func (ch *Channel) arm(at int64) {
	next := ch.ledger.NextDeadline()
	if next != 0 {
		next = max(next, after(at, expiryStep))
	}
	if due := ch.ledger.NextDue(); due != 0 && (next == 0 || due < next) {
		next = due
	}
	if r, far := ch.ledger.NextRun(); far && !ch.called {
		if load := r.Due - int64(loadAhead); next == 0 || load < next {
			next = load
		}
	}
	if next != 0 && ch.ended == nil {
		ch.alarm.set(at, next)
	}
}

// ring makes ready what has lost its lease or become due, and wakes consumers: one for
// that, and those that have room again because they lost something.
func (ch *Channel) ring() {
	var roomy []*Consumer
	at := ch.now()
	ch.mu.Lock()
	ch.alarm.at = 0
	lost := ch.ledger.Expire(at, func(_ uint64, _, owner uint32) {
		c := ch.consumers[owner]
		if c == nil {
			return
		}
		c.held--
		c.silent.Store(c.quiet)
		if c.full {
			c.full = false
			roomy = append(roomy, c)
		}
	})
	if lost > 0 {
		ch.touch()
	}
	ch.ledger.NextRedelivery(at) // moves what is due
	if r, far := ch.ledger.NextRun(); far && r.Due-int64(loadAhead) <= at {
		ch.called = true
		ch.topic.broker.house.tell(ch.topic)
	}
	next := ch.passOn()
	ch.arm(at)
	ch.mu.Unlock()
	next.wakeUp()
	for _, c := range roomy {
		c.wakeUp()
	}
}

// alarm calls ring at a time. It belongs to whoever holds the channel's lock; ring takes
// it. running counts the alarms that are set or ringing.
type alarm struct {
	running *sync.WaitGroup
	ring    func()
	timer   *time.Timer
	at      int64 // 0: it is not set
}

// set makes the alarm ring at next, if it does not ring before that anyway.
func (a *alarm) set(now, next int64) {
	if a.at != 0 && a.at <= next {
		return
	}
	a.at = next
	wait := time.Duration(max(next-now, 0))
	switch {
	case a.timer == nil:
		a.running.Add(1)
		a.timer = time.AfterFunc(wait, func() {
			defer a.running.Done()
			a.ring()
		})
	case !a.timer.Reset(wait):
		a.running.Add(1)
	}
}

// cancel makes it not ring, unless it has begun to.
func (a *alarm) cancel() {
	if a.at != 0 && a.timer.Stop() {
		a.running.Done()
	}
	a.at = 0
}
