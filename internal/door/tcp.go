package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/millrace/millrace/internal/nsqwire"
)

// ServeTCP serves the clients that connect to the listener, which it closes when the
// context ends. It returns when every connection has ended: nil if the context did, else
// what made it impossible to accept more.
func (d *Door) ServeTCP(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = ln.Close()
	})
	var clients clients
	err := d.accept(ctx, ln, &clients)
	cancel()
	clients.end()
	if !stop() {
		<-closed
	} else {
		_ = ln.Close()
	}
	return err
}

// accept accepts connections until the context ends, or the listener fails.
func (d *Door) accept(ctx context.Context, ln net.Listener, clients *clients) error {
	var wait time.Duration
	for {
		raw, err := ln.Accept()
		switch {
		case err == nil:
			wait = 0
			clients.serve(ctx, d, raw)
		case ctx.Err() != nil:
			return nil
		case outOfFiles(err):
			// Not for lack of a listener: connections that end will make room.
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			d.cfg.Logger.Warn("cannot accept a connection", "error", err, "retry", wait)
			pause(ctx, wait)
		default:
			return fmt.Errorf("accept connections on %s: %w", ln.Addr(), err)
		}
	}
}

func outOfFiles(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// pause waits, but no longer than the context.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// clients are the connections that one ServeTCP has accepted.
type clients struct {
	running sync.WaitGroup
	mu      sync.Mutex // guards open
	open    map[net.Conn]struct{}
}

// serve serves a connection in a goroutine of its own.
func (cs *clients) serve(ctx context.Context, d *Door, raw net.Conn) {
	c := d.newConn(ctx, raw)
	if most := d.cfg.MaxConnections; !d.enter(c, most) {
		d.cfg.Logger.Warn("too many connections", "client", raw.RemoteAddr(), "limit", most)
		_ = c.out.write(nsqwire.AppendFrame(nil, nsqwire.FrameError,
			refusal(nsqwire.Invalid, "too many connections, the limit is %d", most).Error()), nil)
		_ = raw.Close()
		return
	}
	cs.mu.Lock()
	if cs.open == nil {
		cs.open = make(map[net.Conn]struct{})
	}
	cs.open[raw] = struct{}{}
	cs.mu.Unlock()
	cs.running.Go(func() {
		c.serve()
		cs.mu.Lock()
		delete(cs.open, raw)
		cs.mu.Unlock()
		d.exit(c)
	})
}

// end closes the connections and waits for those that serve them.
func (cs *clients) end() {
	cs.mu.Lock()
	for raw := range cs.open {
		_ = raw.Close()
	}
	cs.mu.Unlock()
	cs.running.Wait()
}

// enter counts a connection, unless there are most of them already.
func (d *Door) enter(c *conn, most int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if most > 0 && len(d.conns) >= most {
		return false
	}
	d.conns[c] = struct{}{}
	return true
}

func (d *Door) exit(c *conn) {
	d.mu.Lock()
	delete(d.conns, c)
	d.mu.Unlock()
}

// subscribing counts a client of a channel, unless there are most of them already.
func (d *Door) subscribing(ch channelName, most int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if most > 0 && d.consumers[ch] >= most {
		return false
	}
	d.consumers[ch]++
	return true
}

func (d *Door) unsubscribed(ch channelName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.consumers[ch]--; d.consumers[ch] == 0 {
		delete(d.consumers, ch)
	}
}
