package task

import (
	"bytes"
	"fmt"
	"slices"
)

// readSize is the room that is made for one read: what a pipe holds.
const readSize = 64 << 10

// capture collects what a command writes on standard output, up to a limit.
type capture struct {
	buf   []byte
	limit int
	over  bool // more came than limit; what buf holds is then of no use
}

// room returns where to read the next bytes into: always some bytes.
func (c *capture) room() []byte {
	if c.over {
		c.buf = c.buf[:0]
	}
	if cap(c.buf)-len(c.buf) < 1<<10 {
		c.buf = slices.Grow(c.buf, max(readSize, len(c.buf)))
	}
	return c.buf[len(c.buf):cap(c.buf)]
}

// add counts n bytes that were read into room.
func (c *capture) add(n int) {
	c.buf = c.buf[:len(c.buf)+n]
	c.over = c.over || len(c.buf) > c.limit
}

// reset leaves the capture ready for the next command.
func (c *capture) reset() {
	if cap(c.buf) > readSize {
		c.buf = nil
	}
	c.buf, c.over = c.buf[:0], false
}

// take returns what was collected; the capture is then of no use until reset. A small result is copied, so that the buffer can be used again and a result
// that waits to be published does not hold 64 KiB; a large one goes with the buffer.
func (c *capture) take() []byte {
	if len(c.buf) <= readSize/2 {
		return bytes.Clone(c.buf)
	}
	out := c.buf
	c.buf = nil
	return slices.Clip(out)
}

// tail keeps the end of what a command writes on standard error.
type tail struct {
	buf     []byte
	limit   int
	dropped int // bytes that are no longer in buf
}

// Write is add, for io.Copy.
func (t *tail) Write(p []byte) (int, error) {
	t.add(p)
	return len(p), nil
}

func (t *tail) add(p []byte) {
	t.buf = append(t.buf, p...)
	// Moving the end to the front only when twice as much has come makes it cost
	// one copy of each byte.
	if over := len(t.buf) - t.limit; over > t.limit {
		t.dropped += over
		t.buf = t.buf[:copy(t.buf, t.buf[over:])]
	}
}

// last returns the last n bytes, or what there is. They are valid until the next add.
func (t *tail) last(n int) []byte { return t.buf[max(0, len(t.buf)-n):] }

// text returns the kept end, at most limit bytes, after a line that says how much is
// missing before it.
func (t *tail) text() string {
	end := t.last(t.limit)
	if missing := t.dropped + len(t.buf) - len(end); missing > 0 {
		return fmt.Sprintf("[%d bytes before this are left out]\n%s", missing, end)
	}
	return string(end)
}

func (t *tail) reset() {
	if cap(t.buf) > readSize {
		t.buf = nil
	}
	t.buf, t.dropped = t.buf[:0], 0
}
