package nsq

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/nsqwire"
)

// partBytes is about how many bytes of messages are sent at a time, before the node has
// answered.
const partBytes = 1 << 20

// Publish publishes the messages, those without a delay in batches. Several nodes take
// turns, one a call. While none is connected it waits for one until ctx ends; what was
// sent and not answered is sent again, and may then be there twice.
func (b *Broker) Publish(ctx context.Context, topic string, msgs ...millrace.Message) error {
	if err := b.may(ctx, topic); err != nil {
		return err
	}
	l := b.limits()
	for i := range msgs {
		if err := l.check(&msgs[i]); err != nil {
			return err
		}
	}
	p := parts.Get().(*part)
	defer parts.Put(p)
	var last *node
	for len(msgs) > 0 {
		msgs = msgs[p.fill(topic, msgs, l):]
		var err error
		if last, err = b.send(ctx, p, last); err != nil {
			return fmt.Errorf("nsq: publish to %s: %w", topic, err)
		}
	}
	return nil
}

// limits are what a node takes.
type limits struct {
	message, body int // bytes
}

// Where a node does not say what it takes, it is nsqd's default for batches, and for one
// message the node decides.
const (
	defaultMessage = math.MaxInt32
	defaultBody    = 5 << 20
)

// check returns an error if a message is too large.
func (l limits) check(m *millrace.Message) error {
	if len(m.Body)+maxLine(m.Headers) <= l.message {
		return nil
	}
	size := len(m.Body)
	if nsqwire.NeedsLine(m.Headers, m.Body) {
		size += len(nsqwire.AppendLine(nil, m.Headers, m.Body))
	}
	if size > l.message {
		return fmt.Errorf("nsq: %w: it has %d bytes, and the broker takes %d (its --max-msg-size)", millrace.ErrTooLarge, size, l.message)
	}
	return nil
}

// maxLine is more than the line of these headers can have: one byte can become six.
func maxLine(h millrace.Headers) int { return 6*len(h) + 16 }

// part is what is sent at a time, and used again.
type part struct {
	commands []byte
	answers  int // to come
}

var parts = sync.Pool{New: func() any { return new(part) }}

// fill makes commands of the first messages, and returns of how many: of one at least.
func (p *part) fill(topic string, msgs []millrace.Message, l limits) (n int) {
	if cap(p.commands) > 4*partBytes {
		p.commands = nil
	}
	p.commands, p.answers = p.commands[:0], 0
	for n < len(msgs) && (n == 0 || len(p.commands)+msgs[n].Size() < partBytes) {
		m := &msgs[n]
		switch {
		case m.Delay > 0:
			ms := (m.Delay + time.Millisecond - 1) / time.Millisecond
			p.command("DPUB ", topic)
			p.commands = append(strconv.AppendInt(append(p.commands, ' '), int64(ms), 10), '\n')
		case alone(msgs[n:], l):
			p.command("PUB ", topic)
			p.commands = append(p.commands, '\n')
		default:
			n += p.batch(topic, msgs[n:], l)
			continue
		}
		p.message(m)
		n++
	}
	return n
}

// alone says whether the first message goes without others: there are none, or it is large.
func alone(msgs []millrace.Message, l limits) bool {
	return len(msgs) == 1 || msgs[1].Delay > 0 || len(msgs[0].Body)+maxLine(msgs[0].Headers) > min(l.body, partBytes)/2
}

// command begins a command that is answered.
func (p *part) command(verb, topic string) {
	p.commands = append(append(p.commands, verb...), topic...)
	p.answers++
}

// message appends a size and a payload.
func (p *part) message(m *millrace.Message) {
	size := len(p.commands)
	p.commands = append(p.commands, 0, 0, 0, 0)
	if nsqwire.NeedsLine(m.Headers, m.Body) {
		p.commands = nsqwire.AppendLine(p.commands, m.Headers, m.Body)
	}
	p.commands = append(p.commands, m.Body...)
	binary.BigEndian.PutUint32(p.commands[size:], uint32(len(p.commands)-size-4)) //nolint:gosec // bounded by the limits
}

// batch appends an MPUB of the first messages, up to one with a delay or a limit, and
// returns how many they are.
func (p *part) batch(topic string, msgs []millrace.Message, l limits) (n int) {
	p.command("MPUB ", topic)
	p.commands = append(p.commands, '\n')
	body := len(p.commands)
	p.commands = append(p.commands, 0, 0, 0, 0, 0, 0, 0, 0) // its size, and how many
	for n < len(msgs) && msgs[n].Delay <= 0 {
		start := len(p.commands)
		p.message(&msgs[n])
		if size := len(p.commands) - body - 4; n > 0 && (size > l.body || size > partBytes) {
			p.commands = p.commands[:start]
			break
		}
		n++
	}
	binary.BigEndian.PutUint32(p.commands[body:], uint32(len(p.commands)-body-4)) //nolint:gosec // bounded by the limits
	binary.BigEndian.PutUint32(p.commands[body+4:], uint32(n))                    //nolint:gosec // the same
	return n
}

// send sends a part to a node that is connected, to that one if it is, and to another one
// when that fails. It returns which one has taken it.
func (b *Broker) send(ctx context.Context, p *part, n *node) (*node, error) {
	var failed map[*node]error // that do not take it
	for ; ; n = nil {
		var err error
		if n == nil {
			if n, err = b.pick(ctx, failed); err != nil {
				return nil, err
			}
		}
		if err = n.publish(ctx, p.commands, p.answers); err == nil {
			return n, nil
		}
		var told *nodeError
		switch {
		case errors.Is(err, errLost):
			continue
		case !errors.As(err, &told):
			return nil, err // of ctx
		case told.passing():
			continue
		case !told.publishFailed():
			return nil, told.meaning()
		}
		if failed == nil {
			failed = make(map[*node]error)
		}
		failed[n] = told.meaning()
	}
}

// publishFailed says whether this node could not do what another one perhaps can.
func (e *nodeError) publishFailed() bool {
	return e.code == nsqwire.PubFailed || e.code == nsqwire.MPubFailed || e.code == nsqwire.DPubFailed
}

// passing says whether the node is about to close.
func (e *nodeError) passing() bool {
	return e.publishFailed() && (strings.Contains(e.text, "exiting") || strings.Contains(e.text, millrace.ErrClosed.Error()))
}

// meaning is the error for who has published.
func (e *nodeError) meaning() error {
	switch {
	case strings.Contains(e.text, "too big"):
		return fmt.Errorf("%w: %w", millrace.ErrTooLarge, e)
	case e.publishFailed() && strings.Contains(e.text, "no space left"):
		return fmt.Errorf("%w: %w", millrace.ErrNoSpace, e)
	case e.code == nsqwire.Invalid && strings.Contains(e.text, "DPUB timeout"):
		return fmt.Errorf("the delay is longer than the broker takes (its --max-req-timeout): %w", e)
	}
	return e
}

// pick returns the connected node that has the least to do, but for those that failed. It
// waits for one if there is none, and says what it waited for when ctx ends.
func (b *Broker) pick(ctx context.Context, failed map[*node]error) (*node, error) {
	for {
		if ctx.Err() != nil {
			return nil, b.waited(ctx)
		}
		if b.ctx.Err() != nil {
			return nil, millrace.ErrClosed
		}
		b.mu.Lock()
		nodes, change := b.nodes, b.change
		b.turn++
		turn := b.turn
		b.mu.Unlock()
		var best *node
		least, refusals, failures := 0, 0, 0
		var why error
		for i := range nodes {
			n := nodes[(i+turn)%len(nodes)]
			if err := failed[n]; err != nil {
				failures++
				why = err
				continue
			}
			if load, up := n.load(); up {
				if best == nil || load < least {
					best, least = n, load
				}
				continue
			}
			if _, err := n.state(); errors.As(err, new(*refusal)) {
				refusals++
				if failures == 0 {
					why = err
				}
			}
		}
		switch {
		case best != nil:
			return best, nil
		case len(nodes) > 0 && refusals == len(nodes):
			return nil, why // waiting does not help
		case failures > 0:
			return nil, why // by the one that is there
		}
		select {
		case <-change:
		case <-ctx.Done():
		case <-b.ctx.Done():
		}
	}
}

// waited says for what was waited until ctx ended. It wraps the cause.
func (b *Broker) waited(ctx context.Context) error {
	if why := b.trouble(); why != nil {
		return fmt.Errorf("waiting for a broker (%w): %w", why, context.Cause(ctx))
	}
	return context.Cause(ctx)
}
