package ledger

// Pass gives the lease for this attempt at seq to another owner, until deadline. It
// reports false, and does nothing, when this lease is not held any more.
func (l *Ledger) Pass(seq uint64, attempt uint32, deadline int64, owner uint32) bool {
	if !l.leases.extend(seq, attempt, deadline) {
		return false
	}
	l.leases.find(seq, attempt).leases[seq%64].owner = owner
	return true
}

// Withdraw is Nack for a delivery that did not come to pass: the attempt does not count,
// nor does the nack. The next one has its number again.
func (l *Ledger) Withdraw(seq uint64, attempt uint32, now, due int64) bool {
	if !l.leases.take(seq, attempt) {
		return false
	}
	if due <= now {
		due = givenBack
	}
	l.park(parked{due, seq, attempt - 1})
	return true
}
