package door

import (
	"io"
	"net"
	"time"

	"github.com/millrace/millrace/internal/nsqwire"
)

// output is the way to the client. The goroutine that reads commands writes responses and
// heartbeats there, the pump messages; each has buffers of its own.
type output struct {
	turn     chan struct{} // holds a token while somebody writes
	raw      net.Conn
	w        io.Writer     // raw, or what encrypts and compresses on the way there
	compress flusher       // nil if nothing does that keeps bytes back
	patience time.Duration // how long a write may take; 0: for ever
	deadline time.Time     // as raw has it
}

type flusher interface{ Flush() error }

// write writes frames: those in head, the last of which tail completes.
func (o *output) write(head, tail []byte) error {
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	o.hurry()
	if _, err := o.w.Write(head); err != nil {
		return err
	}
	if len(tail) > 0 {
		if _, err := o.w.Write(tail); err != nil {
			return err
		}
	}
	if o.compress != nil {
		return o.compress.Flush()
	}
	return nil
}

// hurry gives a write time until patience has passed, or up to a quarter more, so that
// the deadline need not be moved for each.
func (o *output) hurry() {
	if o.patience == 0 {
		return
	}
	now := time.Now()
	if o.deadline.Sub(now) < o.patience {
		o.deadline = now.Add(o.patience + o.patience/4)
		_ = o.raw.SetWriteDeadline(o.deadline)
	}
}

// setPatience changes how long a write may take.
func (o *output) setPatience(d time.Duration) {
	o.patience, o.deadline = d, time.Time{}
	if d == 0 {
		_ = o.raw.SetWriteDeadline(time.Time{})
	}
}

// How many bytes of responses wait for the end of the input that is there, and how large
// a buffer is kept for them.
const (
	maxResponses  = 16 << 10
	keepResponses = 1 << 10
)

// respond adds a frame to the responses that are written when there is no more input.
func (c *conn) respond(t nsqwire.FrameType, data string) {
	c.responses = nsqwire.AppendFrame(c.responses, t, data)
}

// flushMany writes the responses if they are many.
func (c *conn) flushMany() error {
	if len(c.responses) > maxResponses {
		return c.flush()
	}
	return nil
}

// flush writes the responses.
func (c *conn) flush() error {
	if len(c.responses) == 0 {
		return nil
	}
	err := c.out.write(c.responses, nil)
	if cap(c.responses) <= keepResponses {
		c.responses = c.responses[:0]
	} else {
		c.responses = nil
	}
	return err
}
