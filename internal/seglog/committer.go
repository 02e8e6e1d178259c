package seglog

import (
	"sync"
	"time"

	"github.com/millrace/millrace/internal/vfs"
)

// When a commit waits for the disk: a positive interval syncs in the background.
const (
	// SyncAlways syncs before a commit returns.
	SyncAlways time.Duration = 0
	// SyncNever leaves it to the operating system.
	SyncNever time.Duration = -1
)

// Committer makes the appends of many logs safe in rounds. Whoever commits first takes
// the turn and writes for all who have joined the round by then; those who come while
// it writes form the next round. So the cost of a sync is shared by all that publish at
// the same time, to whichever topics: the files of a round are synced concurrently.
type Committer struct {
	interval time.Duration
	// turn holds a token while somebody owns the logs' files: runs a round, or removes
	// or closes a file.
	turn chan struct{}

	mu       sync.Mutex // guards what follows
	joining  *round     // the round that has not begun; nil when nobody waits
	unsynced map[*segment]unsyncedFile

	wake chan struct{} // tells the syncer that there is something
	stop chan struct{}
	done chan struct{}
}

type round struct {
	logs []*Log
	errs map[*Log]error // what failed; nil when nothing did
	done chan struct{}  // closed when the round is over
}

type unsyncedFile struct {
	log    *Log
	file   vfs.File
	sealed bool // nothing more will be written: close it when it is synced
}

// NewCommitter returns a Committer that syncs at the interval, or as SyncAlways and
// SyncNever say. Close it after the logs.
func NewCommitter(interval time.Duration) *Committer {
	c := &Committer{
		interval: interval,
		turn:     make(chan struct{}, 1),
		unsynced: make(map[*segment]unsyncedFile),
		wake:     make(chan struct{}, 1),
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
	}
	if interval > 0 {
		go c.syncer()
	} else {
		close(c.done)
	}
	return c
}

// Close stops the background syncs. What was not synced is, once more.
func (c *Committer) Close() {
	close(c.stop)
	<-c.done
	c.syncUnsynced()
}

// commit returns when what was appended to l before the call is safe.
func (c *Committer) commit(l *Log) error {
	r := c.join(l)
	select {
	case <-r.done:
	case c.turn <- struct{}{}:
		c.lead(r)
		<-c.turn
	}
	return r.errs[l]
}

// join enters l into the round that has not begun.
func (c *Committer) join(l *Log) *round {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.joining == nil {
		c.joining = &round{done: make(chan struct{})}
	}
	for _, have := range c.joining.logs {
		if have == l {
			return c.joining
		}
	}
	c.joining.logs = append(c.joining.logs, l)
	return c.joining
}

// lead runs the round r, unless somebody else did. The caller holds the turn.
func (c *Committer) lead(r *round) {
	c.mu.Lock()
	if c.joining != r {
		c.mu.Unlock() // it is over: rounds run one at a time, and we have the turn
		return
	}
	c.joining = nil
	c.mu.Unlock()
	flushes := make([]*flush, len(r.logs))
	for i, l := range r.logs {
		flushes[i] = l.collect()
		flushes[i].write()
	}
	if c.interval == SyncAlways {
		syncAll(flushes)
	}
	for _, f := range flushes {
		if f.err != nil {
			r.fail(f.log, f.err)
		}
		f.finish(c)
	}
	close(r.done)
}

func (r *round) fail(l *Log, err error) {
	if r.errs == nil {
		r.errs = make(map[*Log]error)
	}
	r.errs[l] = err
}

// syncAll syncs the files of a round, concurrently when there are several.
func syncAll(flushes []*flush) {
	if len(flushes) == 1 {
		flushes[0].sync()
		return
	}
	var wg sync.WaitGroup
	for _, f := range flushes {
		wg.Go(f.sync)
	}
	wg.Wait()
}

// exclusively runs f while no round runs.
func (c *Committer) exclusively(f func() error) error {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	return f()
}

// close makes the log's last records safe, whatever the policy, and closes its files.
func (c *Committer) close(l *Log) error {
	err := c.commit(l)
	if c.interval > 0 {
		c.syncUnsynced()
	}
	return err
}

// later leaves a file to be synced in the background.
func (c *Committer) later(s *segment, u unsyncedFile) {
	c.mu.Lock()
	first := len(c.unsynced) == 0
	c.unsynced[s] = u
	c.mu.Unlock()
	if first {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// syncer syncs, an interval after the first write that was not synced, all of them.
func (c *Committer) syncer() {
	defer close(c.done)
	timer := time.NewTimer(c.interval)
	defer timer.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-c.wake:
		}
		timer.Reset(c.interval)
		select {
		case <-c.stop:
			return
		case <-timer.C:
		}
		c.syncUnsynced()
	}
}

// syncUnsynced runs beside the rounds: syncing a file while it is written to is fine,
// and closing is left to this place once a segment is sealed.
func (c *Committer) syncUnsynced() {
	c.mu.Lock()
	batch := c.unsynced
	c.unsynced = make(map[*segment]unsyncedFile)
	c.mu.Unlock()
	var wg sync.WaitGroup
	for s, u := range batch {
		wg.Go(func() {
			if err := u.file.Sync(); err != nil {
				u.log.distrust(s, err)
			}
			if u.sealed {
				_ = u.file.Close()
			}
		})
	}
	wg.Wait()
}
