package door

import (
	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/nsqwire"
)

func (c *conn) subscribe(cmd nsqwire.Command) error {
	if c.stats.state.Load() != stateInit {
		return refusal(nsqwire.Invalid, "cannot SUB in current state")
	}
	if c.terms.heartbeat == 0 {
		return refusal(nsqwire.Invalid, "cannot SUB with heartbeats disabled")
	}
	if cmd.Count < 2 {
		return refusal(nsqwire.Invalid, "SUB insufficient number of parameters")
	}
	name := channelName{string(cmd.Params[0]), string(cmd.Params[1])}
	if millrace.CheckName(name.topic) != nil {
		return refusal(nsqwire.BadTopic, "SUB topic name %q is not valid", name.topic)
	}
	if millrace.CheckName(name.channel) != nil {
		return refusal(nsqwire.BadChannel, "SUB channel name %q is not valid", name.channel)
	}
	if err := c.mayDo("SUB", Subscribe, name.topic, name.channel); err != nil {
		return err
	}
	if most := c.cfg.MaxChannelConsumers; !c.door.subscribing(name, most) {
		return refusal(nsqwire.SubFailed, "SUB failed consumers for %s:%s exceeds limit of %d", name.topic, name.channel, most)
	}
	if err := c.consume(name); err != nil {
		c.door.unsubscribed(name)
		return refusal(nsqwire.SubFailed, "SUB failed %s", err)
	}
	c.stats.state.Store(stateSubscribed)
	c.respond(nsqwire.FrameResponse, nsqwire.OK)
	return nil
}

// consume makes a consumer of the channel, and starts the pump.
func (c *conn) consume(name channelName) error {
	if _, err := c.door.Topic(name.topic); err != nil { // which asks nsqlookupd for its channels
		return err
	}
	consumer, err := c.door.broker.Subscribe(name.topic, name.channel,
		millrace.SubscribeOptions{Lease: c.terms.msgTimeout})
	if err != nil {
		return err
	}
	consumer.SetPrefetch(0) // until the client says RDY
	consumer.SetQuiet(true) // what does not answer may be dead
	c.consumer, c.channel = consumer, consumer.Channel()
	c.stats.mu.Lock()
	c.stats.channel, c.stats.consumer = name, consumer
	c.stats.mu.Unlock()
	c.pumped = make(chan struct{})
	p := &pump{conn: c, consumer: consumer, sampleRate: c.terms.sampleRate, limit: c.terms.writeSize()}
	go p.run()
	return nil
}

// subscribed says whether the client has messages to settle.
func (c *conn) subscribed() bool { return c.consumer != nil }

// ready sets the window: the most messages that the client has in flight.
func (c *conn) ready(cmd nsqwire.Command) error {
	switch c.stats.state.Load() {
	case stateClosing:
		return nil
	case stateInit:
		return refusal(nsqwire.Invalid, "cannot RDY in current state")
	}
	count := int64(1)
	if cmd.Count > 0 {
		n, ok := nsqwire.ParseNumber(cmd.Params[0])
		if !ok {
			return refusal(nsqwire.Invalid, "RDY could not parse count %s", cmd.Params[0])
		}
		count = int64(n) //nolint:gosec // wraps around as nsqd's
	}
	if count < 0 || count > int64(c.cfg.MaxRdyCount) {
		return refusal(nsqwire.Invalid, "RDY count %d out of range 0-%d", count, c.cfg.MaxRdyCount)
	}
	// The answer to SUB, if it waits for the end of the input, comes before messages.
	if err := c.flush(); err != nil {
		return err
	}
	c.stats.rdy.Store(count)
	c.consumer.SetPrefetch(int(count))
	return nil
}

func (c *conn) finish(cmd nsqwire.Command) error {
	seq, err := c.message(cmd, 1, "FIN", nsqwire.FinFailed)
	if err != nil {
		return err
	}
	if err := c.begin(pendingFinish, 0); err != nil {
		return err
	}
	c.pending.seqs = append(c.pending.seqs, seq)
	return nil
}

func (c *conn) requeue(cmd nsqwire.Command) error {
	seq, err := c.message(cmd, 2, "REQ", nsqwire.ReqFailed)
	if fatal(err) {
		return err
	}
	ms, ok := nsqwire.ParseNumber(cmd.Params[1])
	if !ok {
		return refusal(nsqwire.Invalid, "REQ could not parse timeout %s", cmd.Params[1])
	}
	if err != nil {
		return err
	}
	delay, _ := milliseconds(ms, c.cfg.MaxReqTimeout)
	if err := c.begin(pendingRequeue, delay); err != nil {
		return err
	}
	c.pending.seqs = append(c.pending.seqs, seq)
	return nil
}

func (c *conn) touch(cmd nsqwire.Command) error {
	seq, err := c.message(cmd, 1, "TOUCH", nsqwire.TouchFailed)
	if err != nil {
		return err
	}
	limit := c.cfg.MaxMsgTimeout
	if limit == noLimit {
		limit = 0
	}
	if c.consumer.ExtendSeqs(c.terms.msgTimeout, limit, seq) != nil {
		return c.notHeld(seq, nsqwire.TouchFailed, "TOUCH")
	}
	return nil
}

// message returns the message that a command names which has so many parameters at
// least. code is that of the error for an id that no message has.
func (c *conn) message(cmd nsqwire.Command, params int, verb, code string) (uint64, error) {
	if !c.subscribed() {
		return 0, refusal(nsqwire.Invalid, "cannot %s in current state", verb)
	}
	if cmd.Count < params {
		return 0, refusal(nsqwire.Invalid, "%s insufficient number of params", verb)
	}
	id := cmd.Params[0]
	if len(id) != nsqwire.IDLen {
		return 0, refusal(nsqwire.Invalid, "invalid message ID")
	}
	seq, ok := nsqwire.ParseID(id)
	if !ok {
		return 0, refusal(code, "%s %s failed ID not in flight", verb, id)
	}
	return seq, nil
}

// fatal says whether err is an error for the client that ends the connection.
func fatal(err error) bool {
	told, ok := err.(*nsqwire.Error) //nolint:errorlint // made by message, not wrapped
	return ok && told.Fatal()
}

// startClose lets the client settle what it has, and sends it no more.
func (c *conn) startClose() error {
	if c.stats.state.Load() != stateSubscribed {
		return refusal(nsqwire.Invalid, "cannot CLS in current state")
	}
	c.stats.rdy.Store(0)
	c.consumer.SetPrefetch(0)
	c.stats.state.Store(stateClosing)
	c.respond(nsqwire.FrameResponse, nsqwire.CloseWait)
	return nil
}
