package rabbitmq

import (
	"slices"
	"time"

	"github.com/millrace/millrace"
)

// holding is a delivery that the server waits to hear of.
type holding struct {
	d        millrace.Delivery // its Tag is the driver's own
	tag      uint64            // AMQP's, on the channel that from is on
	from     *consumer
	deadline time.Time // end of the lease; zero until it is handed out
	since    time.Time // when the server sent it
	busy     bool      // a copy is being published: nobody else settles it
	round    uint64    // in which it was found last
}

// holdings are all deliveries of a subscription that are not settled. It is pure data.
type holdings struct {
	all      map[uint64]*holding // by d.Tag
	ready    []*holding          // not handed out yet, in the server's order
	next     uint64              // the last d.Tag that was given out
	earliest time.Time           // no lease ends before; zero when it is not known
	spare    []*holding
	round    uint64 // of find: a delivery that is passed twice is found once
}

// maxSpare bounds the holdings that are kept to be used again.
const maxSpare = 1024

// fresh returns an empty holding.
func (hs *holdings) fresh() *holding {
	if n := len(hs.spare); n > 0 {
		h := hs.spare[n-1]
		hs.spare = hs.spare[:n-1]
		return h
	}
	return new(holding)
}

// free takes holdings that were removed, to be used again. Nobody may refer to them any more.
func (hs *holdings) free(gone []*holding) {
	for _, h := range gone {
		*h = holding{}
		if len(hs.spare) < maxSpare {
			hs.spare = append(hs.spare, h)
		}
	}
}

// add holds a delivery that has come. Consumers of one channel are heard one by one: what comes
// late from one of them is put where it belongs.
func (hs *holdings) add(h *holding) {
	if hs.all == nil {
		hs.all = make(map[uint64]*holding)
	}
	hs.next++
	h.d.Tag = hs.next
	hs.all[h.d.Tag] = h
	at := len(hs.ready)
	for at > 0 && hs.ready[at-1].tag > h.tag {
		at--
	}
	hs.ready = slices.Insert(hs.ready, at, h)
}

// hide holds a delivery that is not to be handed out.
func (hs *holdings) hide(h *holding) {
	hs.add(h)
	h.busy = true
	hs.ready = slices.DeleteFunc(hs.ready, func(other *holding) bool { return other == h })
}

// waits says whether something can be handed out.
func (hs *holdings) waits() bool { return len(hs.ready) > 0 }

// hand hands out what is ready, under a lease until then.
func (hs *holdings) hand(buf []millrace.Delivery, until time.Time) (n int) {
	n = min(len(buf), len(hs.ready))
	for i, h := range hs.ready[:n] {
		h.deadline = until
		buf[i] = h.d
	}
	if n > 0 && (hs.earliest.IsZero() || until.Before(hs.earliest)) {
		hs.earliest = until
	}
	hs.dropReady(n)
	return n
}

// dropReady takes the first n from those that are ready.
func (hs *holdings) dropReady(n int) {
	if n == len(hs.ready) {
		clear(hs.ready)
		hs.ready = hs.ready[:0]
		return
	}
	hs.ready = slices.Delete(hs.ready, 0, n)
}

// find returns the holdings of deliveries, and the positions of those whose lease has ended.
func (hs *holdings) find(ds []millrace.Delivery, now time.Time) (found []*holding, lost []int) {
	found = make([]*holding, 0, len(ds))
	hs.round++
	for i := range ds {
		h := hs.all[ds[i].Tag]
		if h == nil || h.busy || h.deadline.IsZero() || !now.Before(h.deadline) || h.round == hs.round {
			lost = append(lost, i)
			continue
		}
		h.round = hs.round
		found = append(found, h)
	}
	return found, lost
}

// remove forgets a holding that was handed out.
func (hs *holdings) remove(h *holding) { delete(hs.all, h.d.Tag) }

// takeReady removes and returns what was not handed out.
func (hs *holdings) takeReady() []*holding {
	ready := hs.ready
	hs.ready = nil
	for _, h := range ready {
		hs.remove(h)
	}
	return ready
}

// takeExpired removes and returns those whose lease has ended.
func (hs *holdings) takeExpired(now time.Time) (expired []*holding) {
	if hs.earliest.IsZero() || now.Before(hs.earliest) {
		return nil
	}
	hs.earliest = time.Time{}
	for _, h := range hs.all {
		switch {
		case h.deadline.IsZero() || h.busy && !now.Before(h.deadline): // see release
		case !now.Before(h.deadline):
			expired = append(expired, h)
			hs.remove(h)
		case hs.earliest.IsZero() || h.deadline.Before(hs.earliest):
			hs.earliest = h.deadline
		}
	}
	return expired
}

// release ends what made a holding busy. Its lease may have ended meanwhile.
func (hs *holdings) release(h *holding, now time.Time) {
	h.busy = false
	hs.earliest = now
}

// old returns those that were handed out and that the server waits for since before then.
func (hs *holdings) old(then time.Time) (old []*holding) {
	for _, h := range hs.all {
		if !h.deadline.IsZero() && !h.busy && h.since.Before(then) {
			old = append(old, h)
		}
	}
	return old
}

// lose forgets everything: the server has it again.
func (hs *holdings) lose() {
	for _, h := range hs.all {
		h.busy = false
	}
	clear(hs.all)
	hs.ready = nil
	hs.earliest = time.Time{}
}

// lowest returns the lowest AMQP tag that is held.
func (hs *holdings) lowest() uint64 {
	lowest := ^uint64(0)
	for _, h := range hs.all {
		lowest = min(lowest, h.tag)
	}
	return lowest
}
