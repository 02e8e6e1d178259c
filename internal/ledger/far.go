package ledger

import (
	"cmp"
	"math"
	"slices"
)

// When more messages are deferred than there should be in memory, those that are due last
// are put into runs: lists, ordered by due time, that somebody else keeps and reads again
// block by block as the time comes near. All that stays of such a message is one bit, so
// that it is known to wait; it is far then, and the others near.
//
// A message may stand in several runs, because what is deferred becomes due, is rewound or
// emptied, and may be deferred again. Only one of them means it: see Run.holds.

// A Deferral is a message that waits for a time.
type Deferral struct {
	Seq     uint64
	Due     int64
	Attempt uint32 // how often it was delivered already
}

// Compare orders deferrals as they are due, and the older one first.
func (d Deferral) Compare(e Deferral) int {
	return cmp.Or(cmp.Compare(d.Due, e.Due), cmp.Compare(d.Seq, e.Seq))
}

// A Run is a list of far messages outside of the ledger, in blocks.
type Run struct {
	ID   uint64
	At   uint64 // the block that is to be read next
	Left uint64 // how many blocks there are from that on
	Due  int64  // when the first message of that block is due

	after int64  // what is due by then had become due when the run was made
	below uint64 // what is at or above it was rewound since; 0: nothing was
}

// holds reports whether d, if it is far, is meant by what the run says of it.
func (r *Run) holds(d Deferral) bool {
	return d.Due > r.after && (r.below == 0 || d.Seq < r.below)
}

// Near is how many messages are deferred and in memory.
func (l *Ledger) Near() int { return len(l.deferred) }

// AppendNear appends to dst those messages, in no particular order.
func (l *Ledger) AppendNear(dst []Deferral) []Deferral {
	for _, p := range l.deferred {
		dst = append(dst, Deferral{p.seq, p.due, p.attempt})
	}
	return dst
}

// Spilled says that the run r was made of ds: ordered, and all that AppendNear has
// returned from its first on in this order, or was deferred again since. They are far now,
// but those whose time has come meanwhile.
func (l *Ledger) Spilled(r Run, ds []Deferral) {
	r.after = l.became
	for _, d := range ds {
		if r.holds(d) {
			l.far.add(d.Seq)
			l.journal.far.add(d.Seq)
		}
	}
	l.deferred.keep(func(p parked) bool { return !l.far.has(p.seq) })
	l.setRuns(append(slices.Clone(l.runs), r))
}

// Runs is all runs, by ascending ID. It must not be changed.
func (l *Ledger) Runs() []Run { return l.runs }

// NextRun is the run whose next block is due first. ok is false when there are none.
func (l *Ledger) NextRun() (r Run, ok bool) {
	if len(l.runs) == 0 {
		return Run{}, false
	}
	return l.runs[l.nextRun], true
}

// Loaded says that ds are the next block of the run, and that the one after it begins with
// a message that is due at next. Those of ds that are far are near now. Without any it
// says that the block cannot be read: see Abandon.
func (l *Ledger) Loaded(id uint64, ds []Deferral, next int64) {
	runs := slices.Clone(l.runs)
	i := slices.IndexFunc(runs, func(r Run) bool { return r.ID == id })
	for _, d := range ds {
		if runs[i].holds(d) && l.far.remove(d.Seq) {
			l.journal.far.remove(d.Seq)
			l.park(parked{d.Due, d.Seq, d.Attempt})
		}
	}
	if r := &runs[i]; r.Left > 1 && l.far.count > 0 {
		r.At, r.Left, r.Due = r.At+1, r.Left-1, next
	} else {
		runs = slices.Delete(runs, i, i+1)
	}
	l.setRuns(runs)
}

// KeepFar removes from ds, which stand in the run, those that it does not mean any more,
// and returns the others.
func (l *Ledger) KeepFar(id uint64, ds []Deferral) []Deferral {
	i := slices.IndexFunc(l.runs, func(r Run) bool { return r.ID == id })
	return slices.DeleteFunc(ds, func(d Deferral) bool { return !l.runs[i].holds(d) || !l.far.has(d.Seq) })
}

// Merged says that the run r was made of all that KeepFar has kept of these runs, and takes
// their place.
func (l *Ledger) Merged(r Run, ids ...uint64) {
	r.after = math.MinInt64
	runs := slices.DeleteFunc(slices.Clone(l.runs), func(old Run) bool { return slices.Contains(ids, old.ID) })
	if r.Left > 0 {
		runs = append(runs, r)
	}
	l.setRuns(runs)
}

// A Census finds out which far messages are in no run any more, because a block was lost.
type Census struct{ missing set }

// Census begins one.
func (l *Ledger) Census() *Census {
	c := &Census{}
	for b := range l.far.inOrder(0, endOfSeqs) {
		c.missing.addBlock(b)
	}
	return c
}

// Found says that these stand in a run, and KeepFar has kept them.
func (c *Census) Found(ds []Deferral) {
	for _, d := range ds {
		c.missing.remove(d.Seq)
	}
}

// Abandon makes ready what the census has not found in what is left of any run, and
// returns how many messages that were: better early than never. How often they were
// delivered is not known any more.
func (l *Ledger) Abandon(c *Census) (n int) {
	for b := range c.missing.inOrder(0, endOfSeqs) {
		for seq := range b.members() {
			if l.far.remove(seq) {
				l.journal.far.remove(seq)
				l.park(parked{givenBack, seq, 0})
				n++
			}
		}
	}
	l.setRuns(l.runs)
	return n
}

// Far reports whether seq is deferred and not in memory.
func (l *Ledger) Far(seq uint64) bool { return l.far.has(seq) }

// setRuns replaces the runs. When nothing is far any more, none of them matters.
func (l *Ledger) setRuns(runs []Run) {
	if l.far.count == 0 {
		runs = nil
	}
	l.runs, l.nextRun = runs, 0
	slices.SortFunc(l.runs, func(a, b Run) int { return cmp.Compare(a.ID, b.ID) })
	for i := range l.runs {
		if l.runs[i].Due < l.runs[l.nextRun].Due {
			l.nextRun = i
		}
	}
	l.journal.runs = true
}

// dropFar forgets the far messages of [lo, hi).
func (l *Ledger) dropFar(lo, hi uint64) {
	if l.far.count == 0 {
		return
	}
	l.far.removeRange(lo, hi)
	l.journal.far.removeRange(lo, hi)
	if l.far.count == 0 {
		l.setRuns(nil)
	}
}

// voidRuns makes the runs mean no message at or above seq any more, of which there may be
// another of that number.
func (l *Ledger) voidRuns(seq uint64) {
	l.dropFar(seq, endOfSeqs)
	runs := slices.Clone(l.runs)
	for i := range runs {
		if r := &runs[i]; r.below == 0 || r.below > seq {
			r.below = max(seq, 1)
		}
	}
	if len(runs) > 0 {
		l.setRuns(runs)
	}
}

// restoreFar makes what a Replay said to be far agree with the rest of it.
func (l *Ledger) restoreFar() {
	if l.far.count > 0 {
		l.far.removeRange(0, l.done.floor)
		for _, s := range l.done.runs(nil, l.done.reach(l.cursor)) {
			l.far.removeRange(s.lo, s.hi)
		}
		for _, s := range l.beyond {
			l.far.removeRange(s.lo, s.hi)
		}
		for b := range l.far.inOrder(l.cursor, endOfSeqs) {
			l.ahead.addBlock(b) // it is empty
		}
		l.ahead.removeRange(0, l.cursor)
	}
	l.setRuns(l.runs)
}
