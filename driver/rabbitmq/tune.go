package rabbitmq

import (
	"context"
	"time"
)

const (
	// steady is how long a small difference, or one that asks for less, must last before something
	// is done about it. The prefetch of a worker changes with every task.
	steady = 50 * time.Millisecond
	// maxConsumers is how many consumers there are before they are replaced by one.
	maxConsumers = 6
	// maxPrefetch is the most that one consumer can have.
	maxPrefetch = 1<<16 - 1
)

// plan is what has to be done so that the server sends as much as is wanted.
type plan struct {
	cancel   []*consumer
	prefetch int  // of one more consumer; 0 for none
	giveBack bool // what was not received
}

// tune sees to it that the consumers may hold as many deliveries as is wanted, all together with what
// those hold that were cancelled. Only one goroutine calls it.
func (s *subscription) tune(ctx context.Context, c *consuming) error {
	s.mu.Lock()
	want := s.target
	if s.silent {
		want = 0
	}
	paused := want == 0
	if s.ephemeral { // its queue goes with the last consumer
		want = max(1, want)
	}
	p := c.plan(want, time.Now())
	p.giveBack = paused && s.held.waits() && !s.ephemeral
	queue := s.queue
	s.mu.Unlock()

	if s.ephemeral && len(p.cancel) > 0 {
		p.prefetch = max(1, p.prefetch)
	}
	if s.ephemeral && p.prefetch > 0 {
		if err := s.consume(ctx, c, queue, &consumer{prefetch: p.prefetch}); err != nil {
			return err
		}
		p.prefetch = 0
	}
	for _, one := range p.cancel {
		if err := s.b.inTime(ctx, c.conn, func() error { return c.ch.Cancel(one.tag, false) }); err != nil {
			return err
		}
		<-one.done
	}
	if p.giveBack {
		s.mu.Lock()
		ready := s.held.takeReady()
		s.nackAll(ready)
		s.held.free(ready)
		s.mu.Unlock()
		s.flush()
	}
	if p.prefetch > 0 {
		return s.consume(ctx, c, queue, &consumer{prefetch: p.prefetch})
	}
	return nil
}

// plan decides what to do. It marks the consumers that are to be cancelled. The caller holds the mu that
// guards c.
func (c *consuming) plan(want int, now time.Time) (p plan) {
	want = min(want, maxPrefetch)
	live, left := 0, 0 // what consumers may hold, and what cancelled ones do
	kept, count := c.consumers[:0], 0
	for _, one := range c.consumers {
		switch {
		case one.moves || one.cancelled && one.outstanding > 0:
			left += one.outstanding
		case one.cancelled:
			continue
		default:
			live += one.prefetch
			count++
		}
		kept = append(kept, one)
	}
	clear(c.consumers[len(kept):])
	c.consumers = kept

	less, more := live+left-want, want-live-left
	switch {
	case want == 0 || less <= 0 && more <= 0 || less > 0 && live == 0:
		c.uneven = time.Time{}
	case c.uneven.IsZero():
		c.uneven = now
	}
	lasts := !c.uneven.IsZero() && now.Sub(c.uneven) >= steady
	switch {
	case want == 0 && live > 0, less > 0 && live > 0 && lasts:
		c.cancelFor(&p, want)
	case more > 0 && (lasts || live == 0 || more > want/8):
		if count >= maxConsumers {
			c.cancelFor(&p, 0)
		}
		p.prefetch = max(0, want-c.holdable())
	default:
		return p
	}
	c.uneven = time.Time{}
	return p
}

// cancelFor cancels consumers, the last one first, until the others fit, and fills up what is left.
func (c *consuming) cancelFor(p *plan, want int) {
	for i := len(c.consumers) - 1; i >= 0 && (want == 0 || c.holdable() > want); i-- {
		if one := c.consumers[i]; !one.cancelled && !one.moves {
			one.cancelled = true
			p.cancel = append(p.cancel, one)
		}
	}
	p.prefetch = max(0, want-c.holdable())
}

// holdable is how much the consumers may hold, together with what cancelled ones do.
func (c *consuming) holdable() (n int) {
	for _, one := range c.consumers {
		if one.cancelled || one.moves {
			n += one.outstanding
		} else {
			n += one.prefetch
		}
	}
	return n
}
