package nsq

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	gonsq "github.com/nsqio/go-nsq"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/nsqwire"
)

const (
	// heartbeat is how often a node shows that it is there, and silence how long it may
	// fail to until we take it for dead.
	heartbeat = 5 * time.Second
	silence   = 3 * heartbeat
	// farewell is how long a node may take to let us go.
	farewell = 2 * time.Second
	// straggling is how long we wait for messages that nsqd sends when it has said that it
	// sends none any more.
	straggling = outputTimeout
	// greeting is how long a node may take to let us in, and a write to leave.
	greeting = 5 * time.Second
	// outputTimeout is how long nsqd may keep messages back to send more of them
	// together: the least that it takes.
	outputTimeout = 25 * time.Millisecond
)

// terms are what a node allows, as it says when we identify ourselves.
type terms struct {
	MaxReady   int   `json:"max_rdy_count"`
	MsgTimeout int64 `json:"msg_timeout"`     // ms
	MaxTimeout int64 `json:"max_msg_timeout"` // ms
	TLS        bool  `json:"tls_v1"`
	Auth       bool  `json:"auth_required"`
}

// longest is how long a delivery can be held in all.
func (t *terms) longest() time.Duration {
	if t.MaxTimeout <= 0 || t.MaxTimeout > math.MaxInt64/2/int64(time.Millisecond) {
		return math.MaxInt64 / 2
	}
	return time.Duration(t.MaxTimeout) * time.Millisecond
}

// conn is a connection to a node that has let us in. One goroutine reads frames; any may
// send; a goroutine of its own writes.
type conn struct {
	address string
	net     net.Conn
	terms   terms
	in      frames
	out     *outbox
	leaving atomic.Bool // there is little time left
	hasty   atomic.Bool // there is hardly any
}

// refusal is returned when a node does not let us in, or subscribe.
type refusal struct{ why string }

func (r *refusal) Error() string { return r.why }

// Unwrap returns millrace.ErrRefused.
func (r *refusal) Unwrap() error { return millrace.ErrRefused }

func refused(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

// connect opens a connection. lease is what deliveries are to have; 0 for a connection
// that gets none.
func connect(ctx context.Context, address string, a access, lease time.Duration) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("no broker answers at %s: %w", address, plain(err))
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Now()) })
	c := &conn{address: address, net: raw}
	err = c.greet(ctx, a, lease)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = raw.Close()
		return nil, c.notLetIn(err)
	}
	_ = raw.SetDeadline(time.Time{})
	c.talk(raw)
	return c, nil
}

// plain is what the system says, without the words of the functions that asked it: who reads
// an error of ours is told the address in it.
func plain(err error) error {
	if asked := (*url.Error)(nil); errors.As(err, &asked) {
		err = asked.Err
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	if call := (*os.SyscallError)(nil); errors.As(err, &call) {
		err = call.Err
	}
	return err
}

// talk begins to send and to read what is sent after the greeting.
func (c *conn) talk(raw net.Conn) {
	c.in = frames{src: c.net, before: func() { c.hurry(raw.SetReadDeadline) }}
	c.out = newOutbox(c.net, func() { c.hurry(raw.SetWriteDeadline) })
}

// hurry gives a read or a write the time it may take.
func (c *conn) hurry(set func(time.Time) error) {
	_ = set(time.Now().Add(silence))
	switch {
	case c.hasty.Load():
		_ = set(time.Now().Add(straggling))
	case c.leaving.Load():
		_ = set(time.Now().Add(farewell))
	}
}

// notLetIn says which node it was.
func (c *conn) notLetIn(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return refused("the broker at %s %s", c.address, r.why)
	}
	if errors.Is(err, errNotNSQ) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("what answers at %s does not speak NSQ's protocol: %w", c.address, err)
	}
	return fmt.Errorf("the broker at %s: %w", c.address, plain(err))
}

// greet says who we are and what we want, and shows the secret.
func (c *conn) greet(ctx context.Context, a access, lease time.Duration) error {
	hostname, _ := os.Hostname()
	identity := map[string]any{
		"client_id": hostname, "hostname": hostname, "user_agent": "millrace", "feature_negotiation": true,
		"heartbeat_interval": heartbeat.Milliseconds(), "output_buffer_timeout": outputTimeout.Milliseconds(),
		"tls_v1": a.tls != nil,
	}
	if lease > 0 {
		identity["msg_timeout"] = lease.Milliseconds()
	}
	command, err := gonsq.Identify(identity)
	if err != nil {
		return err
	}
	if _, err := c.net.Write(gonsq.MagicV2); err != nil {
		return err
	}
	told, err := c.ask(command)
	if err != nil {
		if lease > 0 && strings.Contains(err.Error(), "msg timeout") {
			return refused("does not give a lease of %v: see its --max-msg-timeout", lease)
		}
		return err
	}
	if err := json.Unmarshal(told, &c.terms); err != nil {
		return refused("is too old: it does not negotiate features")
	}
	switch {
	case a.tls != nil && !c.terms.TLS:
		return refused("offers no TLS: leave out tls and ca, or give it a certificate")
	case a.tls != nil:
		if err := c.encrypt(ctx, a.tls); err != nil {
			return err
		}
	}
	if !c.terms.Auth {
		return nil
	}
	if a.secret == "" {
		return refused("wants a token: set $%s, or write ?secret=…", tokenVariable)
	}
	if command, err = gonsq.Auth(a.secret); err != nil {
		return err
	}
	if _, err = c.ask(command); err != nil && strings.Contains(err.Error(), "TLS required") {
		return refused("wants TLS: write ?tls=true, and ca=FILE unless the system knows who signed its certificate")
	}
	return err
}

// encrypt upgrades the connection to TLS.
func (c *conn) encrypt(ctx context.Context, config *tls.Config) error {
	config = config.Clone()
	config.ServerName, _, _ = net.SplitHostPort(c.address)
	secure := tls.Client(c.net, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		var alert tls.AlertError
		if tlsFault := (*tls.CertificateVerificationError)(nil); errors.As(err, &tlsFault) || errors.As(err, &alert) {
			return refused("and we do not agree on TLS: %v", err)
		}
		return fmt.Errorf("TLS: %w", err)
	}
	c.net = secure
	return c.wantOK()
}

func (c *conn) wantOK() error {
	if told, err := c.answer(); err != nil {
		return err
	} else if string(told) != nsqwire.OK {
		return fmt.Errorf("it says %q instead of OK", told)
	}
	return nil
}

// ask sends a command of the greeting and returns the answer.
func (c *conn) ask(command *gonsq.Command) ([]byte, error) {
	var b bytes.Buffer
	if _, err := command.WriteTo(&b); err != nil {
		return nil, err
	}
	if _, err := c.net.Write(b.Bytes()); err != nil {
		return nil, err
	}
	return c.answer()
}

// maxGreeting is the largest answer in the greeting that is believed to be one.
const maxGreeting = 64 << 10

// answer reads one frame, and nothing behind it.
func (c *conn) answer() ([]byte, error) {
	frame := make([]byte, 8)
	if _, err := io.ReadFull(c.net, frame); err != nil {
		return nil, err
	}
	kind, data, _, need := nsqwire.CutFrame(frame)
	if need < 0 || need > maxGreeting {
		return nil, errNotNSQ
	}
	if need > 0 {
		frame = append(frame, make([]byte, need-len(frame))...)
		if _, err := io.ReadFull(c.net, frame[8:]); err != nil {
			return nil, err
		}
		kind, data, _, _ = nsqwire.CutFrame(frame)
	}
	if kind == nsqwire.FrameError {
		return nil, c.denied(string(data))
	}
	return data, nil
}

// denied is the error of an error frame in the greeting.
func (c *conn) denied(text string) error {
	code, _, _ := strings.Cut(text, " ")
	switch code {
	case nsqwire.AuthFailed, nsqwire.Unauthorized:
		return refused("does not accept our token: %s", text)
	case nsqwire.BadBody:
		return refused("does not take our terms: %s", text)
	}
	return refused("does not let us in: %s", text)
}

// subscribe asks for messages of the channel, which the broker creates if need be.
func (c *conn) subscribe(topic, channel string) error {
	_ = c.net.SetDeadline(time.Now().Add(greeting))
	defer func() { _ = c.net.SetDeadline(time.Time{}) }()
	var b bytes.Buffer
	if _, err := gonsq.Subscribe(topic, channel).WriteTo(&b); err != nil {
		return err
	}
	c.out.add(b.Bytes())
	for {
		kind, data, err := c.in.next()
		switch {
		case err != nil:
			return fmt.Errorf("the broker at %s: %w", c.address, err)
		case kind == nsqwire.FrameError:
			code, _, _ := strings.Cut(string(data), " ")
			if code == nsqwire.SubFailed { // it may be about to close, or be deleting
				return fmt.Errorf("the broker at %s: %s", c.address, data)
			}
			return refused("the broker at %s does not let us subscribe: %s", c.address, data)
		case string(data) == nsqwire.OK:
			return nil
		case string(data) == nsqwire.Heartbeat:
			c.out.add(nop)
		}
	}
}

var nop = []byte("NOP\n")

// bye has the node send nothing more. It answers CLOSE_WAIT then.
func (c *conn) bye() {
	c.leaving.Store(true)
	_ = c.net.SetDeadline(time.Now().Add(farewell))
	c.out.add([]byte("CLS\n"))
}

// finish ends the connection when all that was sent has been read: were it closed while
// there is something to read, what was sent could be lost.
func (c *conn) finish() {
	c.out.close()
	_ = c.net.SetReadDeadline(time.Now().Add(farewell))
	if half, ok := c.net.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, c.net)
	}
	_ = c.net.Close()
}

// close ends the connection, at once. What was sent may not arrive.
func (c *conn) close() {
	_ = c.net.Close()
	c.out.close()
}
