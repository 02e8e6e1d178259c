package door

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"github.com/millrace/millrace/internal/nsqwire"
)

const (
	minInput = 512      // what an idle connection has
	maxInput = 64 << 10 // what a busy one gets without having to: a longer command needs more
	// inputReview is the time between two looks at whether a buffer is larger than needed.
	inputReview = 10 * time.Second
)

// input is a buffer that commands are read into and taken apart in. It grows while reads
// fill it, and with commands that do not fit, as fast as their bytes arrive, whatever
// size they say to have; it shrinks when it was not needed for a while.
type input struct {
	buf      []byte
	r, w     int  // buf[r:w] was read and not consumed
	filled   bool // the last read left no room
	spoke    bool // a command line was consumed since the last read: a sign of life
	peak     int  // the most that was in it since it was last looked at
	reviewed time.Time
}

func (in *input) unread() []byte { return in.buf[in.r:in.w] }

func (in *input) consume(n int) []byte {
	b := in.buf[in.r : in.r+n : in.r+n]
	in.r += n
	return b
}

// makeRoom makes room to read into, for at least one byte. Slices of the buffer that were
// handed out are void.
func (in *input) makeRoom(now time.Time) {
	if in.r == in.w {
		in.r, in.w = 0, 0
		in.review(now)
	}
	size := len(in.buf)
	switch {
	case size == 0:
		size = minInput
	case in.r == 0 && in.w == size, in.filled && size < maxInput:
		size *= 2
	case in.w < size && in.r == 0:
		return
	}
	to := in.buf
	if size > len(to) {
		to = make([]byte, size)
	}
	in.w = copy(to, in.buf[in.r:in.w])
	in.r, in.buf = 0, to
}

// review lets go of a buffer that was much too large lately.
func (in *input) review(now time.Time) {
	if now.Sub(in.reviewed) < inputReview {
		return
	}
	if len(in.buf) > minInput && in.peak <= len(in.buf)/4 {
		in.buf = make([]byte, max(minInput, 2*in.peak))
	}
	in.reviewed, in.peak, in.filled = now, 0, false
}

// readFrom reads once.
func (in *input) readFrom(r io.Reader) error {
	for range 100 {
		n, err := r.Read(in.buf[in.w:])
		in.w += n
		in.filled = in.w == len(in.buf)
		in.peak = max(in.peak, in.w)
		if n > 0 {
			return nil // an error comes again
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// fill waits for more input. Before it waits, all that was asked is done and answered.
func (c *conn) fill() error {
	if err := c.settle(); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	now := time.Now()
	c.in.makeRoom(now)
	if c.in.spoke {
		c.heartbeat.heard, c.in.spoke = now, false
	}
	return c.in.readFrom(c.source)
}

// line returns the next command line, and consumes it. It is void after fill.
func (c *conn) line() ([]byte, error) {
	searched := 0
	for {
		b := c.in.unread()
		if i := bytes.IndexByte(b[searched:], '\n'); i >= 0 && searched+i < nsqwire.MaxLine {
			c.in.spoke = true
			return c.in.consume(searched + i + 1), nil
		}
		if len(b) >= nsqwire.MaxLine {
			return nil, errLineTooLong
		}
		searched = len(b)
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// part is a part of a command: what the client is told when its bytes end before that.
type part struct{ code, verb, what string }

// await waits until n bytes are there that were not consumed, which are of that part.
func (c *conn) await(n int, of part) error {
	for c.in.w-c.in.r < n {
		if err := c.fill(); err != nil {
			return orCut(err, refusal(of.code, "%s failed to read %s", of.verb, of.what))
		}
	}
	return nil
}

// orCut is cut, unless err is an error for the client itself: that of a command before
// this one, which was settled while this one waited for its bytes.
func orCut(err error, cut *nsqwire.Error) error {
	var told *nsqwire.Error
	if errors.As(err, &told) {
		return err
	}
	return cut
}

// size reads the size of a body.
func (c *conn) size(of part) (int32, error) {
	if err := c.await(4, of); err != nil {
		return 0, err
	}
	return int32(binary.BigEndian.Uint32(c.in.consume(4))), nil //nolint:gosec // negative is an error of the client's
}

// body reads a body of that size, and consumes it. It is void after fill.
func (c *conn) body(size int32, of part) ([]byte, error) {
	if err := c.await(int(size), of); err != nil {
		return nil, err
	}
	return c.in.consume(int(size)), nil
}
