package rabbitmq

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// dialWithin is how long a connection may take, its handshakes included.
	dialWithin = 10 * time.Second
	// dialNext is how long a host may keep silent until another one is tried beside it.
	dialNext = time.Second
	// closeWithin is how long a server may take to let a connection go.
	closeWithin = 2 * time.Second
)

// conn is one connection, from its handshake to its end.
type conn struct {
	*amqp.Connection
	socket *corked
	name   string        // host:port
	dead   chan struct{} // closed when the connection has ended, and why is set
	why    error
	block  atomic.Pointer[blocked] // nil while the server takes what is published
}

// blocked is a time in which the server takes nothing that is published.
type blocked struct {
	reason string
	over   chan struct{} // closed when it is over, or the connection is
}

// dial connects to one of the hosts, beginning with any. The next one is tried when one has
// failed, and also when it keeps silent for a while: nodes that have lost their power, or their
// network, refuse nothing. The first that answers is it.
//
// A heartbeat of the server that is late by twice the interval ends the connection, on either side.
func (a *address) dial(ctx context.Context, purpose string, heartbeat time.Duration) (*conn, error) {
	tries, cancel := context.WithCancel(ctx)
	var routines sync.WaitGroup
	answers := make(chan dialed, len(a.hosts))
	defer func() {
		cancel()
		routines.Wait()
		close(answers)
		for late := range answers {
			if late.conn != nil {
				late.conn.end()
			}
		}
	}()
	var all error
	from, begun := rand.IntN(len(a.hosts)), 0
	next := time.NewTimer(0)
	defer next.Stop()
	for failed := 0; failed < len(a.hosts); {
		select {
		case <-next.C:
			if begun < len(a.hosts) {
				host := a.hosts[(from+begun)%len(a.hosts)]
				begun++
				routines.Go(func() {
					c, err := a.dialHost(tries, host, purpose, heartbeat)
					answers <- dialed{host, c, err}
				})
				next.Reset(dialNext)
			}
		case d := <-answers:
			if d.err == nil {
				return d.conn, nil
			}
			failed++
			if ctx.Err() == nil {
				all = errors.Join(all, a.explain(d.host, d.err))
			}
			next.Reset(0)
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), all)
		}
	}
	return nil, all
}

// dialed is how it went with a host.
type dialed struct {
	host string
	conn *conn
	err  error
}

func (a *address) dialHost(ctx context.Context, host, purpose string, heartbeat time.Duration) (*conn, error) {
	bounded, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(bounded, "tcp", host)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(bounded, func() { _ = raw.Close() })
	defer stop()
	if a.tls != nil {
		config := a.tls.Clone()
		config.ServerName, _, _ = net.SplitHostPort(host)
		secure := tls.Client(raw, config)
		if err := secure.HandshakeContext(bounded); err != nil {
			_ = raw.Close()
			return nil, err
		}
		raw = secure
	}
	socket := &corked{Conn: raw}
	opened, err := amqp.Open(socket, a.config(purpose, heartbeat))
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	c := &conn{Connection: opened, socket: socket, name: host, dead: make(chan struct{})}
	ended := opened.NotifyClose(make(chan *amqp.Error, 1))
	blocks := opened.NotifyBlocked(make(chan amqp.Blocking, 4))
	go c.watch(ended, blocks)
	if !stop() {
		c.end()
		return nil, context.Cause(bounded)
	}
	return c, nil
}

func (a *address) config(purpose string, heartbeat time.Duration) amqp.Config {
	config := amqp.Config{
		Vhost: a.vhost, Locale: "en_US", FrameSize: 128 << 10,
		Heartbeat: max(time.Second, heartbeat.Truncate(time.Second)),
		SASL:      []amqp.Authentication{&amqp.PlainAuth{Username: a.user, Password: a.password}},
		Properties: amqp.Table{
			"product":         "Millrace",
			"connection_name": fmt.Sprintf("%s[%d] %s", filepath.Base(os.Args[0]), os.Getpid(), purpose),
		},
	}
	if a.external {
		config.SASL = []amqp.Authentication{&amqp.ExternalAuth{}}
	}
	return config
}

// watch follows the connection until it has ended. The library closes both channels then.
func (c *conn) watch(ended <-chan *amqp.Error, blocks <-chan amqp.Blocking) {
	for b := range blocks {
		c.setBlocked(b)
	}
	c.why = errors.New("the connection was closed")
	if err := <-ended; err != nil {
		c.why = err
	}
	c.setBlocked(amqp.Blocking{})
	close(c.dead)
}

func (c *conn) setBlocked(b amqp.Blocking) {
	var now *blocked
	if b.Active {
		now = &blocked{b.Reason, make(chan struct{})}
	}
	if before := c.block.Swap(now); before != nil {
		close(before.over)
	}
}

// end closes the connection, and returns when it has ended.
func (c *conn) end() {
	_ = c.CloseDeadline(time.Now().Add(closeWithin)) // the server notices in any case
	_ = c.socket.Close()
	<-c.dead
}

// version is the server's, 403 for 4.3; 0 when it does not tell.
func (c *conn) version() int64 {
	var major, minor int64
	version, _ := c.Properties["version"].(string)
	_, _ = fmt.Sscanf(version, "%d.%d", &major, &minor)
	return 100*major + minor
}

// explain makes a sentence of why there is no connection to the host.
func (a *address) explain(host string, err error) error {
	var (
		unknown  x509.UnknownAuthorityError
		wrong    x509.HostnameError
		invalid  x509.CertificateInvalidError
		noTLS    tls.RecordHeaderError
		alert    tls.AlertError
		refused  *amqp.Error
		certText = "the certificate of " + host + " is not accepted: %w"
	)
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf(certText+": name its authority's file as ?ca=FILE", err)
	case errors.As(err, &wrong), errors.As(err, &invalid):
		return fmt.Errorf(certText, err)
	case errors.As(err, &noTLS):
		return fmt.Errorf("%s does not speak TLS (%w): write amqp://, or the port for TLS, which usually is 5671", host, err)
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls"),
		// In TLS 1.3 the server looks at it when the client is done, and may be gone before it is
		// heard, or be heard by the library, which then says no more than that it is closed.
		a.tls != nil && a.tls.GetClientCertificate != nil && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, amqp.ErrClosed)):
		return fmt.Errorf("%s does not accept this client's certificate (%w): name another as ?cert=FILE&key=FILE", host, err)
	case errors.As(err, &refused):
		return a.explainRefusal(host, refused)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%s ended the connection at once (%w): is it RabbitMQ, and does this port want TLS (amqps://)?", host, err)
	}
	return fmt.Errorf("cannot reach RabbitMQ at %s: %w", host, err)
}

func (a *address) explainRefusal(host string, e *amqp.Error) error {
	switch e.Code {
	case amqp.AccessRefused:
		if a.external {
			return fmt.Errorf("RabbitMQ at %s does not know the client's certificate: %w", host, forbidden{e})
		}
		return fmt.Errorf("RabbitMQ at %s refuses the user %q: name and password must be right, and guest may come from the server's own machine only: %w", host, a.user, forbidden{e})
	case amqp.NotAllowed, amqp.InvalidPath, amqp.NotFound:
		return fmt.Errorf("RabbitMQ at %s does not let the user %q into the vhost %q: does it exist? %w", host, a.user, a.vhost, forbidden{e})
	case amqp.FrameError, amqp.SyntaxError:
		if a.tls == nil {
			return fmt.Errorf("%s does not answer in AMQP: is it RabbitMQ, and does this port want TLS (amqps://)? %w", host, e)
		}
	}
	return fmt.Errorf("RabbitMQ at %s refuses the connection: %w", host, e)
}

// corked is a socket that can gather what is written to it. The library writes each message
// and each ack by itself, which costs a system call; a batch is written with few.
type corked struct {
	net.Conn
	mu    sync.Mutex // guards the two below, and the order of writes
	buf   []byte
	depth int // how many hold the cork
}

// corkSize is how much is gathered at the most.
const corkSize = 64 << 10

// hold begins to gather. What is gathered is written when everybody who held has released.
func (s *corked) hold() {
	s.mu.Lock()
	s.depth++
	s.mu.Unlock()
}

func (s *corked) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.depth--; s.depth == 0 {
		_ = s.flush() // the next write fails too
	}
}

// Write implements net.Conn.
func (s *corked) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.depth == 0 || len(s.buf)+len(p) > corkSize {
		if err := s.flush(); err != nil {
			return 0, err
		}
		if s.depth == 0 || len(p) > corkSize {
			return s.Conn.Write(p)
		}
	}
	s.buf = append(slices.Grow(s.buf, len(p)), p...)
	return len(p), nil
}

// flush writes what was gathered. The caller holds mu.
func (s *corked) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	_, err := s.Conn.Write(s.buf)
	s.buf = s.buf[:0]
	if err != nil {
		_ = s.Conn.Close() // what comes next would not make sense to the server
	}
	return err
}
