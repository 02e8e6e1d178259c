package nsq

import (
	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/nsqwire"
)

// lease is a message that a node has given us, for a time.
type lease struct {
	from  *source // nil: this one is free
	conn  *conn   // that it came by; when that has ended, so has the lease
	id    [nsqwire.IDLen]byte
	until int64 // when it ends, by the keeper's clock
	most  int64 // when it ends whatever we do

	index, round uint32 // the round tells this message from those that were here before
}

// tag names the lease in its delivery.
func (l *lease) tag() uint64 { return uint64(l.round)<<32 | uint64(l.index) }

// leases are those of a subscription. Each has a place, which is used again when it is
// free, so that neither finding nor taking one allocates.
type leases struct {
	all    []*lease
	vacant []uint32 // places that are free
}

// leaseBlock is how many leases are allocated together.
const leaseBlock = 64

func (ls *leases) take(from *source, id [nsqwire.IDLen]byte, until, most int64) *lease {
	if len(ls.vacant) == 0 {
		block := make([]lease, leaseBlock)
		for i := range block {
			l := &block[i]
			l.index = uint32(len(ls.all)) //nolint:gosec // there is not so much memory
			ls.all = append(ls.all, l)
			ls.vacant = append(ls.vacant, l.index)
		}
	}
	l := ls.all[ls.vacant[len(ls.vacant)-1]]
	ls.vacant = ls.vacant[:len(ls.vacant)-1]
	l.from, l.conn, l.id, l.until, l.most = from, from.conn, id, min(until, most), most
	l.round++
	from.held++
	return l
}

// alive returns the lease with that tag; nil when it has ended, or there was none.
func (ls *leases) alive(tag uint64, now int64) *lease {
	index := tag & (1<<32 - 1)
	if index >= uint64(len(ls.all)) {
		return nil
	}
	l := ls.all[index]
	if l.from == nil || l.round != uint32(tag>>32) { //nolint:gosec // the upper half
		return nil
	}
	if now >= l.until {
		ls.free(l)
		return nil
	}
	return l
}

// free ends a lease.
func (ls *leases) free(l *lease) {
	l.from.held--
	l.from, l.conn = nil, nil
	ls.vacant = append(ls.vacant, l.index)
}

// each calls f with every lease, which may end it.
func (ls *leases) each(f func(*lease)) {
	for _, l := range ls.all {
		if l.from != nil {
			f(l)
		}
	}
}

// expire ends the leases whose time is over.
func (ls *leases) expire(now int64) {
	ls.each(func(l *lease) {
		if now >= l.until {
			ls.free(l)
		}
	})
}

// lose ends the leases that came by a connection.
func (ls *leases) lose(c *conn) {
	ls.each(func(l *lease) {
		if l.conn == c {
			ls.free(l)
		}
	})
}

// supersede ends the lease of a message that its node has given to somebody again.
func (ls *leases) supersede(from *source, id [nsqwire.IDLen]byte) {
	ls.each(func(l *lease) {
		if l.from == from && l.id == id {
			ls.free(l)
		}
	})
}

// queue is what has come and was not received, oldest first.
type queue struct {
	items []millrace.Delivery
	head  int
}

func (q *queue) len() int { return len(q.items) - q.head }

func (q *queue) push(d millrace.Delivery) {
	if len(q.items) == cap(q.items) && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, d)
}

func (q *queue) pop() millrace.Delivery {
	d := q.items[q.head]
	q.items[q.head] = millrace.Delivery{} // it holds on to memory
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return d
}
