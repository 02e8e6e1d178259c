package seglog

import (
	"errors"
	"fmt"
	"runtime"
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
// the same time, to whichever topics: the logs of a round are written and synced
// concurrently.
type Committer struct {
	interval time.Duration
	redo     *Redo         // nil: every log's file is synced in the round
	turn     chan struct{} // holds a token while somebody runs a round, and owns the logs' files
	syncing  chan struct{} // the same for the background syncs, which run beside the rounds

	mu       sync.Mutex // guards what follows, and in each Log, joined
	joining  *round     // the round that has not begun; nil when nobody waits
	unsynced map[*segment]unsyncedFile
	stats    CommitStats

	wake chan struct{} // tells the syncer that there is something
	full chan struct{} // tells it that a file of the redo log is full
	stop chan struct{}
	done chan struct{}
}

type round struct {
	logs []*Log
	errs map[*Log]error // what failed; nil when nothing did
	done chan struct{}  // closed when the round is over, and announced
}

type unsyncedFile struct {
	log    *Log
	file   vfs.File
	sealed bool // nothing more will be written: close it when it is synced
}

// redoEvery is how long files that were written to are left to the redo log alone.
const redoEvery = time.Second

// NewCommitter returns a Committer that syncs at the interval, or as SyncAlways and
// SyncNever say. With SyncAlways it uses redo, which may be nil, and which belongs to it
// then. Close it after the logs.
func NewCommitter(interval time.Duration, redo *Redo) *Committer {
	c := newCommitter(interval, redo)
	if interval > 0 || c.redo != nil {
		go c.syncer()
	} else {
		close(c.done)
	}
	return c
}

// newCommitter returns one whose syncer does not run.
func newCommitter(interval time.Duration, redo *Redo) *Committer {
	if interval != SyncAlways {
		redo = nil // nobody waits for a sync
	}
	return &Committer{
		interval: interval,
		redo:     redo,
		turn:     make(chan struct{}, 1),
		syncing:  make(chan struct{}, 1),
		unsynced: make(map[*segment]unsyncedFile),
		wake:     make(chan struct{}, 1),
		full:     make(chan struct{}, 1),
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
	}
}

// Close stops the background syncs. What was not synced is, once more.
func (c *Committer) Close() {
	close(c.stop)
	<-c.done
	err := c.syncUnsynced(nil) // each log has been told what failed
	if c.redo != nil {
		c.redo.close(err == nil)
	}
}

// commit returns when what was appended to l before the call is safe.
func (c *Committer) commit(l *Log) error {
	r := c.join(l)
	select {
	case <-r.done:
	case c.turn <- struct{}{}:
		if c.interval == SyncAlways {
			// Whoever the last round has just woken may have more to commit: a sync is
			// worth the moment that it takes them to join.
			runtime.Gosched()
		}
		flushes, led := c.lead(r)
		<-c.turn
		if !led {
			<-r.done
			break
		}
		for _, f := range flushes {
			f.announce()
		}
		close(r.done)
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
	if l.joined != c.joining {
		l.joined = c.joining
		c.joining.logs = append(c.joining.logs, l)
	}
	return c.joining
}

// lead runs the round r, unless somebody else did, and returns what it flushed. The
// caller has the turn.
func (c *Committer) lead(r *round) (flushes []*flush, led bool) {
	c.mu.Lock()
	if c.joining != r {
		c.mu.Unlock()
		return nil, false
	}
	logs := r.logs
	c.joining, r.logs = nil, nil // its logs still know the round, and should not keep each other alive
	c.mu.Unlock()
	flushes = make([]*flush, len(logs))
	for i, l := range logs {
		flushes[i] = l.collect()
	}
	c.runAll(flushes)
	did := CommitStats{Rounds: 1}
	for _, f := range flushes {
		if f.err != nil {
			r.fail(f.log, f.err)
		}
		did.add(f.did)
		f.finish(c)
	}
	c.count(did)
	return flushes, true
}

func (r *round) fail(l *Log, err error) {
	if r.errs == nil {
		r.errs = make(map[*Log]error)
	}
	r.errs[l] = err
}

// runAll writes and syncs what there is in a round, concurrently when there is more than
// one log: a hundred of them cost about one sync.
func (c *Committer) runAll(flushes []*flush) {
	always := c.interval == SyncAlways
	shared, rest := c.redo.divide(flushes)
	if len(rest) == 1 && shared == nil {
		rest[0].run(always)
		return
	}
	var wg sync.WaitGroup
	for _, f := range rest {
		wg.Go(func() { f.run(always) })
	}
	if shared != nil {
		for _, f := range c.redo.run(shared) {
			wg.Go(f.sync)
		}
		if c.redo.broken || c.redo.retired() != nil {
			c.hurry()
		}
	}
	wg.Wait()
}

// close commits the log's last records, syncs its files unless the policy is SyncNever,
// and closes them.
func (c *Committer) close(l *Log) error {
	return errors.Join(c.commit(l), c.syncUnsynced(l))
}

// release passes on a segment's file that was written to: to the background syncer if
// that has to sync it or may be doing so, else to be closed, if nothing more will be
// written. The caller has the turn.
func (c *Committer) release(l *Log, s *segment, redone, sealed bool) {
	switch {
	case c.interval > 0, redone, c.redo != nil && sealed:
		c.leave(s, unsyncedFile{log: l, file: s.file, sealed: sealed})
	case sealed:
		_ = s.file.Close()
	}
	if sealed {
		s.file = nil
	}
}

// leave leaves a file to be synced in the background.
func (c *Committer) leave(s *segment, u unsyncedFile) {
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
	interval := c.interval
	if c.redo != nil {
		interval = redoEvery
	}
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-c.wake:
		}
		timer.Reset(interval)
		idle := false
		select {
		case <-c.stop:
			return
		case <-c.full:
		case <-timer.C:
			idle = true
		}
		c.syncAll(idle)
	}
}

// syncAll syncs what was left to the background, and lets the redo log forget it. idle says
// that the redo log needs its space for nothing.
func (c *Committer) syncAll(idle bool) {
	if c.redo == nil {
		_ = c.syncUnsynced(nil) // each log has been told what failed
		return
	}
	c.turn <- struct{}{}
	if c.redo.retired() == nil {
		c.redo.turn()
	}
	done := c.redo.retired()
	<-c.turn
	// The files of all rounds that are in it were left to be synced before.
	err := c.syncUnsynced(nil)
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if err != nil {
		c.redo.broken = true
	}
	if done != nil {
		c.redo.free(done, idle)
	}
}

// hurry tells the syncer that the redo log has no room, or is not to be relied on.
func (c *Committer) hurry() {
	select {
	case c.full <- struct{}{}:
	default:
	}
}

// syncUnsynced syncs what was left to the background, of one log or with nil of all, and
// returns what failed. It runs beside the rounds: syncing a file while it is written to
// is fine, and only here is a file closed that may be among them.
func (c *Committer) syncUnsynced(only *Log) error {
	c.syncing <- struct{}{}
	defer func() { <-c.syncing }()
	batch := c.takeUnsynced(only)
	errs := make(chan error, len(batch))
	for s, u := range batch {
		go func() {
			did, err := u.sync(s, c.redo != nil)
			c.count(did)
			errs <- err
		}()
	}
	var err error
	for range batch {
		err = errors.Join(err, <-errs)
	}
	return err
}

func (c *Committer) takeUnsynced(only *Log) map[*segment]unsyncedFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	batch := make(map[*segment]unsyncedFile)
	for s, u := range c.unsynced {
		if only == nil || u.log == only {
			batch[s] = u
			delete(c.unsynced, s)
		}
	}
	return batch
}

// sync syncs the file. Of one that was removed meanwhile, because all of it is consumed, only the
// removal is made safe: where topics are drained as fast as they are filled, nothing is written
// to the disk but what is newest. With a redo log it is, because that forgets what it had of it.
func (u unsyncedFile) sync(s *segment, redone bool) (CommitStats, error) {
	var did CommitStats
	var err error
	if !redone && u.log.hasRemoved(s) {
		_ = u.log.opts.FS.SyncDir(u.log.opts.Dir) // else it may be there again, as Remove says
	} else {
		err = did.sync(u.file)
	}
	if err != nil {
		err = fmt.Errorf("sync segment %s in the background: %w", segmentName(s.base), err)
		u.log.distrust(s, err, redone)
	}
	if u.sealed {
		_ = u.file.Close()
	}
	return did, err
}
