package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/millrace/millrace"
)

// The delay before the next try to connect doubles from the first to the other. Half of
// each is random, so that many clients of a server that comes back do not come together.
const firstRedial, maxRedial = 50 * time.Millisecond, 2 * time.Second

// backoff is the delay before try n, from 0.
func backoff(n int) time.Duration {
	d := min(firstRedial<<min(n, 10), maxRedial)
	return d/2 + rand.N(d/2)
}

// link is a connection that comes back by itself, until it is closed.
type link struct {
	dial func(ctx context.Context) (*conn, error)

	ctx      context.Context // ends when the link is closed
	stop     context.CancelCauseFunc
	routines sync.WaitGroup

	mu      sync.Mutex // guards all below
	begun   bool
	now     *conn         // nil while there is none
	trouble error         // why there is none
	changed chan struct{} // closed, and replaced, when one of the two above has changed
}

func newLink(dial func(ctx context.Context) (*conn, error)) *link {
	l := &link{dial: dial, changed: make(chan struct{})}
	l.ctx, l.stop = context.WithCancelCause(context.Background())
	return l
}

// begin keeps the link up from now on. It may start with a connection that there is.
func (l *link) begin(c *conn) {
	l.mu.Lock()
	first := !l.begun && l.ctx.Err() == nil
	l.begun = true
	if first {
		l.now = c
		l.routines.Add(1)
	}
	l.mu.Unlock()
	if first {
		go l.keep(c)
	}
}

// keep connects whenever there is no connection, until the link is closed.
func (l *link) keep(c *conn) {
	defer l.routines.Done()
	for tries := 0; l.ctx.Err() == nil; tries++ {
		var err error
		if c == nil {
			c, err = l.dial(l.ctx)
		}
		if err != nil {
			l.set(nil, err)
			sleep(l.ctx, backoff(tries))
			continue
		}
		tries = 0
		l.set(c, nil)
		select {
		case <-c.dead:
			l.set(nil, fmt.Errorf("the connection to %s was lost: %w", c.name, c.why))
			sleep(l.ctx, backoff(0))
		case <-l.ctx.Done():
		}
		c.end()
		c = nil
	}
	l.set(nil, millrace.ErrClosed)
}

func (l *link) set(c *conn, trouble error) {
	l.mu.Lock()
	l.now, l.trouble = c, trouble
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
}

// get waits for a connection. Returns an error that wraps millrace.ErrClosed when the link
// was closed, or the cause of ctx, with what was waited for.
func (l *link) get(ctx context.Context) (*conn, error) {
	l.begin(nil)
	for {
		l.mu.Lock()
		c, trouble, changed := l.now, l.trouble, l.changed
		l.mu.Unlock()
		switch {
		case l.ctx.Err() != nil:
			return nil, millrace.ErrClosed
		case ctx.Err() != nil:
			return nil, waitedFor(ctx, trouble)
		case c != nil && !c.IsClosed():
			return c, nil
		case c != nil:
			changed = c.dead // the next moment it is known to be lost
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-l.ctx.Done():
		}
		if c != nil { // give keep the time to notice
			sleep(ctx, time.Millisecond)
		}
	}
}

// waitedFor says what ctx was too short for.
func waitedFor(ctx context.Context, trouble error) error {
	if trouble == nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w, while waiting for a connection: %w", context.Cause(ctx), trouble)
}

// close ends the connection for good.
func (l *link) close() {
	l.mu.Lock()
	l.stop(millrace.ErrClosed)
	l.mu.Unlock()
	l.routines.Wait()
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// isClosed says whether err is only that what was used has been closed.
func isClosed(err error) bool { return errors.Is(err, millrace.ErrClosed) }
