package ledger

import "slices"

// A State is where a message is on its way: see the package comment.
type State uint8

// The states. What was excluded, emptied or skipped is Done like what was acked; what is
// Deferred stays so until somebody asks for it when its time has come.
const (
	NotDelivered State = iota
	InFlight
	Deferred
	Ready
	Done
)

// A Status is what a ledger knows of a message.
type Status struct {
	State State
	// Attempts is how often it was delivered, this time included if it is InFlight.
	Attempts uint32
	// Until is when its lease ends or its time comes; else 0, also when that is not known.
	Until int64
}

// Look returns the status of each of the messages, which are in ascending order, and changes
// nothing. It costs a look at all that are deferred or ready again.
func (l *Ledger) Look(seqs []uint64) []Status {
	all := make([]Status, len(seqs))
	waiting := false
	for i, seq := range seqs {
		s := &all[i]
		if l.Wanted(seq) {
			continue // NotDelivered
		}
		if l.done.has(seq) || l.beyond.has(seq) {
			s.State = Done
		} else if _, attempt, deadline, ok := l.Holder(seq); ok {
			*s = Status{InFlight, attempt, deadline}
		} else {
			s.State = Deferred // or Ready, it will turn out
			waiting = true
		}
	}
	if waiting {
		l.lookAmongParked(seqs, all)
	}
	return all
}

func (l *Ledger) lookAmongParked(seqs []uint64, all []Status) {
	first, last := seqs[0], seqs[len(seqs)-1]
	note := func(p parked, state State, until int64) {
		if p.seq < first || p.seq > last {
			return
		}
		if i, ok := slices.BinarySearch(seqs, p.seq); ok {
			all[i] = Status{state, p.attempt, until}
		}
	}
	for p := range l.ready.all() {
		note(p, Ready, 0)
	}
	for _, p := range l.deferred {
		note(p, Deferred, p.due)
	}
}
