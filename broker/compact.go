package broker

import (
	"slices"
	"time"

	"github.com/millrace/millrace/internal/seglog"
)

const (
	// A segment is rewritten when at most one in compactShare of its messages is still to
	// be done by some channel: what is written then frees at least three times as much,
	// and it happens to one segment only a few times.
	compactShare = 4
	// compactAfter is how long that must have been so. The last messages of a segment are
	// mostly in flight, and go by themselves.
	compactAfter = 10 * time.Second
)

// compact rewrites one of the segments of which for a while there have been few messages
// left, with these alone; so a message that is deferred for long does not keep those
// around it. When there are more, the housekeeper comes again. The turn is held, so that no
// channel comes to need what is left out.
func (t *Topic) compact(sealed []seglog.SegmentInfo, released uint64, channels []*Channel, at int64) error {
	if t.dir == "" {
		return nil
	}
	sparse := make(map[uint64]int64)
	next := int64(0) // when to look again
	var ripe []seglog.SegmentInfo
	for _, s := range sealed {
		if s.Next > released || !fewLive(channels, s) {
			continue
		}
		if until, stays := t.retains(s, at); stays { // whole
			t.comeAgain(at, until)
			continue
		}
		since, known := t.sparse[s.Base]
		if !known {
			since = at
		}
		sparse[s.Base] = since
		if due := after(since, compactAfter); due <= at {
			ripe = append(ripe, s)
		} else if next == 0 || due < next {
			next = due
		}
	}
	t.sparse = sparse
	if next != 0 {
		t.comeAgain(at, next)
	}
	if len(ripe) == 0 {
		return nil
	}
	if len(ripe) > 1 {
		defer t.broker.house.tell(t)
	}
	delete(t.sparse, ripe[0].Base)
	return t.log.Compact(ripe[0].Base, live(channels, ripe[0]))
}

// fewLive says whether some messages of the segment are still to be done, but few, and
// every channel has come past it.
func fewLive(channels []*Channel, s seglog.SegmentInfo) bool {
	n := int64(0) // a message counts once for each channel
	for _, ch := range channels {
		ch.mu.Lock()
		passed := ch.ledger.Cursor() >= s.Next
		if passed {
			n += int64(ch.ledger.LiveCount(s.Base, s.Next))
		}
		ch.mu.Unlock()
		if !passed || n*compactShare > s.Records {
			return false
		}
	}
	return n > 0
}

// live returns the messages of the segment that some channel still has to do, ascending.
func live(channels []*Channel, s seglog.SegmentInfo) []uint64 {
	var seqs []uint64
	for _, ch := range channels {
		ch.mu.Lock()
		seqs = slices.AppendSeq(seqs, ch.ledger.Live(s.Base, s.Next))
		ch.mu.Unlock()
	}
	slices.Sort(seqs)
	return slices.Compact(seqs)
}
