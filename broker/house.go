package broker

import (
	"sync"
	"time"

	"github.com/millrace/millrace/internal/seglog"
)

// houseEvery is how long acks wait until they are written together, and how long used-up
// segments stay.
const houseEvery = 50 * time.Millisecond

// housekeeper is the one goroutine that writes the channels' journals and removes
// segments that no channel needs. Idle topics cost it nothing.
type housekeeper struct {
	broker *Broker

	mu    sync.Mutex // guards what follows
	dirty []*Channel // with something to write
	used  []*Topic   // that lost a channel

	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

func (h *housekeeper) start(b *Broker) {
	h.broker = b
	h.wake = make(chan struct{}, 1)
	h.stop = make(chan struct{})
	h.done = make(chan struct{})
	go h.run()
}

func (h *housekeeper) close() {
	close(h.stop)
	<-h.done
}

// tell puts a channel on the list. The channel's lock is held; it is told once.
func (h *housekeeper) tell(ch *Channel) {
	h.mu.Lock()
	h.dirty = append(h.dirty, ch)
	h.mu.Unlock()
	h.knock()
}

// reclaim puts a topic on the list whose segments may have been used up.
func (h *housekeeper) reclaim(t *Topic) {
	h.mu.Lock()
	h.used = append(h.used, t)
	h.mu.Unlock()
	h.knock()
}

func (h *housekeeper) knock() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *housekeeper) run() {
	defer close(h.done)
	timer := time.NewTimer(houseEvery)
	defer timer.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-h.wake:
		}
		h.round()
		timer.Reset(houseEvery)
		select {
		case <-h.stop:
			return
		case <-timer.C:
		}
	}
}

// round writes what is to be written and then removes what that makes removable.
func (h *housekeeper) round() {
	h.mu.Lock()
	dirty, used := h.dirty, h.used
	h.dirty, h.used = nil, nil
	h.mu.Unlock()
	topics := make(map[*Topic]bool)
	for _, t := range used {
		topics[t] = true
	}
	for _, ch := range dirty {
		ch.mu.Lock()
		ch.dirty = false
		ended := ch.ended != nil
		ch.mu.Unlock()
		if ended {
			continue
		}
		if err := ch.journal.write(ch); err != nil {
			h.retry(ch, err)
		}
		topics[ch.topic] = true
	}
	for t := range topics {
		if err := t.reclaim(); err != nil {
			h.broker.opts.Logger.Error("free disk space", "topic", t.name, "error", err)
		}
	}
}

// retry keeps a channel on the list whose journal could not be written. Nothing is lost
// by it but, at a crash, acks.
func (h *housekeeper) retry(ch *Channel, err error) {
	h.broker.opts.Logger.Error("acks are not written to disk", "topic", ch.topic.name, "channel", ch.name, "error", err)
	time.AfterFunc(time.Second, func() {
		ch.mu.Lock()
		defer ch.mu.Unlock()
		if ch.ended == nil {
			ch.touch()
		}
	})
}

// reclaim removes the segments in which every channel has nothing left to do. Their acks
// need not be on disk: a channel whose journal is behind finds holes instead, and skips
// them.
func (t *Topic) reclaim() error {
	released, channels := t.limit(), t.Channels()
	for _, s := range t.log.Sealed() {
		if s.Next > released || !allDone(channels, s) {
			continue
		}
		if err := t.log.Remove(s.Base); err != nil {
			return err
		}
		if t.dir == "" {
			t.broker.memory.Add(-s.Bytes)
		}
	}
	return nil
}

func allDone(channels []*Channel, s seglog.SegmentInfo) bool {
	for _, ch := range channels {
		ch.mu.Lock()
		done := ch.ledger.Done(s.Base, s.Next)
		ch.mu.Unlock()
		if !done {
			return false
		}
	}
	return true
}
