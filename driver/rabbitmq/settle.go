package rabbitmq

import (
	"slices"
	"time"
)

// settlement is something to be said to the server about deliveries.
type settlement struct {
	on   *consuming
	tag  uint64
	what settling
}

type settling uint8

const (
	ackOne  settling = iota
	ackUpTo          // all that are not settled, up to the tag
	requeue
	reject // to where the queue dead-letters to
)

// settles are what is still to be said. One goroutine says it, in the order in which it was decided:
// an ackUpTo that overtook a requeue would lose that message.
type settles struct {
	list    []settlement
	writing bool
}

// fewAcks is up to how many are acked one by one: to know how far one ack may reach takes a look at
// all that is held.
const fewAcks = 16

// ackAll acks what was just removed from what is held. The caller holds mu, and calls flush after.
func (s *subscription) ackAll(hs []*holding) {
	if len(hs) > fewAcks {
		slices.SortFunc(hs, func(a, b *holding) int {
			if a.tag < b.tag {
				return -1
			}
			return 1
		})
		// No further than what is held, and than what has come without a gap: the consumers of
		// a channel are heard one by one.
		limit := min(s.held.lowest(), s.c.come.next)
		n, _ := slices.BinarySearchFunc(hs, limit, func(h *holding, limit uint64) int {
			if h.tag < limit {
				return -1
			}
			return 1
		})
		if n > 0 {
			s.say(settlement{s.c, hs[n-1].tag, ackUpTo})
			s.left(hs[:n])
			hs = hs[n:]
		}
	}
	for _, h := range hs {
		s.say(settlement{s.c, h.tag, ackOne})
	}
	s.left(hs)
}

// nackAll gives back what was just removed from what is held. The caller holds mu, and calls flush after.
func (s *subscription) nackAll(hs []*holding) {
	for _, h := range hs {
		what := requeue
		if h.from.moves {
			what = reject // its queue is this subscription's own
		}
		s.say(settlement{s.c, h.tag, what})
	}
	s.left(hs)
}

func (s *subscription) say(what settlement) { s.settles.list = append(s.settles.list, what) }

// left counts what consumers do not hold any more, which lets the server send more.
func (s *subscription) left(hs []*holding) {
	for _, h := range hs {
		h.from.outstanding--
		if h.from.cancelled {
			wake(s.retune)
		}
	}
}

// flush says what is to be said, unless somebody is at it.
func (s *subscription) flush() {
	var list []settlement
	s.mu.Lock()
	for !s.settles.writing && len(s.settles.list) > 0 {
		s.settles.writing = true
		list, s.settles.list = s.settles.list, list[:0]
		current := s.c
		s.mu.Unlock()
		tellServer(list, current)
		s.mu.Lock()
		s.settles.writing = false
	}
	s.mu.Unlock()
}

// tellServer tells the server what concerns the connection; the others are gone. An error ends the
// connection, which is noticed elsewhere.
func tellServer(list []settlement, on *consuming) {
	if on == nil {
		return
	}
	on.conn.socket.hold()
	defer on.conn.socket.release()
	for _, s := range list {
		if s.on != on {
			continue
		}
		switch s.what {
		case ackOne, ackUpTo:
			_ = on.ch.Ack(s.tag, s.what == ackUpTo)
		case requeue, reject:
			_ = on.ch.Reject(s.tag, s.what == requeue)
		}
	}
}

// settled waits until everything has been said, but not for long: a connection may be stuck.
func (s *subscription) settled() {
	for until := time.Now().Add(closeWithin); time.Now().Before(until); time.Sleep(time.Millisecond) {
		s.flush()
		s.mu.Lock()
		done := !s.settles.writing && len(s.settles.list) == 0
		s.mu.Unlock()
		if done {
			return
		}
	}
}

// hearOut has the server do what it was told last. When more than a few dozen acks are on their way
// to a quorum queue, the server's side of the AMQP channel holds further ones back, and forgets
// them when it ends. So the queue itself is asked for something, which it does after all that came
// before, and then the channel something, which it does when it has heard of that from the queue
// and sent on the rest.
func (s *subscription) hearOut(c *consuming) {
	if s.ephemeral || c.conn.IsClosed() {
		return // a classic queue's acks are never held back
	}
	late := time.AfterFunc(closeWithin, func() { _ = c.conn.socket.Close() })
	defer late.Stop()
	s.mu.Lock()
	live := ""
	for _, one := range c.consumers {
		if !one.cancelled && !one.moves {
			live = one.tag
		}
	}
	queue := s.queue
	s.mu.Unlock()
	// An error ends the connection, which does all that hearOut comes before.
	if live != "" {
		_ = c.ch.Cancel(live, false)
	} else if d, got, err := c.ch.Get(queue, false); err == nil && got {
		_ = d.Reject(true)
	}
	_ = c.ch.Qos(1, 0, false)
}

// arrivals knows up to which tag all deliveries have come.
type arrivals struct {
	next  uint64 // the first that has not come; 0 before the first
	early map[uint64]struct{}
}

func (a *arrivals) note(tag uint64) {
	if a.next == 0 {
		a.next = 1
	}
	if tag != a.next {
		if a.early == nil {
			a.early = make(map[uint64]struct{})
		}
		a.early[tag] = struct{}{}
		return
	}
	for a.next++; len(a.early) > 0; a.next++ {
		if _, came := a.early[a.next]; !came {
			return
		}
		delete(a.early, a.next)
	}
}
