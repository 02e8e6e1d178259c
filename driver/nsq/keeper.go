package nsq

import "time"

// keeper looks after a subscription: it ends leases, shares the prefetch among the nodes,
// and notices when this process was stopped for so long that what has come in the meantime
// cannot be trusted to be ours any more.
type keeper struct {
	sub  *subscription
	base time.Time
	kick chan struct{} // has room for one: look now

	// What follows is guarded by sub.mu.
	last int64 // when it looked last
	turn int
}

const (
	// lookEvery is the time between two looks with several nodes. The longest without is
	// idleLook.
	lookEvery = 50 * time.Millisecond
	idleLook  = 500 * time.Millisecond
)

func newKeeper(s *subscription) keeper {
	return keeper{sub: s, base: time.Now(), kick: make(chan struct{}, 1)}
}

// now is the time by the clock that leases go by, in nanoseconds.
func (k *keeper) now() int64 { return int64(time.Since(k.base)) }

// run looks after the subscription until it ends.
func (k *keeper) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-k.kick:
		case <-k.sub.over:
			return
		}
		timer.Reset(k.look())
	}
}

// look returns when to look again.
func (k *keeper) look() time.Duration {
	s := k.sub
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != nil {
		return idleLook
	}
	now := k.now()
	if k.stopped(now) {
		for _, src := range s.sources {
			src.hangUp()
		}
	}
	k.last = now
	s.leases.expire(now)
	if s.several() {
		k.turn++
		for _, src := range s.sources {
			src.observe(now)
		}
		k.share()
		return min(lookEvery, s.lease/8)
	}
	return min(idleLook, s.lease/8)
}

// stopped says whether this process did not run for so long that what it reads now may have
// been sent long ago: by our clock its lease would just begin. Half a lease is left to say
// Extend in. The caller holds sub.mu.
func (k *keeper) stopped(now int64) bool {
	return now-k.last > int64(k.sub.lease/2)
}

// hangUp ends the connection, to begin anew with another one. The caller holds sub.mu.
func (src *source) hangUp() {
	if src.conn != nil && !src.hung {
		src.hung = true
		src.sub.leases.lose(src.conn)
		_ = src.conn.net.Close()
	}
}

// several says whether messages come from more than one node. The caller holds mu.
func (s *subscription) several() bool {
	n := 0
	for _, src := range s.sources {
		if src.conn != nil {
			n++
		}
	}
	return n > 1
}

// joined is called when a source has come or gone. The caller holds sub.mu.
func (k *keeper) joined() {
	k.share()
	k.wake()
}

// came is called when a message has. The caller holds sub.mu.
func (k *keeper) came(src *source, now int64) {
	src.came = now
	if src.held >= src.told && !src.hungry {
		src.hungry = true
		k.wake()
	}
}

// freed is called when leases have ended: what was to be lowered may have been, so that
// something can be raised. The caller holds sub.mu.
func (k *keeper) freed() {
	if k.sub.several() {
		k.apply()
	}
}

func (k *keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// share decides what each node may send, and tells them. The caller holds sub.mu.
func (k *keeper) share() {
	s := k.sub
	if s.several() {
		portions := make([]*portion, 0, len(s.sources))
		for _, src := range s.sources {
			if src.conn != nil {
				portions = append(portions, &src.portion)
			}
		}
		share(s.prefetch, k.turn, portions)
	} else {
		for _, src := range s.sources {
			src.want = min(s.prefetch, src.limit)
		}
	}
	k.apply()
}

// apply tells the nodes their portions, as far as they are free. The caller holds sub.mu.
func (k *keeper) apply() {
	budget := k.sub.prefetch
	for _, src := range k.sub.sources {
		src.tell(min(src.told, src.want))
		budget -= max(src.told, src.held)
	}
	for _, src := range k.sub.sources {
		taken := max(src.told, src.held)
		if more := min(src.want, taken+max(budget, 0)); more > src.told {
			budget -= max(more-taken, 0)
			src.tell(more)
		}
	}
}
