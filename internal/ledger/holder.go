package ledger

// Holder is who holds the lease for seq, as which attempt and until when. ok is false
// when nobody does.
func (l *Ledger) Holder(seq uint64) (owner, attempt uint32, deadline int64, ok bool) {
	t := &l.leases
	p := t.last
	if p == nil || p.key != seq/64 {
		if p = t.pages[seq/64]; p == nil {
			return 0, 0, 0, false
		}
		t.last = p
	}
	if p.held&(1<<(seq%64)) == 0 {
		return 0, 0, 0, false
	}
	held := p.leases[seq%64]
	return held.owner, held.attempt, held.deadline, true
}
