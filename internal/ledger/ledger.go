package ledger

import (
	"fmt"
	"iter"
	"math"
)

// A Ledger is the state of one channel. Sequence numbers start at 1 and may have
// holes; they end well before 1<<63. Times are Unix time in nanoseconds. Owners are
// whatever the caller numbers its consumers with.
type Ledger struct {
	cursor   uint64
	beyond   spans // above the cursor, and done
	ahead    set   // above the cursor, and in any state; see DeferAhead
	surveyed uint64
	done     doneSet
	leases   leases
	ready    queue
	deferred schedule // the near ones
	became   int64    // what is deferred is due later than this, or was deferred since
	far      set      // deferred, and in a run
	runs     []Run
	nextRun  int // of runs, the one that is due first

	acked, redelivered, nacked, expired uint64

	journal  journal
	recovery map[uint64]parked // what a Replay said of messages that wait; nil after Recovered
}

// New is the ledger of a channel that starts at sequence number at: everything before
// it is done, nothing from there on was delivered.
func New(at uint64) *Ledger {
	return &Ledger{
		cursor:  at,
		done:    newDoneSet(at),
		leases:  newLeases(),
		became:  math.MinInt64,
		journal: journal{floor: at, cursor: at},
	}
}

// Floor is the first sequence number that is not done; Cursor if there is none.
func (l *Ledger) Floor() uint64 { return l.done.floor }

// Cursor is the first sequence number that was never delivered from the log. What
// DeferAhead has taken lies at or above it and may have been delivered.
func (l *Ledger) Cursor() uint64 { return l.cursor }

// Deliver puts seq, the log's next message at or after the cursor, in flight for
// owner until deadline, as attempt 1. What lies before it is holes, and done. It
// panics when seq is not Wanted.
func (l *Ledger) Deliver(seq uint64, deadline int64, owner uint32) (attempt uint32) {
	if seq != l.cursor {
		l.pass(seq)
	}
	l.moveTo(seq + 1)
	l.leases.put(seq, lease{deadline, 1, owner})
	return 1
}

// Defer makes seq, the log's next message at or after the cursor, wait until due
// before it is delivered for the first time. What lies before it is holes, and done.
// It panics when seq is not Wanted.
func (l *Ledger) Defer(seq uint64, due int64) {
	if seq != l.cursor {
		l.pass(seq)
	}
	l.moveTo(seq + 1)
	l.park(parked{due, seq, 0})
}

// pass moves the cursor over holes.
func (l *Ledger) pass(seq uint64) {
	if !l.Wanted(seq) {
		panic(fmt.Sprintf("ledger: message %d is before the cursor, %d, or not wanted any more", seq, l.cursor))
	}
	l.Skip(seq)
}

// Skip moves the cursor to the sequence number to, if it is not there yet. What it
// passes over is done: holes, damaged records, messages that the channel does not want;
// but not what DeferAhead has taken.
func (l *Ledger) Skip(to uint64) {
	if to > l.cursor {
		l.passOver(to)
		l.moveTo(to)
	}
}

// NextRedelivery is the message that Redeliver would take: of those that were given
// back or whose time has come, the one for which that was so first. ok is false when
// there is none.
func (l *Ledger) NextRedelivery(now int64) (seq uint64, ok bool) {
	for len(l.deferred) > 0 && l.deferred[0].due <= now {
		p := l.deferred.pop()
		l.became = max(l.became, p.due)
		l.ready.push(p)
	}
	if l.ready.count == 0 {
		return 0, false
	}
	return l.ready.peek().seq, true
}

// Redeliver puts the message that NextRedelivery tells in flight for owner until
// deadline, as the attempt after its last one. ok is false when there is none.
func (l *Ledger) Redeliver(now, deadline int64, owner uint32) (seq uint64, attempt uint32, ok bool) {
	if _, ok := l.NextRedelivery(now); !ok {
		return 0, 0, false
	}
	p := l.ready.pop()
	p.due = givenBack
	if p.attempt++; p.attempt == 0 {
		p.attempt-- // better the same attempt twice than number 0, which nobody has
	}
	l.leases.put(p.seq, lease{deadline, p.attempt, owner})
	l.redelivered++
	l.journal.moved = append(l.journal.moved, p) // a restart gives it back, with this attempt
	return p.seq, p.attempt, true
}

// Ack ends the lease for this attempt at seq: the message is done. It reports false,
// and does nothing, when this lease is not held any more.
func (l *Ledger) Ack(seq uint64, attempt uint32) bool {
	if !l.leases.take(seq, attempt) {
		return false
	}
	l.done.add(seq)
	l.acked++
	return true
}

// Nack ends the lease for this attempt at seq: the message is ready again at once or,
// when due is after now, from then on. It reports false, and does nothing, when this
// lease is not held any more.
func (l *Ledger) Nack(seq uint64, attempt uint32, now, due int64) bool {
	if !l.leases.take(seq, attempt) {
		return false
	}
	if due <= now {
		due = givenBack
	}
	l.nacked++
	l.park(parked{due, seq, attempt})
	return true
}

// park makes a message wait, that has no lease, and tells the journal.
func (l *Ledger) park(p parked) {
	l.journal.moved = append(l.journal.moved, p)
	if p.due == givenBack {
		l.ready.push(p)
	} else {
		l.deferred.push(p)
	}
}

// Extend gives the lease for this attempt at seq another deadline, earlier or later.
// It reports false, and does nothing, when this lease is not held any more.
func (l *Ledger) Extend(seq uint64, attempt uint32, deadline int64) bool {
	return l.leases.extend(seq, attempt, deadline)
}

// InFlight is who holds the lease for this attempt at seq, and until when. ok is false
// when it is not held any more.
func (l *Ledger) InFlight(seq uint64, attempt uint32) (owner uint32, deadline int64, ok bool) {
	p := l.leases.find(seq, attempt)
	if p == nil {
		return 0, 0, false
	}
	held := p.leases[seq%64]
	return held.owner, held.deadline, true
}

// Expire makes those messages ready again, oldest first, whose leases have a deadline
// at or before now, and returns how many. Each is told to lost, if that is not nil,
// which must not call the ledger. It costs next to nothing before NextDeadline, and
// else a look at each message in flight: so it is worth to let a few milliseconds pass
// between two calls.
func (l *Ledger) Expire(now int64, lost func(seq uint64, attempt, owner uint32)) int {
	if l.leases.count == 0 || now < l.leases.earliest {
		return 0
	}
	n := l.giveBack(func(seq uint64, held lease) bool {
		if held.deadline > now {
			return false
		}
		if lost != nil {
			lost(seq, held.attempt, held.owner)
		}
		return true
	})
	l.expired += uint64(n)
	return n
}

// Release makes all messages ready again, oldest first, that owner holds, and returns
// how many.
func (l *Ledger) Release(owner uint32) int {
	return l.giveBack(func(_ uint64, held lease) bool { return held.owner == owner })
}

// giveBack ends the leases that ends says so of. Their messages are ready again.
func (l *Ledger) giveBack(ends func(seq uint64, held lease) bool) (n int) {
	l.leases.sweep(func(seq uint64, held lease) bool {
		if !ends(seq, held) {
			return false
		}
		l.park(parked{givenBack, seq, held.attempt})
		n++
		return true
	})
	return n
}

// NextDeadline is a lower bound of the earliest deadline of a lease, 0 when no message
// is in flight. Once it has passed, Expire makes it exact.
func (l *Ledger) NextDeadline() int64 {
	if l.leases.count == 0 {
		return 0
	}
	return l.leases.earliest
}

// NextDue is the earliest due time of a deferred message that is near, 0 when there is
// none.
func (l *Ledger) NextDue() int64 {
	if len(l.deferred) == 0 {
		return 0
	}
	return l.deferred[0].due
}

// Empty makes everything below the sequence number to done, whatever its state, and
// moves the cursor there if it is not that far yet. Leases there are not held any more.
func (l *Ledger) Empty(to uint64) {
	if to <= l.done.floor {
		return
	}
	l.done.addRange(l.done.floor, to)
	l.moveTo(max(l.cursor, to))
	l.leases.sweep(func(seq uint64, _ lease) bool { return seq < to })
	l.ready.keep(func(p parked) bool { return p.seq >= to })
	l.deferred.keep(func(p parked) bool { return p.seq >= to })
	l.dropFar(0, to)
}

// Counts is how many messages are in each state, and how many have been.
type Counts struct {
	InFlight int // held under a lease
	Deferred int // waiting for their time, near or far, or not asked for since it came
	Ready    int // given back or due, and not yet redelivered

	// Since New:
	Acked       uint64 // leases that an Ack ended
	Redelivered uint64 // deliveries by Redeliver
	Nacked      uint64 // leases that a Nack ended
	Expired     uint64 // leases that ran out
}

// Counts costs nothing.
func (l *Ledger) Counts() Counts {
	return Counts{
		InFlight:    l.leases.count,
		Deferred:    len(l.deferred) + l.far.count,
		Ready:       l.ready.count,
		Acked:       l.acked,
		Redelivered: l.redelivered,
		Nacked:      l.nacked,
		Expired:     l.expired,
	}
}

// Done reports whether all of [lo, hi) is done, so that the log need not keep it. What
// is at or above the cursor is not, even if it is a hole or was taken ahead and acked,
// unless it was excluded.
func (l *Ledger) Done(lo, hi uint64) bool {
	if hi <= l.done.floor || lo >= hi {
		return true
	}
	if hi > l.cursor {
		if !l.excludes(max(lo, l.cursor), hi) {
			return false
		}
		hi = l.cursor
	}
	for range l.done.live(lo, hi) {
		return false
	}
	return true
}

// Live is the sequence numbers of [lo, hi) below the cursor that are not done, in
// ascending order. The ledger must not change while they are read.
func (l *Ledger) Live(lo, hi uint64) iter.Seq[uint64] {
	return l.done.live(lo, min(hi, l.cursor))
}

// LiveCount is how many sequence numbers Live has. It looks at one number for each
// 4096 that are not all done.
func (l *Ledger) LiveCount(lo, hi uint64) int {
	return l.done.liveCount(lo, min(hi, l.cursor))
}
