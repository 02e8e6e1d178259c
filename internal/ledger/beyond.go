package ledger

// What lies beyond the cursor and is done all the same: messages that were taken out of
// the channel before their turn came. There are few such stretches, and the cursor leaps
// over each when it gets there.

// Exclude makes [lo, hi) done as far as it lies at or beyond the cursor, whatever its
// state: leases there are not held any more. What is below the cursor stays as it is.
func (l *Ledger) Exclude(lo, hi uint64) {
	lo = max(lo, l.cursor)
	if lo >= hi {
		return
	}
	l.dropAhead(lo, hi)
	l.beyond = l.beyond.add(lo, hi)
	l.journal.excluded = true
	l.moveTo(l.cursor)
}

// Excluded calls each with every stretch [lo, hi) beyond the cursor that was excluded.
func (l *Ledger) Excluded(each func(lo, hi uint64)) {
	for _, s := range l.beyond {
		each(s.lo, s.hi)
	}
}

// leap moves the cursor over the excluded stretches that it has reached.
func (l *Ledger) leap() {
	n := 0
	for ; n < len(l.beyond) && l.beyond[n].lo <= l.cursor; n++ {
		s := l.beyond[n]
		l.done.addRange(s.lo, s.hi) // also when a Replay has come past it: it may lack what said so
		l.cursor = max(l.cursor, s.hi)
	}
	if l.beyond = l.beyond[n:]; len(l.beyond) == 0 {
		l.beyond = nil
	}
}

// excludes reports whether all of [lo, hi) beyond the cursor was excluded.
func (l *Ledger) excludes(lo, hi uint64) bool {
	i, ok := l.beyond.find(lo)
	return ok && l.beyond[i].hi >= hi
}
