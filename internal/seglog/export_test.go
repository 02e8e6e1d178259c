package seglog

// ForRoundsOf makes the redo log take rounds of so many logs, in files of so many bytes.
func (r *Redo) ForRoundsOf(logs int, bytes int64) *Redo {
	r.least, r.limit = logs, bytes
	return r
}

// CommitTogether commits the tickets of several logs in one round, which its caller leads.
func CommitTogether(c *Committer, logs []*Log, tickets []Ticket) []error {
	c.turn <- struct{}{}
	errs := make([]error, len(logs))
	done := make(chan struct{})
	for i, l := range logs {
		go func() {
			errs[i] = l.Commit(tickets[i])
			done <- struct{}{}
		}()
	}
	for joined := 0; joined < len(logs); {
		c.mu.Lock()
		if c.joining != nil {
			joined = len(c.joining.logs)
		}
		c.mu.Unlock()
	}
	<-c.turn
	for range logs {
		<-done
	}
	return errs
}

// NewStillCommitter is NewCommitter with SyncAlways, which syncs in the background only when
// SyncAll is called.
func NewStillCommitter(redo *Redo) *Committer {
	c := newCommitter(SyncAlways, redo)
	close(c.done)
	return c
}

// SyncAll is what the Committer does when the redo log has no room, or is idle.
func (c *Committer) SyncAll(idle bool) { c.syncAll(idle) }
