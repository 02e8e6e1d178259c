package broker

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// houseEvery is how long acks wait until they are written together, and how long
	// used-up segments stay.
	houseEvery = 50 * time.Millisecond
	// houseAgain is how long the housekeeper waits after something went wrong.
	houseAgain = time.Second
)

// housekeeper is the one goroutine that writes the channels' journals and removes
// segments that no channel needs. Idle topics cost it nothing.
type housekeeper struct {
	mu     sync.Mutex // guards what follows
	topics map[*Topic]bool

	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

// prepare makes it ready to be told of topics. Alarms do that while they are opened.
func (h *housekeeper) prepare() {
	h.wake = make(chan struct{}, 1)
	h.stop = make(chan struct{})
	h.done = make(chan struct{})
}

func (h *housekeeper) start() { go h.run() }

func (h *housekeeper) close() {
	close(h.stop)
	<-h.done
}

// tell puts a topic on the list. It may be called with a channel's lock held.
func (h *housekeeper) tell(t *Topic) {
	h.mu.Lock()
	if h.topics == nil {
		h.topics = make(map[*Topic]bool)
	}
	h.topics[t] = true
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *housekeeper) run() {
	defer close(h.done)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-h.wake:
		}
		pause.Reset(h.round())
		select {
		case <-h.stop:
			return
		case <-pause.C:
		}
	}
}

// round keeps house in the topics on the list, and returns how long to rest.
func (h *housekeeper) round() time.Duration {
	h.mu.Lock()
	topics := h.topics
	h.topics = nil
	h.mu.Unlock()
	rest := houseEvery
	for t := range topics {
		if !t.keepHouse() {
			h.tell(t)
			rest = houseAgain
		}
	}
	return rest
}

// keepHouse writes the journals in which something has changed and then removes the
// segments that no channel needs any more. It says whether all went well, and the
// Logger when that has changed: what could not be done costs no message.
func (t *Topic) keepHouse() bool {
	defer t.takeTurn()()
	if t.ending() != nil {
		return true
	}
	var errs []error
	for _, ch := range t.Channels() {
		if err := ch.keepSurvey(); err != nil {
			errs = append(errs, fmt.Errorf("count what is deferred: %w", err))
		}
		if err := ch.keepLater(); err != nil {
			errs = append(errs, fmt.Errorf("channel %s: %w", ch.name, err))
		}
		if err := ch.keepJournal(); err != nil {
			errs = append(errs, fmt.Errorf("write acks of channel %s: %w", ch.name, err))
		} else if err := ch.sweep(); err != nil {
			errs = append(errs, fmt.Errorf("remove what channel %s has deferred: %w", ch.name, err))
		}
	}
	if err := t.reclaim(); err != nil {
		errs = append(errs, fmt.Errorf("free disk space: %w", err))
	}
	err := errors.Join(errs...)
	switch log := t.broker.opts.Logger; {
	case err != nil && !t.failing:
		log.Error("housekeeping fails; after a crash messages would be delivered again", "topic", t.name, "error", err)
	case err == nil && t.failing:
		log.Info("housekeeping works again", "topic", t.name)
	}
	t.failing = err != nil
	return err == nil
}

// keepJournal writes what has changed since the last time, if something has.
func (ch *Channel) keepJournal() error {
	ch.mu.Lock()
	dirty := ch.dirty
	ch.mu.Unlock()
	if !dirty && !ch.journal.stale {
		return nil
	}
	return ch.journal.write(ch)
}

// persist makes safe what was said of the channel's messages, as safe as a message that
// was published. Returns ErrNoSpace, wrapped, and what else the disk says; then it is tried
// again, and after a crash before that works the messages come at once.
func (t *Topic) persist(ch *Channel) error {
	if !ch.journal.kept() {
		return nil
	}
	defer t.takeTurn()()
	if ch.ending() != nil {
		return nil
	}
	if err := ch.persistNow(); err != nil {
		return ch.errorf(fmt.Errorf("the deferral is not safe on the disk yet: %w", explain(err)))
	}
	return nil
}

// persistNow writes the channel's journal, as safely as a message that is published. The
// topic's turn is held.
func (ch *Channel) persistNow() error {
	if !ch.journal.kept() {
		return nil
	}
	err := ch.journal.write(ch)
	if err == nil && ch.topic.broker.opts.Sync == SyncAlways {
		err = ch.journal.sync()
	}
	if err != nil {
		ch.topic.broker.house.tell(ch.topic) // its journal is stale now
	}
	return err
}

// reclaim removes the segments in which every channel has nothing left to do. Their acks
// need not be on disk: a channel whose journal is behind finds holes instead, and skips
// them.
func (t *Topic) reclaim() error {
	released, channels := t.releasedTo(), t.Channels()
	at := t.broker.now()
	sealed := t.log.Sealed()
	t.keeps = 0
	defer func() { t.retained.Store(t.keeps) }()
	for _, s := range sealed {
		if s.Next > released || !allDone(channels, s.Base, s.Next) {
			continue
		}
		if until, stays := t.retains(s, at); stays {
			t.keep(s, at, until)
			continue
		}
		if err := t.log.Remove(s.Base); err != nil {
			return err
		}
		t.free(s.Bytes)
	}
	// After a failed write the last segment has no successor, and on a full disk will not
	// get one while it takes the space.
	if s, ok := t.log.Ended(); ok && s.Next <= released && allDone(channels, s.Base, s.Next) {
		if until, stays := t.retains(s, at); stays {
			t.keep(s, at, until)
		} else if err := t.log.Hollow(s.Base); err != nil {
			return err
		} else {
			t.free(s.Bytes)
		}
	}
	return t.compact(sealed, released, channels, at)
}

func allDone(channels []*Channel, lo, hi uint64) bool {
	for _, ch := range channels {
		ch.mu.Lock()
		done := ch.ledger.Done(lo, hi)
		ch.mu.Unlock()
		if !done {
			return false
		}
	}
	return true
}
