package broker

import (
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/seglog"
)

// unreadable is how long a message is kept back whose file could not be read.
const unreadable = time.Second

// haul is what a consumer takes out of its channel at a time: first what is to be
// delivered again, then what is new. While there is one, it has the reading turn.
type haul struct {
	buf         []millrace.Delivery // as long as the consumer has room
	at          int64               // when it was begun
	leased      int                 // so many of buf are leased, with Seq and Attempt alone
	fetched     int                 // so many of buf are complete
	from, limit uint64              // where new messages are
	records     []seglog.Record     // new messages
	pooled      *[]seglog.Record    // what they stand in; of the recordPool
	passed      uint64              // there are no others below it
	lost        []millrace.Delivery // leased, but not in the log any more
	early       []early             // leased, but not due yet
	failed      []millrace.Delivery // leased, but could not be read
	dead        []millrace.Delivery // leased, but delivered often enough: see dead.go
	err         error               // why
}

// early is a message whose deferral was lost with a part of the journal.
type early struct {
	millrace.Delivery
	due int64
}

// take moves messages from the channel to buf without waiting for any. When it returns
// 0, the consumer is on the waiting list, or lacks room and is woken by what makes room.
func (c *Consumer) take(buf []millrace.Delivery) (int, error) {
	for {
		h, ok, err := c.begin(buf)
		if !ok {
			return 0, err
		}
		c.channel.fetch(&h)
		c.read(&h)
		if n, err := c.land(&h); n > 0 || err != nil {
			return n, err
		}
		// What was read is not to be delivered now, or is not there any more.
	}
}

// begin takes the reading turn and leases what is to be delivered again. ok is false if
// there is nothing to read, or no room.
func (c *Consumer) begin(buf []millrace.Delivery) (h haul, ok bool, err error) {
	ch := c.channel
	at := ch.now()
	var next *Consumer
	ch.mu.Lock()
	ch.leave(c)
	c.full = false
	_, again := ch.ledger.NextRedelivery(at)
	room := min(len(buf), c.room())
	switch {
	case c.closed || ch.ended != nil:
		ch.mu.Unlock()
		return h, false, c.endError()
	case room <= 0:
		c.full = true
		next = ch.passOn()
	case ch.reading || ch.paused || !again && ch.ledger.Cursor() >= ch.limit:
		ch.wait(c)
	default:
		ok, ch.reading = true, true
		h.buf, h.at, h.from, h.limit = buf[:room], at, ch.ledger.Cursor(), ch.limit
		if again {
			h.leased = ch.lease(c, h.buf, at)
		}
	}
	ch.mu.Unlock()
	next.wakeUp()
	return h, ok, nil
}

// room is how many more deliveries the consumer may hold. The lock is held.
func (c *Consumer) room() int {
	if c.silent.Load() {
		return 0
	}
	return c.prefetch - c.held
}

// lease leases to the consumer what was given back or is due. The lock is held.
func (ch *Channel) lease(c *Consumer, buf []millrace.Delivery, at int64) int {
	deadline := after(at, c.lease)
	n := 0
	for n < len(buf) {
		seq, attempt, ok := ch.ledger.Redeliver(at, deadline, c.id)
		if !ok {
			break
		}
		buf[n] = millrace.Delivery{Seq: seq, Attempt: attempt, Tag: c.tag(attempt)}
		n++
	}
	c.held += n
	return n
}

// fetch reads the leased messages, and moves those that were there to the front. They
// may stand anywhere, so it does not use the channel's reader, which is ahead of them.
func (ch *Channel) fetch(h *haul) {
	if h.leased == 0 {
		return
	}
	reader := ch.topic.log.NewReader(h.buf[0].Seq)
	defer reader.Close()
	var one [1]seglog.Record
	for i, d := range h.buf[:h.leased] {
		reader.Seek(d.Seq)
		n, err := reader.Read(one[:])
		switch r := &one[0]; {
		case err != nil:
			h.err = ch.errorf(err)
			h.failed = append(h.failed, h.buf[i:h.leased]...)
			return
		case n == 0 || r.Seq != d.Seq:
			h.lost = append(h.lost, d)
		case r.Due > h.at:
			h.early = append(h.early, early{d, r.Due})
		default:
			d.Message = millrace.Message{Headers: r.Headers, Body: r.Body}
			d.Published = r.Time
			if ch.usedUp(&d) {
				h.dead = append(h.dead, d)
				continue
			}
			h.buf[h.fetched] = d
			h.fetched++
		}
	}
}

// read reads new messages, as many as there is room for behind those that were fetched.
func (c *Consumer) read(h *haul) {
	room := len(h.buf) - h.fetched
	if room == 0 || h.from >= h.limit || h.err != nil {
		return
	}
	ch := c.channel
	h.pooled = ch.topic.broker.records.take(room)
	h.records = (*h.pooled)[:room]
	ch.reader.Seek(h.from)
	n, err := ch.reader.Read(h.records)
	h.records = h.records[:n]
	switch {
	case err != nil:
		h.err = ch.errorf(err)
	case n == 0:
		// All up to the limit are holes: what was there is damaged, or never was safe.
		h.passed = h.limit
	default:
		h.passed = min(h.records[n-1].Seq+1, h.limit)
	}
}

// land leases the new messages, gives the reading turn back, and returns how many of
// buf are delivered; an error only when there are none.
func (c *Consumer) land(h *haul) (int, error) {
	ch := c.channel
	at := ch.now()
	ch.mu.Lock()
	c.drop(h, at)
	n := 0
	ended := ch.ended != nil
	var dead []millrace.Delivery
	if !ended {
		ch.reading = false
		dead = c.handOver(h.dead, at)
		if !c.closed { // else what was fetched is leased to nobody any more
			n = h.fetched + c.deliver(h, at)
		}
		ch.touch()
		ch.arm(at)
	}
	next := ch.passOn()
	ch.mu.Unlock()
	next.wakeUp()
	ch.bury(dead)
	ch.topic.broker.records.giveBack(h.pooled, len(h.records))
	if ended {
		ch.reader.Close()
	}
	if n > 0 {
		return n, nil
	}
	return 0, h.err
}

// drop ends the leases of what could not be had. The lock is held.
func (c *Consumer) drop(h *haul, at int64) {
	l := c.channel.ledger
	for _, d := range h.lost { // its record is damaged, which was reported
		if l.Ack(d.Seq, d.Attempt) {
			c.held--
		}
	}
	for _, d := range h.early {
		if l.Withdraw(d.Seq, d.Attempt, at, d.due) {
			c.held--
		}
	}
	for _, d := range h.failed {
		if l.Nack(d.Seq, d.Attempt, at, after(at, unreadable)) {
			c.held--
		}
	}
}

// deliver leases the new messages that are to be delivered now, puts them into buf
// behind those that were fetched, and returns how many. The lock is held.
func (c *Consumer) deliver(h *haul, at int64) int {
	l := c.channel.ledger
	if l.Cursor() < h.from {
		return 0 // it was rewound meanwhile: what was read comes when it is its turn again
	}
	deadline := after(at, c.lease)
	n := h.fetched
	for i := range h.records {
		switch r := &h.records[i]; {
		case r.Seq >= h.limit, !l.Wanted(r.Seq):
			// Not released yet, or meanwhile the channel was emptied.
		case r.Due > at:
			l.Defer(r.Seq, r.Due)
		default:
			attempt := l.Deliver(r.Seq, deadline, c.id)
			h.buf[n] = millrace.Delivery{
				Message: millrace.Message{Headers: r.Headers, Body: r.Body},
				Seq:     r.Seq, Attempt: attempt, Published: r.Time, Tag: c.tag(attempt),
			}
			n++
		}
	}
	l.Skip(h.passed)
	c.held += n - h.fetched
	return n - h.fetched
}
