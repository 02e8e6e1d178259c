package door

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/nsqwire"
)

// The states of a connection, numbered as nsqd's statistics show them.
const (
	stateInit       = 0
	stateSubscribed = 3
	stateClosing    = 4 // after CLS: nothing more is sent, what is in flight is settled
)

// conn is a client's connection. One goroutine runs serve and owns all that is not marked
// otherwise; the pump has its own part, see pump.go.
type conn struct {
	door      *Door
	cfg       *Config
	ctx       context.Context // ends when the door closes
	raw       net.Conn        // what was accepted
	transport net.Conn        // raw, whose reads send heartbeats; after an upgrade TLS over that
	tls       *tls.Conn       // nil without TLS
	source    io.Reader       // what commands are read from: the transport, perhaps decompressed
	connected time.Time

	in        input
	heartbeat heartbeat
	responses []byte // frames that are not written yet
	pending   pending
	to        target // of publishes
	out       output // shared with the pump: whoever writes has its turn

	terms     terms
	authority *authority // nil until AUTH
	secret    string     // of AUTH

	consumer *broker.Consumer // nil until SUB
	channel  *broker.Channel
	pumped   chan struct{} // closed when the pump has ended

	stats connStats
}

// connStats are what statistics tell of a connection; any goroutine may read them.
type connStats struct {
	state, rdy               atomic.Int64
	sent, finished, requeued atomic.Uint64
	tls, snappy, deflate     atomic.Bool

	mu        sync.Mutex // guards what follows
	terms     terms
	authority *authority
	tlsState  tls.ConnectionState
	channel   channelName
	consumer  *broker.Consumer
	published map[string]*atomic.Uint64 // messages by topic
}

// Reasons to end a connection that its client is not told.
var (
	errLineTooLong  = errors.New("the command line is too long")
	errClientSilent = errors.New("the client did not answer to heartbeats")
	errBadProtocol  = errors.New("the client does not speak protocol V2")
)

func (d *Door) newConn(ctx context.Context, raw net.Conn) *conn {
	c := &conn{
		door: d, cfg: &d.cfg, ctx: ctx, raw: raw, connected: time.Now(),
		terms: defaultTerms(&d.cfg, raw.RemoteAddr()),
	}
	c.stats.terms = c.terms
	c.out = output{turn: make(chan struct{}, 1), raw: raw, w: raw, patience: c.terms.heartbeat}
	c.heartbeat = heartbeat{Conn: raw, out: &c.out}
	c.transport, c.source = &c.heartbeat, &c.heartbeat
	return c
}

// serve talks with the client until one of them ends it, or the context does, which
// closes the raw connection.
func (c *conn) serve() {
	err := c.greet()
	for err == nil {
		err = c.next()
	}
	c.leave()
	var told *nsqwire.Error
	if errors.As(err, &told) || errors.Is(err, errBadProtocol) {
		c.cfg.Logger.Info("client refused", "client", c.raw.RemoteAddr(), "error", err)
		c.linger()
	} else if !errors.Is(err, io.EOF) && c.ctx.Err() == nil {
		c.cfg.Logger.Log(c.ctx, logLevel(err), "client lost", "client", c.raw.RemoteAddr(), "error", err)
	}
	_ = c.raw.Close()
}

// logLevel makes the ways in which connections just break less noisy than the others.
func logLevel(err error) slog.Level {
	if errors.Is(err, errClientSilent) || errors.Is(err, errLineTooLong) {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// greet reads what a client says first.
func (c *conn) greet() error {
	_ = c.raw.SetReadDeadline(c.connected.Add(c.cfg.ClientTimeout))
	var magic [len(nsqwire.Magic)]byte
	if _, err := io.ReadFull(c.raw, magic[:]); err != nil {
		return err
	}
	if string(magic[:]) != nsqwire.Magic {
		_ = c.out.write(nsqwire.AppendFrame(nil, nsqwire.FrameError, nsqwire.BadProtocol), nil)
		return errBadProtocol
	}
	c.heartbeat.start(c.terms.heartbeat)
	return nil
}

// next does what the next command says. It returns an error when the connection is to
// end; a *nsqwire.Error was sent to the client.
func (c *conn) next() error {
	line, err := c.line()
	if err == nil {
		err = c.execute(nsqwire.ParseCommand(line))
	}
	if err == nil {
		return nil
	}
	return c.failed(err)
}

// failed tells the client of an error that is for it. It returns an error when the
// connection is to end.
func (c *conn) failed(err error) error {
	var told *nsqwire.Error
	if !errors.As(err, &told) {
		return err
	}
	// What stands before it is answered before it, or fails before it.
	if err := c.settle(); err != nil {
		return c.refuse(err)
	}
	if told.Fatal() {
		return c.refuse(told)
	}
	c.respond(nsqwire.FrameError, told.Error())
	return c.flushMany()
}

// refuse sends the client the error that ends the connection, if it is one for the
// client, and returns it.
func (c *conn) refuse(err error) error {
	var told *nsqwire.Error
	if errors.As(err, &told) {
		c.respond(nsqwire.FrameError, told.Error())
		_ = c.flush()
	}
	return err
}

// execute does what one command says. Those that can be settled together with the next
// ones go to c.pending; all others have to wait until that is settled.
func (c *conn) execute(cmd nsqwire.Command) error {
	if c.consumer != nil {
		c.consumer.Speak()
	}
	if c.cfg.TLSRequired && c.tls == nil && string(cmd.Name) != "IDENTIFY" {
		return refusal(nsqwire.Invalid, "cannot %s in current state (TLS required)", cmd.Name)
	}
	switch string(cmd.Name) {
	case "FIN":
		return c.finish(cmd)
	case "REQ":
		return c.requeue(cmd)
	case "PUB":
		return c.publish(cmd)
	case "DPUB":
		return c.publishDeferred(cmd)
	case "NOP":
		return nil
	}
	if err := c.settle(); err != nil {
		return err
	}
	switch string(cmd.Name) {
	case "MPUB":
		return c.publishBatch(cmd)
	case "RDY":
		return c.ready(cmd)
	case "TOUCH":
		return c.touch(cmd)
	case "IDENTIFY":
		return c.identify()
	case "AUTH":
		return c.auth(cmd)
	case "SUB":
		return c.subscribe(cmd)
	case "CLS":
		return c.startClose()
	}
	return refusal(nsqwire.Invalid, "invalid command %s", cmd.Name)
}

// leave gives back what the client has in flight, and waits for the pump.
func (c *conn) leave() {
	if c.consumer == nil {
		return
	}
	_ = c.consumer.Close()
	_ = c.raw.SetWriteDeadline(time.Now()) // a pump that is writing
	<-c.pumped
	c.door.unsubscribed(c.stats.channel)
}

// How long, and for how many bytes, a client may go on sending that was told an error.
const (
	lingerTime  = time.Second
	lingerBytes = 16 << 20
)

// linger ends a connection so that the client can read the error it was sent: were the
// connection closed while the client still sends, it would be reset.
func (c *conn) linger() {
	deadline := time.Now().Add(lingerTime)
	_ = c.raw.SetDeadline(deadline)
	if c.tls != nil {
		_ = c.tls.CloseWrite()
	}
	if half, ok := c.raw.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c.raw, lingerBytes)
	}
}

// heartbeat is a connection whose reader sends a heartbeat whenever it has waited until
// one was due, and gives up on a client that has not spoken for two intervals. So an idle
// connection needs neither a second goroutine nor a timer of its own.
type heartbeat struct {
	net.Conn
	out      *output
	interval time.Duration // 0: none is sent, and a client may be silent for ever
	next     time.Time     // when one is due
	heard    time.Time     // when it was waited for more after a command line
	stopped  bool          // a read that takes too long fails
}

// start begins a new series of heartbeats.
func (h *heartbeat) start(interval time.Duration) {
	now := time.Now()
	h.interval, h.stopped = interval, false
	h.next, h.heard = now.Add(interval), now
	h.wait()
}

// wait sets the deadline of reads to when something is to be done.
func (h *heartbeat) wait() {
	if h.interval == 0 {
		_ = h.SetReadDeadline(time.Time{})
		return
	}
	deadline := h.heard.Add(2 * h.interval)
	if h.next.Before(deadline) {
		deadline = h.next
	}
	_ = h.SetReadDeadline(deadline)
}

func (h *heartbeat) Read(b []byte) (int, error) {
	for {
		n, err := h.Conn.Read(b)
		if n > 0 || h.stopped || h.interval == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		now := time.Now()
		if now.Sub(h.heard) >= 2*h.interval {
			return 0, errClientSilent
		}
		if !now.Before(h.next) {
			h.next = now.Add(h.interval)
			if err := h.out.write(heartbeatFrame, nil); err != nil {
				return 0, err
			}
		}
		h.wait()
	}
}

var heartbeatFrame = nsqwire.AppendFrame(nil, nsqwire.FrameResponse, nsqwire.Heartbeat)
