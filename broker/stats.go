package broker

import (
	"sync"
	"time"

	"github.com/millrace/millrace/internal/seglog"
)

// Stats is what a broker has done since it was opened, and what its disk has free. In
// memory, only Damaged is counted, and is 0.
type Stats struct {
	// Commits is in how many rounds messages were written, and CommitBytes how many bytes
	// of them.
	Commits, CommitBytes uint64
	// Syncs is how often a file with messages was synced, and SyncTime how long that took,
	// added up over those that ran side by side.
	Syncs    uint64
	SyncTime time.Duration
	// DiskFree is how many bytes the disk of the data directory has free, -1 when it does
	// not say, DiskLowWater how many must stay so, see Options. Both are 0 in memory.
	DiskFree, DiskLowWater int64
	// Damaged is how many damaged pieces of files were found, reported and skipped. One
	// that is met twice counts twice.
	Damaged uint64
}

// Stats returns what the broker has done so far.
func (b *Broker) Stats() Stats {
	s := Stats{Damaged: b.damages.Load()}
	if b.committer != nil {
		s.DiskFree, s.DiskLowWater = b.water.look(), b.opts.DiskLowWater
		did := b.committer.Stats()
		s.Commits, s.CommitBytes, s.Syncs, s.SyncTime = did.Rounds, did.Bytes, did.Syncs, did.SyncTime
	}
	return s
}

// TopicStats is what a topic holds and, since the broker was opened, has got.
type TopicStats struct {
	Depth       int64 // messages that wait in the topic itself; see Topic.Depth
	StoredBytes int64 // of its log
	// RetainedBytes is what of them no channel needs any more, and Options.Retain keeps.
	RetainedBytes int64
	Messages      uint64 // published
	Bytes         uint64 // of their bodies
	Paused        bool
}

// Stats returns the topic's figures.
func (t *Topic) Stats() TopicStats {
	return TopicStats{
		Depth: t.Depth(), StoredBytes: t.log.Size(), RetainedBytes: t.retained.Load(),
		Messages: t.published.Load(), Bytes: t.publishedBytes.Load(),
		Paused: t.Paused(),
	}
}

// arrived is how many messages have got to the channels, more or less, since the topic was
// opened. It is negative by as many as waited in it then.
func (t *Topic) arrived() int64 {
	t.mu.Lock()
	emptied := t.emptied
	t.mu.Unlock()
	return int64(t.published.Load()) - t.Depth() - emptied //nolint:gosec // far below 2^63
}

// start takes stock of a topic that was loaded. Nobody else has it yet.
func (t *Topic) start() {
	for _, ch := range t.channels {
		ch.base = t.arrived()
	}
}

// ChannelStats is what a channel holds and, since the broker was opened, has done.
type ChannelStats struct {
	Ready, InFlight, Deferred int64 // messages

	Messages uint64 // that the channel has got
	Finished uint64 // that were acked
	Requeued uint64 // deliveries that were given back with a Nack
	TimedOut uint64 // deliveries whose lease has run out
	Dead     uint64 // that used up their attempts and are dead letters now

	// Oldest is when the oldest message was published that is not acked; zero if there is
	// none, or it cannot be read.
	Oldest    time.Time
	Consumers int
	Paused    bool
}

// Stats returns the channel's figures. It may read one message from the disk.
func (ch *Channel) Stats() ChannelStats {
	arrived := ch.topic.arrived()
	ch.mu.Lock()
	c := ch.ledger.Counts()
	s := ChannelStats{
		Ready: ch.unread() + int64(c.Ready), InFlight: int64(c.InFlight), Deferred: int64(c.Deferred),
		Finished: c.Acked - ch.dead, Dead: ch.dead, Requeued: c.Nacked, TimedOut: c.Expired,
		Consumers: len(ch.consumers), Paused: ch.paused,
	}
	ch.arrived = uint64(max(arrived-ch.base, int64(ch.arrived))) //nolint:gosec // far below 2^63
	s.Messages = ch.arrived
	floor, limit, known := ch.ledger.Floor(), ch.limit, ch.oldest
	ch.mu.Unlock()
	if s.Ready+s.InFlight+s.Deferred == 0 {
		return s
	}
	if known.floor != floor {
		known = ch.readOldest(floor, limit)
	}
	if known.at != 0 {
		s.Oldest = time.Unix(0, known.at)
	}
	return s
}

// oldest is when the message at a ledger's floor was published.
type oldest struct {
	floor uint64
	at    int64
}

// readOldest finds it out, and keeps it for the next who asks.
func (ch *Channel) readOldest(floor, limit uint64) oldest {
	reader := ch.topic.log.NewReader(floor)
	defer reader.Close()
	var one [1]seglog.Record
	if n, err := reader.Read(one[:]); n == 0 || err != nil || one[0].Seq >= limit {
		return oldest{}
	}
	found := oldest{floor, one[0].Time}
	ch.mu.Lock()
	ch.oldest = found
	ch.mu.Unlock()
	return found
}

// changes tells whoever wants to know that topics or channels came or went.
type changes struct {
	mu   sync.Mutex // guards next
	next chan struct{}
}

// Changed returns a channel that is closed when the next topic or channel is made or
// deleted.
func (b *Broker) Changed() <-chan struct{} {
	c := &b.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = make(chan struct{})
	}
	return c.next
}

func (c *changes) announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil {
		close(c.next)
		c.next = nil
	}
}
