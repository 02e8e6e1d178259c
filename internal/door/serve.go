package door

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// drainWithin is how long requests that have begun may go on when the door closes.
const drainWithin = 5 * time.Second

// ServeHTTP serves HTTP to those that connect to the listener, which it closes when the
// context ends. It returns when every connection has ended: nil if the context did, else
// what made it impossible to accept more.
func (d *Door) ServeHTTP(ctx context.Context, ln net.Listener) error {
	return d.serveHTTP(ctx, d.limited(ln), d.Handler(false))
}

// ServeHTTPS is ServeHTTP over TLS, with Config.TLS.
func (d *Door) ServeHTTPS(ctx context.Context, ln net.Listener) error {
	return d.serveHTTP(ctx, tls.NewListener(d.limited(ln), d.cfg.TLS), d.Handler(true))
}

// Serve does what the doors do without being asked: it keeps every nsqlookupd told of the
// broker's topics and channels, and pushes counts to statsd. It returns when the context
// has ended and all that has stopped: nil.
func (d *Door) Serve(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	if d.cfg.Statsd.Address != "" {
		running.Go(func() { d.pushStats(ctx) })
	}
	d.registrar.serve(ctx)
	return nil
}

func (d *Door) serveHTTP(ctx context.Context, ln net.Listener, h http.Handler) error {
	var open sync.WaitGroup // connections
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerWithin,
		IdleTimeout:       idleWithin,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(&complaints{d.cfg.Logger}, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed:
				open.Done()
			}
		},
	}
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainWithin)
		defer cancel()
		_ = srv.Shutdown(drain)
	})
	err := srv.Serve(ln)
	if !stop() {
		<-drained
	}
	_ = srv.Close() // what was not drained in time
	open.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve HTTP on %s: %w", ln.Addr(), err)
}

func (d *Door) limited(ln net.Listener) net.Listener {
	return &gate{Listener: ln, most: d.cfg.MaxConnections}
}

// gate is a listener that closes what is more than most connections; 0 means no limit.
type gate struct {
	net.Listener
	most int

	mu   sync.Mutex // guards what follows
	open int
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if g.enter() {
			return &gated{Conn: conn, gate: g}, nil
		}
		_ = conn.Close()
	}
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.most > 0 && g.open >= g.most {
		return false
	}
	g.open++
	return true
}

// gated is a connection that has passed the gate.
type gated struct {
	net.Conn
	gate *gate
	once sync.Once
}

// Close implements net.Conn.
func (c *gated) Close() error {
	c.once.Do(func() {
		c.gate.mu.Lock()
		c.gate.open--
		c.gate.mu.Unlock()
	})
	return c.Conn.Close()
}

// complaints is where net/http writes what it has to say of clients that misbehave.
type complaints struct{ log *slog.Logger }

// Write implements io.Writer.
func (c *complaints) Write(line []byte) (int, error) {
	c.log.Warn("http", "says", string(line[:max(len(line)-1, 0)]))
	return len(line), nil
}
