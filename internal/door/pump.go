package door

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/nsqwire"
)

// pump takes messages from the broker to the client, as many at a time as there are. Each
// time it has written what it took before it waits for more.
type pump struct {
	conn       *conn
	consumer   *broker.Consumer
	sampleRate int    // percent of the messages that the client wants; 0: all
	limit      int    // bytes that are written together
	line       []byte // borrowed while it sends; see pumpSpace
}

// manyMessages is the most messages that a pump takes at a time.
const manyMessages = 512

// retryRead is how long a pump waits after the broker could not read messages.
const retryRead = time.Second

// pumpSpace is what a pump works with while it has something to send. Pumps share them, so
// that idle ones need none.
type pumpSpace struct {
	deliveries [manyMessages]millrace.Delivery
	out        []byte
	line       []byte // of the headers of one message
}

// keepOut is the largest buffer that is kept.
const keepOut = 128 << 10

// run ends when the consumer is closed, or the client takes no more; then it closes the
// connection.
func (p *pump) run() {
	defer close(p.conn.pumped)
	defer func() { _ = p.conn.raw.Close() }()
	ctx := context.Background() // closing the consumer is what ends it
	for {
		err := p.consumer.Wait(ctx)
		if err == nil {
			err = p.send()
		}
		if err != nil && !p.goesOn(err) {
			return
		}
	}
}

// goesOn says whether the pump goes on after an error, and waits for a moment if so.
func (p *pump) goesOn(err error) bool {
	if errors.Is(err, millrace.ErrClosed) || errors.Is(err, errNotWritten) {
		return false
	}
	p.conn.cfg.Logger.Error("cannot read messages", "client", p.conn.raw.RemoteAddr(), "error", err)
	pause(p.conn.ctx, retryRead)
	return p.conn.ctx.Err() == nil
}

var errNotWritten = errors.New("the client takes no more")

// send takes and writes the messages that are there. Its error is the broker's, or
// errNotWritten.
func (p *pump) send() error {
	door := p.conn.door
	space := door.pumps.Get().(*pumpSpace)
	p.line = space.line
	out, err := p.fill(space.out[:0], space.deliveries[:])
	if err != errNotWritten && len(out) > 0 && p.conn.out.write(out, nil) != nil { //nolint:errorlint // fill's own
		err = errNotWritten
	}
	if space.out = out; cap(out) > keepOut {
		space.out = nil
	}
	if space.line, p.line = p.line, nil; cap(space.line) > keepOut {
		space.line = nil
	}
	door.pumps.Put(space)
	return err
}

// fill takes messages until there are no more, and appends them to out.
func (p *pump) fill(out []byte, buf []millrace.Delivery) ([]byte, error) {
	for {
		n, err := p.consumer.TryReceive(buf)
		if n > 0 {
			out, err = p.encode(out, buf[:n])
			clear(buf[:n]) // they hold on to memory of the log
		}
		if err != nil || n < len(buf) {
			return out, err
		}
	}
}

// encode appends the messages to out, which it writes to the client whenever it is full.
func (p *pump) encode(out []byte, ds []millrace.Delivery) ([]byte, error) {
	if p.sampleRate > 0 {
		ds = p.sample(ds)
	}
	p.conn.stats.sent.Add(uint64(len(ds)))
	for i := range ds {
		d := &ds[i]
		head := 0 // what stands before the body
		if nsqwire.NeedsLine(d.Headers, d.Body) {
			p.line = nsqwire.AppendLine(p.line[:0], d.Headers, d.Body)
			head = len(p.line)
		}
		payload := head + len(d.Body)
		size := nsqwire.MessageSize(payload)
		if len(out) > 0 && len(out)+size > p.limit {
			if p.conn.out.write(out, nil) != nil {
				return out, errNotWritten
			}
			out = out[:0]
		}
		out = nsqwire.AppendMessageHeader(out, d.Published, d.Attempt, d.Seq, payload)
		out = append(out, p.line[:head]...)
		if size <= maxCopied {
			out = append(out, d.Body...)
			continue
		}
		if p.conn.out.write(out, d.Body) != nil {
			return out, errNotWritten
		}
		out = out[:0]
	}
	return out, nil
}

// maxCopied is the size from which a message is written from where it is.
const maxCopied = 64 << 10

// sample keeps some of the messages, and discards the others from the channel. Which ones
// is decided as nsqd does.
func (p *pump) sample(ds []millrace.Delivery) []millrace.Delivery {
	var discarded []uint64
	kept := ds[:0]
	for _, d := range ds {
		if rand.IntN(100) > p.sampleRate { //nolint:gosec // nothing secret
			discarded = append(discarded, d.Seq)
		} else {
			kept = append(kept, d)
		}
	}
	_ = p.consumer.AckSeqs(discarded) // one that is lost meanwhile is somebody else's
	return kept
}
