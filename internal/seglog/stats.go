package seglog

import (
	"time"

	"github.com/millrace/millrace/internal/vfs"
)

// CommitStats is what a Committer has done since it was made.
type CommitStats struct {
	// Rounds is how many rounds there were, Bytes how many bytes of records they wrote.
	Rounds, Bytes uint64
	// Syncs is how often a file with records was synced, SyncTime how long that took:
	// those that ran side by side are added up.
	Syncs    uint64
	SyncTime time.Duration
}

// Stats returns what the Committer has done so far.
func (c *Committer) Stats() CommitStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

func (c *Committer) count(did CommitStats) {
	c.mu.Lock()
	c.stats.add(did)
	c.mu.Unlock()
}

func (s *CommitStats) add(did CommitStats) {
	s.Rounds += did.Rounds
	s.Bytes += did.Bytes
	s.Syncs += did.Syncs
	s.SyncTime += did.SyncTime
}

// sync syncs the file, and counts that.
func (s *CommitStats) sync(file vfs.File) error {
	start := time.Now()
	err := file.Sync()
	s.Syncs++
	s.SyncTime += time.Since(start)
	return err
}
