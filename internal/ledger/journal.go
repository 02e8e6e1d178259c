package ledger

import (
	"cmp"
	"maps"
	"slices"
)

// A journal is what AppendJournal has to say the next time.
//
// It says of a message in flight only that it is below the cursor and not done: which
// is what a restart needs to know, because nobody is there any more to ack it.
type journal struct {
	floor, cursor uint64   // as it said last
	moved         []parked // what became ready or deferred or was redelivered since, in this order
	excluded      bool     // something was excluded since
	told          bool     // DeferAhead was called since
	far           set      // what became far since, and still is
	runs          bool     // the runs have changed since
	rewrite       bool     // what it said before is not true any more: the next is a snapshot
	scratch       entry    // to use its memory again
}

// AppendJournal appends to dst an entry with what changed since the last call, nothing
// if nothing did. Entries that are replayed in the order in which they were made, up
// to any of them, make a ledger that delivers again whatever was not done by then. An
// entry that could not be stored cannot be had again: only an AppendSnapshot says
// afterwards what it would have said.
//
// What changed is kept in memory until the next call: so it is to be called now and
// then even if nobody stores what it returns.
func (l *Ledger) AppendJournal(dst []byte) []byte {
	j := &l.journal
	if j.rewrite {
		l.settle()
		return l.AppendSnapshot(dst)
	}
	e := &j.scratch
	e.kind, e.floor, e.cursor = kindJournal, l.done.floor, l.cursor
	e.done = l.done.changes(e.done[:0])
	e.ready, e.deferred = e.ready[:0], e.deferred[:0]
	slices.SortStableFunc(j.moved, bySeq)
	for i, p := range j.moved {
		switch superseded := i+1 < len(j.moved) && j.moved[i+1].seq == p.seq; {
		case superseded || l.done.has(p.seq) || l.beyond.has(p.seq) || l.far.has(p.seq):
		case p.due == givenBack:
			e.ready = append(e.ready, p)
		default:
			e.deferred = append(e.deferred, p)
		}
	}
	slices.SortFunc(e.deferred, byDue)
	if e.beyond = e.beyond[:0]; j.excluded {
		e.beyond = append(e.beyond, l.beyond...)
	}
	if e.surveyed = 0; j.told {
		e.surveyed = l.surveyed
	}
	e.far, e.runs, e.newRuns = j.far, l.runs, j.runs
	if e.floor != j.floor || e.cursor != j.cursor || e.surveyed > 0 || e.newRuns ||
		len(e.done)+len(e.ready)+len(e.deferred)+len(e.beyond)+e.far.count > 0 {
		dst = e.encode(dst)
	}
	l.settle()
	return dst
}

// settle makes the journal one that has said all.
func (l *Ledger) settle() {
	j := &l.journal
	j.floor, j.cursor, j.moved, j.rewrite = l.done.floor, l.cursor, j.moved[:0], false
	j.excluded, j.told, j.runs, j.far = false, false, false, set{}
	j.scratch.far, j.scratch.runs = set{}, nil
	if cap(j.moved) > keptRing {
		j.moved, j.scratch = nil, entry{}
	}
	l.done.settle()
}

// AppendSnapshot appends to dst an entry with the whole state, which makes all entries
// before it superfluous. AppendJournal is not told: what it has yet to say, it says.
func (l *Ledger) AppendSnapshot(dst []byte) []byte {
	e := entry{kind: kindSnapshot, floor: l.done.floor, cursor: l.cursor, beyond: l.beyond}
	if l.surveyed > l.cursor {
		e.surveyed = l.surveyed
	}
	e.far, e.runs, e.newRuns = l.far, l.runs, len(l.runs) > 0
	e.done = l.done.runs(nil, l.done.reach(l.cursor))
	e.deferred = slices.Clone(l.deferred)
	for p := range l.ready.all() {
		if p.due == givenBack {
			e.ready = append(e.ready, p)
		} else {
			e.deferred = append(e.deferred, p) // its time has come since, which a restart sees again
		}
	}
	l.leases.sweep(func(seq uint64, held lease) bool {
		e.ready = append(e.ready, parked{givenBack, seq, held.attempt})
		return false
	})
	// Attempt 1 is what a restart takes for granted of what it hears nothing about.
	e.ready = slices.DeleteFunc(e.ready, func(p parked) bool { return p.attempt == 1 && p.seq < l.cursor })
	slices.SortFunc(e.ready, bySeq)
	slices.SortFunc(e.deferred, byDue)
	return e.encode(dst)
}

func bySeq(p, q parked) int { return cmp.Compare(p.seq, q.seq) }

func byDue(p, q parked) int {
	return cmp.Or(cmp.Compare(p.due, q.due), cmp.Compare(p.seq, q.seq))
}

// Replay applies what AppendJournal or AppendSnapshot once returned. It is called on
// a new Ledger, for each stored entry in its order, and then Recovered. The error
// wraps ErrVersion when a newer version wrote the entry, or ErrCorrupt when nobody
// did; either way nothing was applied. Replay keeps no reference to b.
func (l *Ledger) Replay(b []byte) error {
	e, err := decode(b)
	if err != nil {
		return err
	}
	if e.kind == kindSnapshot {
		*l = *New(e.floor)
	}
	if l.recovery == nil {
		l.recovery = map[uint64]parked{}
	}
	for _, p := range append(e.ready, e.deferred...) {
		l.recovery[p.seq] = p
		l.far.remove(p.seq)
	}
	for b := range e.far.inOrder(0, endOfSeqs) {
		for s := range b.members() {
			delete(l.recovery, s)
			l.far.add(s)
		}
	}
	if e.newRuns {
		l.runs = e.runs
	}
	l.done.addRange(l.done.floor, e.floor)
	for _, s := range e.done {
		l.done.addRange(s.lo, s.hi)
	}
	for _, s := range e.beyond {
		l.beyond = l.beyond.add(s.lo, s.hi)
	}
	l.surveyed = max(l.surveyed, e.surveyed)
	l.moveTo(max(l.cursor, e.cursor, l.done.floor))
	return nil
}

// Recovered ends the replay. end is the recovered end of the log, the sequence number
// after its last message: what the entries said of end and above is forgotten, and
// discarded is how many sequence numbers that were. What is not done, and not known
// to be deferred, is ready again, oldest first: also a hole, if the entry that knew of
// it is missing, which is to be acked when the log turns out not to have it.
func (l *Ledger) Recovered(end uint64) (discarded int) {
	if l.cursor > end {
		discarded = int(l.cursor - end)
	}
	// The log may come to have other messages where it has lost these.
	l.journal.rewrite = l.truncate(end)
	l.restoreFar()
	for seq := range l.Live(0, end) {
		if l.far.has(seq) {
			continue
		}
		p, known := l.recovery[seq]
		if !known {
			p = parked{givenBack, seq, 1} // it was in flight
		}
		l.restore(p)
	}
	l.restoreAhead()
	l.deferred.order()
	l.recovery = nil
	rewrite := l.journal.rewrite
	l.settle()
	l.journal.rewrite = rewrite
	return discarded
}

// truncate forgets what is known of end and all above, and reports whether anything was.
func (l *Ledger) truncate(end uint64) (forgets bool) {
	reach := max(l.done.reach(l.cursor), l.surveyed)
	for seq := range l.recovery {
		reach = max(reach, seq+1)
	}
	reach = max(reach, l.far.reach())
	if n := len(l.beyond); n > 0 {
		reach = max(reach, l.beyond[n-1].hi)
	}
	if reach <= end {
		return false
	}
	l.done.truncate(end)
	l.cursor, l.surveyed = min(l.cursor, end), min(l.surveyed, end)
	l.beyond = l.beyond.below(end)
	maps.DeleteFunc(l.recovery, func(seq uint64, _ parked) bool { return seq >= end })
	l.voidRuns(end)
	return true
}

// restore makes a message wait again. The heap is put in order afterwards.
func (l *Ledger) restore(p parked) {
	if p.due == givenBack {
		l.ready.push(p)
	} else {
		l.deferred = append(l.deferred, p)
	}
}

// restoreAhead restores what was taken ahead: of that the journal says all, because there
// what it says nothing of is not delivered yet.
func (l *Ledger) restoreAhead() {
	for _, seq := range slices.Sorted(maps.Keys(l.recovery)) {
		if seq >= l.cursor && !l.done.has(seq) && !l.beyond.has(seq) {
			l.ahead.add(seq)
			l.restore(l.recovery[seq])
		}
	}
	for _, s := range l.done.runs(nil, l.done.reach(l.cursor)) {
		for seq := max(s.lo, l.cursor); seq < s.hi; seq++ {
			if !l.beyond.has(seq) {
				l.ahead.add(seq)
			}
		}
	}
	l.moveTo(l.cursor)
}
