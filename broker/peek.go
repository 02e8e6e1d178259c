package broker

import (
	"bytes"
	"fmt"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/ledger"
	"github.com/millrace/millrace/internal/seglog"
)

// State is where a message is in a channel.
type State string

// The states of messages that a channel is not done with. In a topic's log a message has
// none.
const (
	Ready    State = "ready"     // waits to be delivered
	InFlight State = "in_flight" // a consumer holds it
	Deferred State = "deferred"  // waits for its time
)

// Peeked is a message as Peek shows it. Nobody else has its memory.
type Peeked struct {
	Headers   millrace.Headers
	Body      []byte
	Seq       uint64
	Published int64  // in Unix nanoseconds
	State     State  // in the channel; "" in a topic's log
	Attempts  uint32 // how often it was delivered so far
	// Until is when its lease ends or its time comes, in Unix nanoseconds; 0 when it has
	// neither, or that is not known.
	Until int64
}

const (
	// MaxPeek is the most messages that one Peek returns.
	MaxPeek = 1000
	// peekBytes is how many bytes of messages make it return fewer.
	peekBytes = 4 << 20
)

// Peek returns up to n of the messages that the channel is not done with, from the sequence
// number on, in the order in which they were published; fewer when there are no more, when
// n is more than MaxPeek, or when they are large: so the next ones are from the last one's
// sequence number plus 1 on, until there are none. It changes nothing. Each message is as
// it was at a moment while it was looked for. Returns ErrClosed, wrapped, and what the disk
// says.
func (ch *Channel) Peek(from uint64, n int) ([]Peeked, error) {
	p := peeking{reader: ch.topic.log.NewReader(from), left: min(n, MaxPeek)}
	defer p.reader.Close()
	for p.more() {
		next, err := ch.peekSome(&p, from)
		if err != nil {
			return nil, ch.errorf(fmt.Errorf("peek: %w", explain(err)))
		}
		if next == from {
			break
		}
		from = next
	}
	return p.found, nil
}

// peekSome looks at the next messages from the sequence number on, and returns from where on
// there may be others; the same when there are none.
func (ch *Channel) peekSome(p *peeking, from uint64) (next uint64, err error) {
	var live []uint64
	ch.mu.Lock()
	cursor, limit, ended := ch.ledger.Cursor(), ch.limit, ch.ended
	for seq := range ch.ledger.Live(from, cursor) {
		if live = append(live, seq); len(live) == p.left {
			break
		}
	}
	if len(live) == 0 {
		from = max(from, cursor)
		ch.ledger.Excluded(func(lo, hi uint64) {
			if lo <= from && from < hi {
				from = hi // however many there are
			}
		})
	}
	ch.mu.Unlock()
	var some []Peeked
	switch {
	case ended != nil:
		return 0, ended
	case len(live) > 0:
		some, next, err = p.readThese(live)
	default:
		some, next, err = p.readFrom(from, limit)
	}
	if len(some) > 0 {
		p.take(ch.look(some))
	}
	return next, err
}

// look says what the channel knows of the messages, and leaves out those that it is done
// with by now.
func (ch *Channel) look(some []Peeked) []Peeked {
	seqs := make([]uint64, len(some))
	for i := range some {
		seqs[i] = some[i].Seq
	}
	at := ch.now()
	ch.mu.Lock()
	known := ch.ledger.Look(seqs)
	ch.mu.Unlock()
	left := some[:0]
	for i, m := range some {
		if known[i].State != ledger.Done {
			m.State, m.Until = state(known[i], m.Until, at)
			m.Attempts = known[i].Attempts
			left = append(left, m)
		}
	}
	return left
}

// state is that of a message of which a ledger knows s, whose record has that due time.
func state(s ledger.Status, due, at int64) (State, int64) {
	switch {
	case s.State == ledger.InFlight:
		return InFlight, s.Until
	case s.State == ledger.Deferred && s.Until == 0 && due <= at:
		return Deferred, 0 // given back with a delay, and nobody has that in memory
	case s.State == ledger.Deferred && s.Until > at:
		return Deferred, s.Until
	case (s.State == ledger.NotDelivered || s.State == ledger.Deferred && s.Until == 0) && due > at:
		return Deferred, due
	}
	return Ready, 0
}

// Peek returns up to n of the messages that the topic's log holds, from the sequence number
// on, whatever channels have done with them; otherwise it is like Channel.Peek.
func (t *Topic) Peek(from uint64, n int) ([]Peeked, error) {
	if ended := t.ending(); ended != nil {
		return nil, fmt.Errorf("peek into topic %s: %w", t.name, ended)
	}
	p := peeking{reader: t.log.NewReader(from), left: min(n, MaxPeek)}
	defer p.reader.Close()
	end := t.log.End()
	for p.more() {
		some, next, err := p.readFrom(from, end)
		if err != nil {
			return nil, fmt.Errorf("peek into topic %s: %w", t.name, explain(err))
		}
		if next == from {
			break
		}
		for i := range some {
			some[i].Until = 0
		}
		p.take(some)
		from = next
	}
	return p.found, nil
}

// peeking is one Peek.
type peeking struct {
	reader *seglog.Reader
	found  []Peeked
	left   int // so many more are wanted
	bytes  int // of those that were found
}

func (p *peeking) more() bool { return p.left > 0 && p.bytes < peekBytes }

// take adds messages to those found, as long as there is room; one always has.
func (p *peeking) take(some []Peeked) {
	for _, m := range some {
		if !p.more() {
			return
		}
		p.found = append(p.found, m)
		p.left--
		p.bytes += len(m.Headers) + len(m.Body)
	}
}

// readThese reads the messages, as far as the log still has them.
func (p *peeking) readThese(seqs []uint64) (some []Peeked, next uint64, err error) {
	var one [1]seglog.Record
	room := peekBytes - p.bytes
	for _, seq := range seqs {
		p.reader.Seek(seq)
		n, err := p.reader.Read(one[:])
		if err != nil {
			return nil, 0, err
		}
		next = seq + 1
		if n == 0 || one[0].Seq != seq {
			continue // it is done by now, or damaged
		}
		some = append(some, peeked(&one[0]))
		if room -= len(one[0].Headers) + len(one[0].Body); room <= 0 {
			break
		}
	}
	return some, next, nil
}

// readFrom reads messages from the sequence number on and below limit: at most what a reader
// has in one piece, a megabyte or one message.
func (p *peeking) readFrom(from, limit uint64) (some []Peeked, next uint64, err error) {
	records := make([]seglog.Record, min(p.left, 64))
	p.reader.Seek(from)
	n, err := p.reader.Read(records)
	next = from
	for i := range records[:n] {
		if records[i].Seq >= limit {
			break
		}
		some = append(some, peeked(&records[i]))
		next = records[i].Seq + 1
	}
	return some, next, err
}

// peeked copies a record, which shares its memory with many others. Until is its own due
// time.
func peeked(r *seglog.Record) Peeked {
	return Peeked{
		Headers: bytes.Clone(r.Headers), Body: bytes.Clone(r.Body),
		Seq: r.Seq, Published: r.Time, Until: r.Due,
	}
}
