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
	sampleRate int // percent of the messages that the client wants; 0: all
	limit      int // bytes that are written together
}

// How many messages a pump takes at a time: when idle, and when there are more than that.
const (
	fewMessages  = 8
	manyMessages = 512
)

// retryRead is how long a pump waits after the broker could not read messages.
const retryRead = time.Second

// pumpSpace is what a pump works with while it has something to send. Pumps share them, so
// that idle ones need none.
type pumpSpace struct {
	many [manyMessages]millrace.Delivery
	out  []byte
}

// keepOut is the largest buffer that is kept.
const keepOut = 128 << 10

// run ends when the consumer is closed, or the client takes no more; then it closes the
// connection.
func (p *pump) run() {
	defer close(p.conn.pumped)
	defer func() { _ = p.conn.raw.Close() }()
	ctx := context.Background() // closing the consumer is what ends it
	few := make([]millrace.Delivery, fewMessages)
	for {
		n, err := p.consumer.Receive(ctx, few)
		if err != nil && !p.goesOn(err) {
			return
		}
		if n > 0 && !p.send(few[:n]) {
			return
		}
	}
}

// goesOn says whether the pump goes on after the broker returned an error, and waits for
// a moment if so.
func (p *pump) goesOn(err error) bool {
	if errors.Is(err, millrace.ErrClosed) {
		return false
	}
	p.conn.cfg.Logger.Error("cannot read messages", "client", p.conn.raw.RemoteAddr(), "error", err)
	pause(p.conn.ctx, retryRead)
	return p.conn.ctx.Err() == nil
}

// send writes the messages, together with those that are behind them.
func (p *pump) send(ds []millrace.Delivery) bool {
	door := p.conn.door
	space := door.pumps.Get().(*pumpSpace)
	defer func() {
		if cap(space.out) > keepOut {
			space.out = nil
		}
		door.pumps.Put(space)
	}()
	out := space.out[:0]
	defer func() { space.out = out }()
	var failed error
	for more := len(ds) == fewMessages; ; more = len(ds) >= fewMessages {
		var err error
		out, err = p.encode(out, ds)
		clear(ds) // they hold on to memory of the log
		if err != nil {
			return false
		}
		if !more {
			break
		}
		var n int
		if n, failed = p.consumer.TryReceive(space.many[:]); n == 0 {
			break
		}
		ds = space.many[:n]
	}
	if len(out) > 0 && p.conn.out.write(out, nil) != nil {
		return false
	}
	return failed == nil || p.goesOn(failed)
}

// encode appends the messages to out, which it writes to the client whenever it is full.
func (p *pump) encode(out []byte, ds []millrace.Delivery) ([]byte, error) {
	if p.sampleRate > 0 {
		ds = p.sample(ds)
	}
	p.conn.stats.sent.Add(uint64(len(ds)))
	for i := range ds {
		d := &ds[i]
		size := nsqwire.MessageSize(len(d.Body))
		if len(out) > 0 && len(out)+size > p.limit {
			if err := p.conn.out.write(out, nil); err != nil {
				return out, err
			}
			out = out[:0]
		}
		if size <= maxCopied {
			out = nsqwire.AppendMessage(out, d.Published, d.Attempt, d.Seq, d.Body)
			continue
		}
		out = nsqwire.AppendMessageHeader(out, d.Published, d.Attempt, d.Seq, len(d.Body))
		if err := p.conn.out.write(out, d.Body); err != nil {
			return out, err
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
