package nats

import "time"

// leases are the deliveries that a subscription holds. It is pure data: it takes the
// time, and knows nothing of servers.
//
// A lease is called by its tag, the number of its place and how often that was used, so
// that the tag of a lease that is over is never that of another.
type leases struct {
	length time.Duration
	places []place
	free   []uint32 // places that are not used
	held   int
}

// place is where one lease is.
type place struct {
	ack  string // the subject to which its acknowledgements go; "" when the place is free
	ends time.Time
	uses uint32
}

// early is how much sooner than the server we take a lease to be over, because the
// server's has started before the delivery reached us: who acts on a lease of which the
// server thinks that it is over acts on somebody else's.
func (l *leases) early() time.Duration { return min(l.length/20, 500*time.Millisecond) }

// add starts a lease and returns its tag, which is not 0.
func (l *leases) add(ack string, now time.Time) (tag uint64) {
	var at uint32
	if n := len(l.free); n > 0 {
		at, l.free = l.free[n-1], l.free[:n-1]
	} else {
		at = uint32(len(l.places)) //nolint:gosec // as many as the prefetch
		l.places = append(l.places, place{})
	}
	p := &l.places[at]
	p.ack, p.ends = ack, l.end(now)
	p.uses++
	l.held++
	return uint64(p.uses)<<32 | uint64(at)
}

func (l *leases) end(now time.Time) time.Time { return now.Add(l.length - l.early()) }

// find returns the place of a lease that is not over, else nil.
func (l *leases) find(tag uint64, now time.Time) *place {
	at, uses := uint32(tag), uint32(tag>>32) //nolint:gosec // that is how it was made
	if int64(at) >= int64(len(l.places)) {
		return nil
	}
	p := &l.places[at]
	if p.uses != uses || p.ack == "" || !now.Before(p.ends) {
		return nil
	}
	return p
}

// remove ends a lease, and returns where to say so. It returns false when it was over.
func (l *leases) remove(tag uint64, now time.Time) (ack string, ok bool) {
	p := l.find(tag, now)
	if p == nil {
		return "", false
	}
	ack = p.ack
	l.vacate(uint32(tag)) //nolint:gosec // that is how it was made
	return ack, true
}

// extend starts a lease anew, and returns where to say so. It returns false when it was
// over.
func (l *leases) extend(tag uint64, now time.Time) (ack string, ok bool) {
	p := l.find(tag, now)
	if p == nil {
		return "", false
	}
	p.ends = l.end(now)
	return p.ack, true
}

// aging says that so much of a lease is gone that it should be extended before somebody
// is told that he has a whole one.
func (l *leases) aging(tag uint64, now time.Time) bool {
	p := l.find(tag, now)
	return p != nil && p.ends.Sub(now) < l.length*3/4
}

// expire takes out the leases that are over.
func (l *leases) expire(now time.Time) {
	for at := range l.places {
		if p := &l.places[at]; p.ack != "" && !now.Before(p.ends) {
			l.vacate(uint32(at)) //nolint:gosec // as many as the prefetch
		}
	}
}

// clear takes out all leases, and returns where to say so of those that were not over.
func (l *leases) clear(now time.Time) (acks []string) {
	l.expire(now)
	for at := range l.places {
		if ack := l.places[at].ack; ack != "" {
			acks = append(acks, ack)
			l.vacate(uint32(at)) //nolint:gosec // as many as the prefetch
		}
	}
	return acks
}

// rests tells, for all leases that are not over, where to speak of them, and how much of
// them is left to the server.
func (l *leases) rests(now time.Time) map[string]time.Duration {
	rests := make(map[string]time.Duration, l.held)
	for _, p := range l.places {
		if p.ack != "" && now.Before(p.ends) {
			rests[p.ack] = p.ends.Sub(now) + l.early()
		}
	}
	return rests
}

func (l *leases) vacate(at uint32) {
	l.places[at].ack = ""
	l.free = append(l.free, at)
	l.held--
}
