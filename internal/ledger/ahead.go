package ledger

// Ahead of the cursor are messages that the ledger was told of before their turn came:
// they were published with a time to wait for. They go their way through all states like
// those below the cursor, and the cursor passes over them without changing theirs.
//
// The cursor never stands at one of them, nor at one that was excluded: it has leapt over.

// DeferAhead makes seq wait until due before it is delivered for the first time, although
// the messages before it were not delivered yet. It reports false, and does nothing, when
// seq is not Wanted.
func (l *Ledger) DeferAhead(seq uint64, due int64) bool {
	if !l.Wanted(seq) {
		return false
	}
	if seq == l.cursor {
		l.moveTo(seq + 1)
	} else {
		l.ahead.add(seq)
	}
	l.journal.told = true
	l.park(parked{due, seq, 0})
	return true
}

// Survey says that DeferAhead was called for all messages below the sequence number to
// that wait for a time.
func (l *Ledger) Survey(to uint64) { l.surveyed = max(l.surveyed, to) }

// Surveyed is where to go on looking for messages that wait for a time: at or above the
// cursor, and all below were told, to this ledger or the one that wrote the journal.
func (l *Ledger) Surveyed() uint64 { return max(l.surveyed, l.cursor) }

// Wanted reports whether Deliver, Defer and DeferAhead take seq: it is not below the
// cursor, was not excluded, and was not taken by DeferAhead before.
func (l *Ledger) Wanted(seq uint64) bool {
	return seq >= l.cursor &&
		(len(l.beyond)+l.ahead.count == 0 || !l.beyond.has(seq) && !l.ahead.has(seq))
}

// Ahead is how many messages DeferAhead has taken that the cursor has not passed yet,
// whatever has become of them.
func (l *Ledger) Ahead() int { return l.ahead.count }

// moveTo moves the cursor up, and over what was excluded or taken ahead there.
func (l *Ledger) moveTo(cursor uint64) {
	if len(l.beyond)+l.ahead.count > 0 {
		l.leapTo(cursor)
	} else {
		l.cursor = cursor
	}
}

func (l *Ledger) leapTo(cursor uint64) {
	l.ahead.removeRange(l.cursor, cursor)
	l.cursor = cursor
	for {
		at := l.cursor
		l.leap()
		if next := l.ahead.after(l.cursor); next > l.cursor {
			l.ahead.removeRange(l.cursor, next)
			l.cursor = next
		}
		if l.cursor == at {
			return
		}
	}
}

// passOver makes done what the cursor is about to pass over on its way to the sequence number
// to, and is not taken ahead.
func (l *Ledger) passOver(to uint64) {
	from := l.cursor
	for _, taken := range l.ahead.runs(from, to) {
		l.done.addRange(from, taken.lo)
		from = taken.hi
	}
	l.done.addRange(from, to)
}

// dropAhead makes forgotten what [lo, hi) has of messages that were taken ahead.
func (l *Ledger) dropAhead(lo, hi uint64) {
	if l.ahead.count == 0 {
		return
	}
	outside := func(p parked) bool { return p.seq < lo || p.seq >= hi }
	l.leases.sweep(func(seq uint64, _ lease) bool { return seq >= lo && seq < hi })
	l.ready.keep(outside)
	l.deferred.keep(outside)
	l.dropFar(lo, hi)
	l.ahead.removeRange(lo, hi)
}
