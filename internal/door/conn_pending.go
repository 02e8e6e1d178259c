package door

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/nsqwire"
)

// pending is a run of commands of one kind that stood one behind the other in the input:
// they are settled in one call of the broker, with as many answers as there were commands.
// They wait for nothing: before the connection reads more input, and before it does
// anything else, they are settled.
type pending struct {
	kind  pendingKind
	seqs  []uint64           // of messages to finish or requeue
	delay time.Duration      // of those to requeue
	msgs  []millrace.Message // to publish to conn.to; their bodies are in the input buffer
	batch *batch             // that msgs are in, if there are any
}

type pendingKind uint8

const (
	pendingNone pendingKind = iota
	pendingFinish
	pendingRequeue
	pendingPublish
	pendingPublishDeferred
)

// verbs are the commands, and the codes of their failures.
var verbs = [...]struct{ name, failed string }{
	pendingFinish:          {"FIN", nsqwire.FinFailed},
	pendingRequeue:         {"REQ", nsqwire.ReqFailed},
	pendingPublish:         {"PUB", nsqwire.PubFailed},
	pendingPublishDeferred: {"DPUB", nsqwire.DPubFailed},
}

// maxPending is the most commands that are settled together.
const maxPending = 512

// begin makes room for a command of that kind, which the caller then adds: what is pending
// and of another kind is settled first.
func (c *conn) begin(kind pendingKind, delay time.Duration) error {
	p := &c.pending
	if p.kind == kind && p.delay == delay && len(p.seqs)+len(p.msgs) < maxPending {
		return nil
	}
	if err := c.settle(); err != nil {
		return err
	}
	p.kind, p.delay = kind, delay
	return nil
}

// settle does what is pending and responds. It returns an error for the client when the
// connection is to end.
func (c *conn) settle() error {
	kind := c.pending.kind
	c.pending.kind = pendingNone
	switch kind {
	case pendingNone:
		return nil
	case pendingFinish:
		err := c.consumer.AckSeqs(c.pending.seqs)
		c.stats.finished.Add(c.settled(kind, err))
	case pendingRequeue:
		err := c.consumer.NackSeqs(c.pending.delay, c.pending.seqs...)
		c.stats.requeued.Add(c.settled(kind, err))
	case pendingPublish, pendingPublishDeferred:
		if err := c.settlePublish(kind); err != nil {
			return err
		}
	}
	return c.flushMany()
}

// settled responds to the pending commands that could not be done, and returns how many
// could.
func (c *conn) settled(kind pendingKind, err error) uint64 {
	p, code, verb := &c.pending, verbs[kind].failed, verbs[kind].name
	done := uint64(len(p.seqs))
	var some *millrace.LeaseError
	switch {
	case errors.As(err, &some):
		for _, i := range some.Lost {
			c.respond(nsqwire.FrameError, c.notHeld(p.seqs[i], code, verb).Error())
		}
		done -= uint64(len(some.Lost))
	case errors.Is(err, millrace.ErrClosed): // the channel has ended, and so will the connection
		for _, seq := range p.seqs {
			c.respond(nsqwire.FrameError, c.notHeld(seq, code, verb).Error())
		}
		done = 0
	}
	p.seqs = p.seqs[:0]
	return done
}

// notHeld is the error for a message that this client does not have in flight.
func (c *conn) notHeld(seq uint64, code, verb string) *nsqwire.Error {
	why := "ID not in flight"
	if c.channel.InFlight(seq) {
		why = "client does not own message"
	}
	var id [nsqwire.IDLen]byte
	return refusal(code, "%s %s failed %s", verb, nsqwire.AppendID(id[:0], seq), why)
}

// refusal is an error for the client.
func refusal(code, format string, args ...any) *nsqwire.Error {
	return &nsqwire.Error{Code: code, Desc: fmt.Sprintf(format, args...)}
}
