package door

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/nsqwire"
)

// target is the topic that a connection published to last, which it is likely to publish
// to next.
type target struct {
	name  string
	topic *broker.Topic
	count *atomic.Uint64 // of what this connection published there
}

// batch is room to list messages in, and for their headers, which connections share.
type batch struct {
	msgs    []millrace.Message
	headers millrace.Headers
}

// keepBatch is the most messages of a list that is kept, keepHeaders the most bytes of
// their headers.
const (
	keepBatch   = 4096
	keepHeaders = 256 << 10
)

// message is the message that a payload is: what our own drivers publish begins with its
// headers.
func (b *batch) message(payload []byte) (m millrace.Message) {
	b.headers, m.Headers, m.Body = nsqwire.CutHeaders(b.headers, payload)
	return m
}

func (c *conn) publish(cmd nsqwire.Command) error {
	if cmd.Count < 1 {
		return refusal(nsqwire.Invalid, "PUB insufficient number of parameters")
	}
	topic, ok := c.topicName(cmd.Params[0])
	if !ok {
		return refusal(nsqwire.BadTopic, "PUB topic name %q is not valid", cmd.Params[0])
	}
	return c.publishOne(pendingPublish, topic, 0)
}

func (c *conn) publishDeferred(cmd nsqwire.Command) error {
	if cmd.Count < 2 {
		return refusal(nsqwire.Invalid, "DPUB insufficient number of parameters")
	}
	topic, ok := c.topicName(cmd.Params[0])
	if !ok {
		return refusal(nsqwire.BadTopic, "DPUB topic name %q is not valid", cmd.Params[0])
	}
	ms, ok := nsqwire.ParseNumber(cmd.Params[1])
	if !ok {
		return refusal(nsqwire.Invalid, "DPUB could not parse timeout %s", cmd.Params[1])
	}
	delay, ok := milliseconds(ms, c.cfg.MaxReqTimeout)
	if !ok {
		return refusal(nsqwire.Invalid, "DPUB timeout %d out of range 0-%d", ms, c.cfg.MaxReqTimeout/time.Millisecond)
	}
	return c.publishOne(pendingPublishDeferred, topic, delay)
}

// milliseconds is the duration of ms milliseconds; most, and false, if it is longer.
func milliseconds(ms uint64, most time.Duration) (time.Duration, bool) {
	if ms > uint64(most/time.Millisecond) { //nolint:gosec // not negative
		return most, false
	}
	return time.Duration(ms) * time.Millisecond, true //nolint:gosec // just bounded
}

// topicName returns the name as a string, without a new one for the last target; false
// if it is no name.
func (c *conn) topicName(name []byte) (string, bool) {
	if c.to.topic != nil && string(name) == c.to.name {
		return c.to.name, true
	}
	s := string(name)
	return s, millrace.CheckName(s) == nil
}

// publishOne reads one message, and publishes it together with those that follow.
func (c *conn) publishOne(kind pendingKind, topic string, delay time.Duration) error {
	verb := verbs[kind].name
	size, err := c.size(part{nsqwire.BadMessage, verb, "message body size"})
	if err != nil {
		return err
	}
	if size <= 0 {
		return refusal(nsqwire.BadMessage, "%s invalid message body size %d", verb, size)
	}
	if int(size) > c.cfg.MaxMsgSize {
		return refusal(nsqwire.BadMessage, "%s message too big %d > %d", verb, size, c.cfg.MaxMsgSize)
	}
	body, err := c.body(size, part{nsqwire.BadMessage, verb, "message body"})
	if err != nil {
		return err
	}
	if err := c.mayPublish(verb, topic); err != nil {
		return err
	}
	if topic != c.to.name || c.to.topic == nil {
		if err := c.settle(); err != nil {
			return err
		}
		if err := c.aim(topic); err != nil {
			return refusal(verbs[kind].failed, "%s failed %s", verb, err)
		}
	}
	if err := c.begin(kind, 0); err != nil {
		return err
	}
	c.pending.msgs = c.borrowed()
	msg := c.pending.batch.message(body)
	msg.Delay = delay
	c.pending.msgs = append(c.pending.msgs, msg)
	return nil
}

// borrowed returns the list of pending messages, borrowed from the door when there is
// none.
func (c *conn) borrowed() []millrace.Message {
	if c.pending.batch == nil {
		c.pending.batch = c.door.batches.Get().(*batch)
		c.pending.msgs = c.pending.batch.msgs[:0]
	}
	return c.pending.msgs
}

// giveBack ends what borrowed began.
func (c *conn) giveBack() {
	p := &c.pending
	clear(p.msgs)
	if p.batch.msgs = p.msgs[:0]; cap(p.msgs) > keepBatch {
		p.batch.msgs = nil
	}
	if p.batch.headers = p.batch.headers[:0]; cap(p.batch.headers) > keepHeaders {
		p.batch.headers = nil
	}
	c.door.batches.Put(p.batch)
	p.batch, p.msgs = nil, nil
}

// aim makes the topic the target.
func (c *conn) aim(name string) error {
	t, err := c.door.Topic(name)
	if err != nil {
		return err
	}
	c.to = target{name: name, topic: t, count: c.stats.publishedTo(name)}
	return nil
}

// settlePublish publishes the pending messages and responds to each.
func (c *conn) settlePublish(kind pendingKind) error {
	n := len(c.pending.msgs)
	if err := c.publishPending(verbs[kind].failed, verbs[kind].name); err != nil {
		return err
	}
	for range n {
		c.responses = append(c.responses, okFrame...)
	}
	return nil
}

var okFrame = nsqwire.AppendFrame(nil, nsqwire.FrameResponse, nsqwire.OK)

// publishPending publishes the pending messages to the target. The error is one for the client.
func (c *conn) publishPending(code, verb string) error {
	msgs := c.pending.msgs
	defer c.giveBack()
	err := c.to.topic.Publish(msgs)
	if errors.Is(err, millrace.ErrClosed) {
		// The topic may have been deleted since; then there is, or will be, another one.
		if err = c.aim(c.to.name); err == nil {
			err = c.to.topic.Publish(msgs)
		}
	}
	if err != nil {
		c.to = target{}
		return refusal(code, "%s failed %s", verb, err)
	}
	c.to.count.Add(uint64(len(msgs)))
	return nil
}

// publishBatch is MPUB. All its messages are published, or none.
func (c *conn) publishBatch(cmd nsqwire.Command) error {
	if cmd.Count < 1 {
		return refusal(nsqwire.Invalid, "MPUB insufficient number of parameters")
	}
	topic, ok := c.topicName(cmd.Params[0])
	if !ok {
		// The code is there twice, as nsqd has it.
		return refusal(nsqwire.BadTopic, "E_BAD_TOPIC MPUB topic name %q is not valid", cmd.Params[0])
	}
	if err := c.mayPublish("MPUB", topic); err != nil {
		return err
	}
	if topic != c.to.name || c.to.topic == nil {
		if err := c.aim(topic); err != nil {
			return refusal(nsqwire.MPubFailed, "MPUB failed %s", err)
		}
	}
	size, err := c.size(part{nsqwire.BadBody, "MPUB", "body size"})
	if err != nil {
		return err
	}
	if size <= 0 {
		return refusal(nsqwire.BadBody, "MPUB invalid body size %d", size)
	}
	if int(size) > c.cfg.MaxBodySize {
		return refusal(nsqwire.BadBody, "MPUB body too big %d > %d", size, c.cfg.MaxBodySize)
	}
	body, err := c.batchBody()
	if err != nil {
		return err
	}
	c.pending.msgs = c.borrowed()
	for payload := range nsqwire.Bodies(body) {
		c.pending.msgs = append(c.pending.msgs, c.pending.batch.message(payload))
	}
	if err := c.publishPending(nsqwire.MPubFailed, "MPUB"); err != nil {
		return err
	}
	c.responses = append(c.responses, okFrame...)
	return nil
}

// batchBody reads a batch, and consumes it. It is void after fill.
func (c *conn) batchBody() ([]byte, error) {
	scan := nsqwire.BatchScan{MaxMessage: c.cfg.MaxMsgSize, MaxBody: c.cfg.MaxBodySize}
	for {
		need, err := scan.Scan(c.in.unread())
		if err != nil {
			return nil, err
		}
		if need == 0 {
			return c.in.consume(scan.Len()), nil
		}
		for c.in.w-c.in.r < need {
			if err := c.fill(); err != nil {
				return nil, orCut(err, scan.Cut(c.in.unread()))
			}
		}
	}
}
