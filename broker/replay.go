package broker

import (
	"errors"
	"fmt"
	"maps"
	"time"
)

// ErrAhead is returned by Replay when the channel has not come as far yet as it is to go
// back to.
var ErrAhead = errors.New("broker: the channel has not come that far")

// Replayed says what a Replay brings back.
type Replayed struct {
	// From is the sequence number from which on all messages come again, and Messages how
	// many of them the channel had come past already. Where a segment has lost messages in
	// its middle that are done, it may be up to 64 KiB worth of messages too many or too
	// few.
	From     uint64
	Messages int64
	// Cut says that it was to go back further, but the log does not hold what stood before
	// From any more: see Options.Retain.
	Cut bool
}

// Replay delivers again all messages of the topic's log from the sequence number on, those
// too that were emptied, or published before the channel was made; what the log does not
// hold any more is left out. Attempts are counted from 1, and leases there end; messages
// whose delay is not over wait for their time again. What is below stays as it is. When it
// returns that is as safe as a message that was published. Returns ErrAhead, ErrNoSpace,
// ErrClosed, wrapped; then nothing comes again, unless the broker dies before it could write
// that down.
func (ch *Channel) Replay(from uint64) (Replayed, error) {
	defer ch.topic.takeTurn()()
	cursor, err := ch.cursor()
	if err == nil && from > cursor {
		err = fmt.Errorf("%w: message %d is the next that it delivers, and it was to go back to %d", ErrAhead, cursor, from)
	}
	if err != nil {
		return Replayed{}, ch.errorf(fmt.Errorf("replay: %w", err))
	}
	return ch.replay(max(from, 1))
}

// ReplaySince is Replay from the first message on that was published at the time or later.
// When the channel has come past none of them, none come again.
func (ch *Channel) ReplaySince(at time.Time) (Replayed, error) {
	defer ch.topic.takeTurn()()
	cursor, err := ch.cursor()
	from := cursor
	if err == nil {
		from, err = ch.topic.SeqAt(at)
	}
	if err != nil {
		return Replayed{}, ch.errorf(fmt.Errorf("replay: %w", err))
	}
	if first := ch.topic.log.First(); from == first && first > 1 {
		from-- // there were older ones, of which nobody knows the time
	}
	return ch.replay(min(from, cursor))
}

// SeqAt returns the sequence number of the first message in the topic's log that was
// published at the time or later; one above the last if there is none.
func (t *Topic) SeqAt(at time.Time) (uint64, error) {
	seq, err := t.log.SeqAt(at.UnixNano())
	if err != nil {
		return 0, fmt.Errorf("look for a time in topic %s: %w", t.name, explain(err))
	}
	return seq, nil
}

// cursor returns the sequence number that the channel has come to, or why it has ended.
func (ch *Channel) cursor() (uint64, error) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.ledger.Cursor(), ch.ended
}

// replay is Replay for who holds the turn, so that no segment goes meanwhile. from is not
// beyond the cursor.
func (ch *Channel) replay(from uint64) (Replayed, error) {
	r := Replayed{From: from}
	if first := ch.topic.log.First(); from < first {
		cursor, _ := ch.cursor()
		r.From, r.Cut = min(first, cursor), true
	}
	if ch.journal.kept() {
		// First on the disk, so that an error means that nothing has happened.
		if err := ch.journal.rewriteRewound(ch, r.From); err != nil {
			ch.topic.broker.house.tell(ch.topic) // the file may say something else now
			return Replayed{}, ch.errorf(fmt.Errorf("replay: %w", explain(err)))
		}
	}
	if err := ch.rewind(&r); err != nil {
		return Replayed{}, ch.errorf(fmt.Errorf("replay: %w", err))
	}
	ch.topic.survey() // what comes again may be deferred still
	return r, nil
}

// rewind does it in memory. Whoever reads the log for the channel just now finds that out
// when he comes back: see Consumer.deliver.
func (ch *Channel) rewind(r *Replayed) error {
	var roomy []*Consumer
	ch.mu.Lock()
	if ch.ended != nil {
		ch.mu.Unlock()
		return ch.ended
	}
	r.Messages = ch.topic.log.Count(r.From, ch.ledger.Cursor())
	ch.ledger.Rewind(r.From, func(owner uint32) {
		if c := ch.consumers[owner]; c != nil {
			c.held--
			if c.full {
				c.full = false
				roomy = append(roomy, c)
			}
		}
	})
	for _, c := range ch.consumers {
		maps.DeleteFunc(c.extended, func(seq uint64, _ firstSeen) bool { return seq >= r.From })
	}
	next := ch.passOn()
	ch.arm(ch.now())
	ch.mu.Unlock()
	next.wakeUp()
	for _, c := range roomy {
		c.wakeUp()
	}
	return nil
}
