package door

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// patience is how long tests wait for what is to come at once.
const patience = 10 * time.Second

// tcpDoor is a door over TCP with a broker behind it.
type tcpDoor struct {
	*Door
	t    testing.TB
	addr string
	stop func() // ends ServeTCP, and waits for it
}

// serveTCP opens a door on loopback to a broker in memory.
func serveTCP(t testing.TB, cfg Config) *tcpDoor {
	t.Helper()
	b, err := broker.Open(broker.Options{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return serveTCPOf(t, b, cfg)
}

func serveTCPOf(t testing.TB, b *broker.Broker, cfg Config) *tcpDoor {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &tcpDoor{Door: New(b, cfg), t: t, addr: ln.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.ServeTCP(ctx, ln) }()
	d.stop = func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("ServeTCP: %v", err)
			}
			ended <- nil
		case <-time.After(patience):
			t.Error("ServeTCP does not end")
		}
	}
	t.Cleanup(d.stop)
	return d
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// client is a client that says what tests tell it to, byte by byte.
type client struct {
	net.Conn
	t  testing.TB
	in *bufio.Reader
}

func (d *tcpDoor) connect() *client {
	d.t.Helper()
	raw, err := net.Dial("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = raw.Close() })
	return newClient(d.t, raw)
}

// dial connects and sends the magic.
func (d *tcpDoor) dial() *client {
	d.t.Helper()
	c := d.connect()
	c.send("  V2")
	return c
}

func newClient(t testing.TB, raw net.Conn) *client {
	_ = raw.SetDeadline(time.Now().Add(patience))
	return &client{Conn: raw, t: t, in: bufio.NewReader(raw)}
}

func (c *client) send(parts ...string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, strings.Join(parts, "")); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// frame returns the next frame: for a response its text, for an error its text behind
// "!", for a message "attempt:body". Heartbeats are passed over. "" is the end.
func (c *client) frame() string {
	c.t.Helper()
	for {
		kind, data, err := c.raw()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
			return ""
		}
		if err != nil {
			c.t.Fatalf("read a frame: %v", err)
		}
		switch {
		case kind == 2 && len(data) >= 26:
			return fmt.Sprintf("%d:%s", binary.BigEndian.Uint16(data[8:]), data[26:])
		case kind == 1:
			return "!" + string(data)
		case kind == 0 && string(data) != "_heartbeat_":
			return string(data)
		case kind > 2:
			c.t.Fatalf("a frame of type %d", kind)
		}
	}
}

// raw returns the next frame's type and data.
func (c *client) raw() (uint32, []byte, error) {
	var header [8]byte
	if _, err := io.ReadFull(c.in, header[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(header[:])
	if size < 4 || size > 1<<26 {
		return 0, nil, fmt.Errorf("a frame of %d bytes", size)
	}
	data := make([]byte, size-4)
	_, err := io.ReadFull(c.in, data)
	return binary.BigEndian.Uint32(header[4:]), data, err
}

// delivered is a message as a client gets it.
type delivered struct {
	id, body  string
	attempts  uint16
	timestamp int64
}

// message returns the next frame, which must be a message.
func (c *client) message() delivered {
	c.t.Helper()
	for {
		kind, data, err := c.raw()
		switch {
		case err != nil:
			c.t.Fatalf("read a message: %v", err)
		case kind == 0 && string(data) == "_heartbeat_":
		case kind != 2 || len(data) < 26:
			c.t.Fatalf("a frame of type %d with %q, want a message", kind, data)
		default:
			return delivered{
				id: string(data[10:26]), body: string(data[26:]),
				attempts: binary.BigEndian.Uint16(data[8:]), timestamp: int64(binary.BigEndian.Uint64(data)), //nolint:gosec // as sent
			}
		}
	}
}

// want fails the test unless these are the next frames.
func (c *client) want(frames ...string) {
	c.t.Helper()
	for _, want := range frames {
		if got := c.frame(); got != want {
			c.t.Fatalf("got %q, want %q", shorten(got), shorten(want))
		}
	}
}

// wantEnd fails the test unless the broker closes the connection next.
func (c *client) wantEnd() {
	c.t.Helper()
	if got := c.frame(); got != "" {
		c.t.Fatalf("got %q, want the end of the connection", shorten(got))
	}
}

// wantNothing fails the test if a frame comes within a moment. Nothing can be read after.
func (c *client) wantNothing() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if kind, data, err := c.raw(); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("got a frame of type %d with %q (%v), want nothing", kind, data, err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
}

func shorten(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}

// sized is s with its size before it.
func sized(s string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s //nolint:gosec // short
}

// be32 is a number as it goes over the wire.
func be32(n int) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(n))) //nolint:gosec // tests want it to wrap
}

func pub(topic, body string) string { return "PUB " + topic + "\n" + sized(body) }

func mpub(topic string, bodies ...string) string {
	batch := be32(len(bodies))
	for _, b := range bodies {
		batch += sized(b)
	}
	return "MPUB " + topic + "\n" + sized(batch)
}

func identify(json string) string { return "IDENTIFY\n" + sized(json) }

// depth returns what a channel holds.
func (d *tcpDoor) depth(topic, channel string) millrace.Depth {
	d.t.Helper()
	depth, err := d.broker.Depth(topic, channel)
	if err != nil {
		d.t.Fatal(err)
	}
	return depth
}

// eventually waits until the claim holds.
func eventually(t testing.TB, claim string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in %v it did not come true that %s", patience, claim)
		}
	}
}
