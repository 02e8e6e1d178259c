package ledger

import (
	"maps"
	"math"
	"math/bits"
	"slices"
)

// A lease is a message's while it is in flight.
type lease struct {
	deadline int64
	attempt  uint32
	owner    uint32
}

// leases are all that are held, by sequence number.
//
// They are in pages of 64, so that messages which are delivered and acked more or
// less in order find theirs in the page that was used last. There is no heap of the
// deadlines, which each ack would have to search: earliest is only a lower bound, and
// when it has passed a sweep over all leases finds those that ran out, and the true
// one. For leases of a minute that is one sweep a minute.
type leases struct {
	pages    map[uint64]*page // by sequence number / 64; none is empty, except newest
	newest   *page            // the page that was put to last
	last     *page            // the page that was looked at last, nil if it is gone
	count    int
	earliest int64 // no deadline is before it, if there is any
	keys     []uint64
	spare    pool[page]
}

type page struct {
	key    uint64
	held   uint64 // which of leases are meant
	leases [64]lease
}

func newLeases() leases { return leases{pages: map[uint64]*page{}} }

// put makes seq, which has no lease, have one.
func (t *leases) put(seq uint64, l lease) {
	p := t.newest
	if p == nil || p.key != seq/64 {
		p = t.page(seq / 64)
	}
	p.held |= 1 << (seq % 64)
	p.leases[seq%64] = l
	t.count++
	if t.count == 1 || l.deadline < t.earliest {
		t.earliest = l.deadline
	}
}

func (t *leases) page(key uint64) *page {
	p := t.pages[key]
	if p == nil {
		p = t.spare.get()
		p.key, p.held = key, 0
		t.pages[key] = p
	}
	before := t.newest
	t.newest = p
	if before != nil {
		t.dropEmpty(before)
	}
	return p
}

// find is the page that the lease for this attempt at seq is in, nil if there is none.
func (t *leases) find(seq uint64, attempt uint32) *page {
	p := t.last
	if p == nil || p.key != seq/64 {
		if p = t.pages[seq/64]; p == nil {
			return nil
		}
		t.last = p
	}
	if p.held&(1<<(seq%64)) == 0 || p.leases[seq%64].attempt != attempt {
		return nil
	}
	return p
}

// take ends the lease for this attempt at seq, if it is held.
func (t *leases) take(seq uint64, attempt uint32) bool {
	p := t.find(seq, attempt)
	if p == nil {
		return false
	}
	t.count--
	p.held &^= 1 << (seq % 64)
	t.dropEmpty(p)
	return true
}

// extend gives the lease for this attempt at seq, if it is held, another deadline.
func (t *leases) extend(seq uint64, attempt uint32, deadline int64) bool {
	p := t.find(seq, attempt)
	if p == nil {
		return false
	}
	p.leases[seq%64].deadline = deadline
	t.earliest = min(t.earliest, deadline)
	return true
}

// sweep looks at all leases in the order of their sequence numbers, ends those that
// ends says so of, and finds the earliest deadline of the others.
func (t *leases) sweep(ends func(seq uint64, l lease) bool) {
	t.keys = slices.AppendSeq(t.keys[:0], maps.Keys(t.pages))
	slices.Sort(t.keys)
	t.earliest = math.MaxInt64
	for _, key := range t.keys {
		p := t.pages[key]
		for held := p.held; held != 0; held &= held - 1 {
			i := bits.TrailingZeros64(held)
			l := p.leases[i]
			if ends(key*64+uint64(i), l) {
				p.held &^= 1 << i
				t.count--
			} else {
				t.earliest = min(t.earliest, l.deadline)
			}
		}
		t.dropEmpty(p)
	}
}

// dropEmpty forgets a page without leases. Not the newest: the next message is likely
// to need it, when there are no more in flight than that.
func (t *leases) dropEmpty(p *page) {
	if p.held != 0 || p == t.newest {
		return
	}
	delete(t.pages, p.key)
	if t.last == p {
		t.last = nil
	}
	t.spare.put(p)
}
