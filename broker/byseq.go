package broker

import (
	"errors"
	"time"
)

// What follows settles leases by the sequence number of their message alone, for clients
// that know no more of it: the lease is the one that this consumer holds now. Each does
// what it can for all of them, and returns an error with a *millrace.LeaseError for those
// that this consumer does not hold.

// AckSeqs is Ack by sequence number.
func (c *Consumer) AckSeqs(seqs []uint64) error {
	l := c.channel.ledger
	return c.settleEach(len(seqs), true, func(i int) bool {
		attempt, _, ok := c.holds(seqs[i])
		return ok && l.Ack(seqs[i], attempt)
	})
}

// NackSeqs is Nack by sequence number.
func (c *Consumer) NackSeqs(delay time.Duration, seqs ...uint64) error {
	l := c.channel.ledger
	at := c.channel.now()
	due := after(at, max(delay, 0))
	err := c.settleEach(len(seqs), true, func(i int) bool {
		attempt, _, ok := c.holds(seqs[i])
		return ok && l.Nack(seqs[i], attempt, at, due)
	})
	if delay > 0 {
		err = errors.Join(err, c.channel.topic.persist(c.channel))
	}
	return err
}

// ExtendSeqs gives the messages a new lease from now, which ends at most limit after
// they were delivered; 0 means no limit.
func (c *Consumer) ExtendSeqs(lease, limit time.Duration, seqs ...uint64) error {
	l := c.channel.ledger
	at := c.channel.now()
	return c.settleEach(len(seqs), false, func(i int) bool {
		attempt, deadline, ok := c.holds(seqs[i])
		if !ok {
			return false
		}
		until := after(at, lease)
		if limit > 0 {
			until = min(until, after(c.deliveredAt(seqs[i], attempt, deadline), limit))
		}
		return l.Extend(seqs[i], attempt, until)
	})
}

// holds returns this consumer's lease for the message; false if it has none. The
// channel's lock is held.
func (c *Consumer) holds(seq uint64) (attempt uint32, deadline int64, ok bool) {
	owner, attempt, deadline, ok := c.channel.ledger.Holder(seq)
	return attempt, deadline, ok && owner == c.id
}

// firstSeen is when a message was delivered as an attempt.
type firstSeen struct {
	attempt uint32
	at      int64
}

// deliveredAt is when a message was delivered whose lease is now to be extended. Its
// first deadline tells that, and must be noted before there is another. The channel's
// lock is held.
func (c *Consumer) deliveredAt(seq uint64, attempt uint32, deadline int64) int64 {
	if seen, ok := c.extended[seq]; ok && seen.attempt == attempt {
		return seen.at
	}
	if c.extended == nil {
		c.extended = make(map[uint64]firstSeen)
	}
	if len(c.extended) > 2*c.held { // most are settled
		for seq, seen := range c.extended {
			if attempt, _, ok := c.holds(seq); !ok || attempt != seen.attempt {
				delete(c.extended, seq)
			}
		}
	}
	at := deadline - int64(c.lease)
	c.extended[seq] = firstSeen{attempt, at}
	return at
}

// InFlight says whether any consumer of the channel holds the message now.
func (ch *Channel) InFlight(seq uint64) bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	_, _, _, ok := ch.ledger.Holder(seq)
	return ok
}

// Channel returns the channel that the consumer is of.
func (c *Consumer) Channel() *Channel { return c.channel }

// Held is how many deliveries the consumer has that are not settled.
func (c *Consumer) Held() int {
	c.channel.mu.Lock()
	defer c.channel.mu.Unlock()
	return c.held
}
