package nsq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/nsqwire"
)

// node is one broker of the fleet. A goroutine keeps a connection to it for publishing.
type node struct {
	broker *Broker
	at     endpoint
	cancel context.CancelFunc // ends run

	mu      sync.Mutex // guards what follows; never held while waiting or calling, but for outbox
	conn    *conn      // nil while there is none
	why     error      // why there is none; nil before the first try
	flights []*flight  // publishes that wait for their answers, in the order they were sent
	limits  limits
}

// flight is a publish that was sent.
type flight struct {
	answers int           // that are still to come
	err     error         // why it failed
	done    chan struct{} // closed when err is set
}

func (f *flight) land(err error) {
	f.err = err
	close(f.done)
}

// errLost is returned when a connection ended before the broker answered: it may have taken
// what was published, or not.
var errLost = errors.New("the connection was lost")

// How long to wait before the next try to connect: it doubles from one to the other.
const (
	minBackoff = 20 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// backoff waits before try n, and returns false when ctx ends meanwhile.
func backoff(ctx context.Context, n int) bool {
	d := min(minBackoff<<min(n, 16), maxBackoff)
	return pause(ctx, d/2+rand.N(d)) //nolint:gosec // nothing secret
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// run connects to the node, again and again, until ctx ends.
func (n *node) run(ctx context.Context) {
	told := false // that it is not there
	for try := 0; ctx.Err() == nil; try++ {
		c, err := n.open(ctx)
		if err == nil {
			if try = 0; told {
				slog.Info("nsq: connected again", "node", n.at.tcp)
				told = false
			}
			n.change(c, nil)
			stop := context.AfterFunc(ctx, func() { _ = c.net.Close() })
			err = n.lost(n.read(c))
			stop()
			c.close()
		}
		n.change(nil, err)
		n.broker.api.client.CloseIdleConnections() // they are not to be trusted either
		if ctx.Err() != nil {
			return
		}
		if !told && n.broker.opened.Load() { // before that, the error of Open says it
			slog.Warn("nsq: not connected, and trying again", "node", n.at.tcp, "error", err)
			told = true
		}
		if !backoff(ctx, try) {
			return
		}
	}
}

// open connects, and makes sure that everything is there that was declared, before
// anything is published.
func (n *node) open(ctx context.Context) (*conn, error) {
	c, err := connect(ctx, n.at.tcp, n.broker.access, 0)
	if err != nil {
		return nil, err
	}
	l := n.broker.api.limits(ctx, n.at)
	n.mu.Lock()
	n.limits = l
	n.mu.Unlock()
	if err := n.broker.declareAll(ctx, n); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// change takes a connection, or lets go of the one there was, with what was under way.
func (n *node) change(c *conn, why error) {
	n.mu.Lock()
	n.conn, n.why = c, why
	lost := n.flights
	n.flights = nil
	n.mu.Unlock()
	for _, f := range lost {
		f.land(errLost)
	}
	n.broker.changed()
}

// read handles what the node says until the connection ends.
func (n *node) read(c *conn) error {
	for {
		kind, data, err := c.in.next()
		switch {
		case err != nil:
			return err
		case kind == nsqwire.FrameError:
			return n.failed(string(data))
		case string(data) == nsqwire.Heartbeat:
			c.out.add(nop)
		default:
			n.answered()
		}
	}
}

// lost is the error of a connection that has ended.
func (n *node) lost(err error) error {
	if told := (*nodeError)(nil); errors.As(err, &told) {
		return err
	}
	return fmt.Errorf("the connection to the broker at %s was lost: %w", n.at.tcp, plain(err))
}

// answered notes that the node has taken what was sent first.
func (n *node) answered() {
	n.mu.Lock()
	var landed *flight
	if len(n.flights) > 0 {
		if n.flights[0].answers--; n.flights[0].answers == 0 {
			landed = n.land()
		}
	}
	n.mu.Unlock()
	if landed != nil {
		landed.land(nil)
	}
}

// land takes the flight that was sent first. The caller holds mu.
func (n *node) land() *flight {
	f := n.flights[0]
	n.flights = slices.Delete(n.flights, 0, 1)
	return f
}

// failed notes that the node refuses what was sent first. It closes the connection then,
// and has done nothing of what was sent later.
func (n *node) failed(text string) error {
	code, _, _ := strings.Cut(text, " ")
	err := &nodeError{code: code, text: text, node: n.at.tcp}
	n.mu.Lock()
	var landed *flight
	if len(n.flights) > 0 {
		landed = n.land()
	}
	n.mu.Unlock()
	if landed != nil {
		landed.land(err)
	}
	return err
}

// nodeError is what a node says of what it does not do.
type nodeError struct{ code, text, node string }

func (e *nodeError) Error() string { return "the broker at " + e.node + " says " + e.text }

// Unwrap returns millrace.ErrRefused, unless it may go better another time.
func (e *nodeError) Unwrap() error {
	if e.publishFailed() {
		return nil
	}
	return millrace.ErrRefused
}

// load is how many publishes wait for an answer; false when the node is not connected.
func (n *node) load() (int, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.flights), n.conn != nil
}

// state is why the node is not connected; nil when it is, or this is not known yet.
func (n *node) state() (connected bool, why error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.conn != nil, n.why
}

// current returns the connection that there is; nil when there is none.
func (n *node) current() *conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.conn
}

// publish sends commands that are answered so many times, and waits for that. The error is
// errLost, a *nodeError, or the cause of ctx; with that it may have been done or not.
func (n *node) publish(ctx context.Context, commands []byte, answers int) error {
	for {
		n.mu.Lock()
		c := n.conn
		if c == nil {
			n.mu.Unlock()
			return errLost
		}
		room := c.out.full()
		if room == nil {
			f := &flight{answers: answers, done: make(chan struct{})}
			n.flights = append(n.flights, f)
			c.out.add(commands)
			n.mu.Unlock()
			select {
			case <-f.done:
				return f.err
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		n.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
