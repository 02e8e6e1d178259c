package nsq

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/nsqwire"
)

// source is a subscription's part at one node. Its goroutine keeps a connection, and owns
// what is not marked otherwise.
type source struct {
	sub    *subscription
	node   *node
	cancel context.CancelFunc // ends run
	space  millrace.Headers   // that headers are put into

	// What follows is guarded by sub.mu.
	conn    *conn // nil while there is none
	why     error // why there is none; nil before the first try
	hung    bool  // nothing that comes by conn counts any more
	longest time.Duration
	out     []byte // commands to be sent
	portion
}

// addSource begins to consume from a node, unless the subscription does.
func (s *subscription) addSource(n *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.sources {
		if src.node == n {
			return
		}
	}
	if s.why != nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	src := &source{sub: s, node: n, cancel: cancel}
	s.sources = append(s.sources, src)
	s.routines.Go(func() { src.run(ctx) })
}

// dropSource ends what addSource began.
func (s *subscription) dropSource(n *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, src := range s.sources {
		if src.node == n {
			src.cancel()
			s.sources = append(s.sources[:i:i], s.sources[i+1:]...)
			return
		}
	}
}

// run connects to the node, again and again, until ctx ends.
func (src *source) run(ctx context.Context) {
	for try := 0; ctx.Err() == nil; try++ {
		before := src.node.current()
		c, err := src.open(ctx)
		if err != nil {
			src.set(nil, err)
		} else {
			try = 0
			stop := context.AfterFunc(ctx, func() {
				if !c.leaving.Load() {
					_ = c.net.Close()
				}
			})
			src.set(c, nil)
			switch err = src.read(c); {
			case errors.Is(err, errBye):
				c.hasty.Store(true)
				_ = src.read(c) // what nsqd was about to send
				c.finish()
			case c.leaving.Load() && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed)):
				src.sub.unheard(src.node)
			}
			stop()
			src.set(nil, err)
			c.close()
			src.await(ctx, before)
		}
		if !backoff(ctx, try) {
			return
		}
	}
}

// ask asks the node about the channel.
func (src *source) ask(ctx context.Context) (stats, error) {
	ctx, cancel := context.WithTimeout(ctx, apiPatience)
	defer cancel()
	return src.sub.broker.api.stats(ctx, src.node.at, src.sub.topic, src.sub.channel)
}

func (src *source) open(ctx context.Context) (*conn, error) {
	c, err := connect(ctx, src.node.at.tcp, src.sub.broker.access, src.sub.lease)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.net.Close() })
	err = c.subscribe(src.sub.topic, src.sub.channel)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// await is called when a connection has ended: the channel may have been deleted. Then, if
// the subscription still has others, it waits until the node has the topic again. before is
// the node's other connection while this one lasted. If that has ended too the node was
// stopped, and may have forgotten what was not to be kept.
func (src *source) await(ctx context.Context, before *conn) {
	if millrace.Ephemeral(src.sub.channel) {
		return // it goes with its last connection: that it has gone says no more
	}
	wait := minBackoff // until it is gone that is being deleted
	for first := true; pause(ctx, wait); first = false {
		wait = time.Second
		now, err := src.ask(ctx)
		if err != nil || now.channel || !first && now.topic || before == nil || src.node.current() != before {
			return
		}
		src.lostChannel()
	}
}

// lostChannel notes that the node has the channel no more. When no other has it either the
// subscription ends.
func (src *source) lostChannel() {
	s := src.sub
	s.mu.Lock()
	over := true
	for _, other := range s.sources {
		over = over && other.conn == nil
	}
	if over {
		s.stop(errDeleted)
		s.cancel()
	}
	s.mu.Unlock()
}

// set takes a connection, or lets go of the one there was, with the leases that came by it.
func (src *source) set(c *conn, why error) {
	s := src.sub
	s.mu.Lock()
	if old := src.conn; old != nil {
		s.leases.lose(old)
	}
	src.conn, src.why, src.hung, src.out = c, why, false, nil
	src.portion = portion{held: src.held}
	if c != nil {
		src.longest = c.terms.longest()
		src.limit = c.terms.MaxReady
		if s.why != nil {
			c.bye()
		}
	}
	s.keeper.joined()
	s.mu.Unlock()
	s.broker.changed()
}

// errBye is returned when the node has let us go.
var errBye = errors.New("it has let us go")

// read handles what the node sends until the connection ends.
func (src *source) read(c *conn) error {
	for {
		kind, data, err := c.in.next()
		if err != nil {
			return err
		}
		switch kind {
		case nsqwire.FrameMessage:
			m, ok := nsqwire.ParseMessage(data)
			if !ok {
				return errNotNSQ
			}
			c.in.keep()
			src.message(&m)
		case nsqwire.FrameError:
			if err := src.failed(string(data)); err != nil {
				return err
			}
		case nsqwire.FrameResponse:
			switch string(data) {
			case nsqwire.Heartbeat:
				c.out.add(nop)
			case nsqwire.CloseWait:
				return errBye
			}
		}
	}
}

// How much memory for headers is allocated at a time: at first, and when many come.
const (
	minSpace = 1 << 10
	maxSpace = 64 << 10
)

func (src *source) message(m *nsqwire.Message) {
	var headers millrace.Headers
	body := m.Payload
	if nsqwire.HasLine(body) {
		// What a line stands for is shorter than the line, but that may be all there is.
		line := bytes.IndexByte(body, '\n') + 1
		if cap(src.space)-len(src.space) < line {
			src.space = make(millrace.Headers, 0, max(line, min(max(minSpace, 2*cap(src.space)), maxSpace)))
		}
		src.space, headers, body = nsqwire.CutHeaders(src.space, body)
	}
	src.sub.arrive(src, m, headers, body)
}

// failed handles an error frame. It returns an error when the node ends the connection.
func (src *source) failed(text string) error {
	words := strings.Fields(text) // E_TOUCH_FAILED TOUCH ID failed …
	code := ""
	if len(words) > 0 {
		code = words[0]
	}
	told := nsqwire.Error{Code: code}
	if told.Fatal() {
		return &nodeError{code: code, text: text, node: src.node.at.tcp}
	}
	if code == nsqwire.TouchFailed && len(words) > 2 {
		src.sub.touchFailed(src, []byte(words[2]))
	}
	return nil
}

// command adds FIN or TOUCH of a message to what flush sends. The caller holds sub.mu.
func (src *source) command(verb string, id [nsqwire.IDLen]byte) {
	src.out = append(append(append(src.out, verb...), id[:]...), '\n')
}

// giveBack adds REQ of a message to what flush sends. The caller holds sub.mu.
func (src *source) giveBack(id [nsqwire.IDLen]byte, ms int64) {
	src.out = append(append(append(src.out, "REQ "...), id[:]...), ' ')
	src.out = append(strconv.AppendInt(src.out, ms, 10), '\n')
}

// flush sends what was added. The caller holds sub.mu.
func (src *source) flush() {
	if len(src.out) > 0 && src.conn != nil {
		src.conn.out.add(src.out)
	}
	src.out = src.out[:0]
}

// tell sets the window: how many messages the node may have in flight to us. The caller
// holds sub.mu.
func (src *source) tell(n int) {
	if src.conn == nil || n == src.told {
		return
	}
	src.told = n
	var room [24]byte
	command := strconv.AppendInt(append(room[:0], "RDY "...), int64(n), 10)
	src.conn.out.addReady(append(command, '\n'))
}

// bye takes leave of the node. The caller holds sub.mu.
func (src *source) bye() {
	if src.conn != nil {
		src.conn.bye()
	}
}
