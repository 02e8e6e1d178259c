package ledger

import "fmt"

// Rewind makes all messages from the sequence number to on what they were before the
// cursor came to them: not delivered, whatever their state was, those too that were
// emptied, excluded or taken ahead. The cursor is to afterwards, and Surveyed. Leases there are not held any more;
// the owner of each is told to lost, if that is not nil, which must not call the ledger.
// What is below to stays as it is. It panics when to is above the cursor.
//
// Attempts are counted from 1 again. So a lease that was held before can have the number
// and attempt of one that is held afterwards: whoever settles leases must see to it that
// they are the owner's.
func (l *Ledger) Rewind(to uint64, lost func(owner uint32)) {
	if to > l.cursor {
		panic(fmt.Sprintf("ledger: rewind to %d, and the cursor is %d", to, l.cursor))
	}
	l.done.truncate(to)
	l.cursor, l.beyond, l.ahead = to, nil, set{}
	l.surveyed = min(l.surveyed, to)
	l.leases.sweep(func(seq uint64, held lease) bool {
		if seq < to {
			return false
		}
		if lost != nil {
			lost(held.owner)
		}
		return true
	})
	l.ready.keep(func(p parked) bool { return p.seq < to })
	l.deferred.keep(func(p parked) bool { return p.seq < to })
	l.voidRuns(to)
	l.journal.rewrite = true // entries can only add to what is done
}

// AppendRewound appends to dst what AppendSnapshot would after a Rewind to that sequence
// number, and changes nothing: so it can be stored before it is done.
func (l *Ledger) AppendRewound(dst []byte, to uint64) []byte {
	after := New(l.done.floor)
	if err := after.Replay(l.AppendSnapshot(nil)); err != nil {
		panic(err) // our own snapshot
	}
	after.Recovered(after.cursor)
	after.Rewind(to, nil)
	return after.AppendSnapshot(dst)
}
