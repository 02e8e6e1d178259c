package crash

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/nsqio/go-nsq"
)

// client is a connection that says exactly what it is told, so that it is known what the
// broker had answered when it died.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
}

// patience is how long a client waits for an answer of a broker that lives.
const patience = 20 * time.Second

func dial(addr string) (*client, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := &client{conn: conn, in: bufio.NewReader(conn), out: bufio.NewWriter(conn)}
	_, _ = c.out.Write(nsq.MagicV2)
	return c, nil
}

func (c *client) close() { _ = c.conn.Close() }

// send puts a command into the buffer.
func (c *client) send(cmd *nsq.Command) { _, _ = cmd.WriteTo(c.out) } // Flush tells what failed

// wants sends what is in the buffer and waits for so many OKs. Messages that come meanwhile
// go to deliver.
func (c *client) wants(oks int, deliver func(*nsq.Message)) error {
	if err := c.out.Flush(); err != nil {
		return err
	}
	for oks > 0 {
		ok, err := c.next(deliver)
		if err != nil {
			return err
		}
		if ok {
			oks--
		}
	}
	return nil
}

// next reads a frame and says whether it was an OK. A message goes to deliver.
func (c *client) next(deliver func(*nsq.Message)) (ok bool, err error) {
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	kind, data, err := c.frame()
	if err != nil {
		return false, err
	}
	switch {
	case kind == nsq.FrameTypeMessage:
		m, err := nsq.DecodeMessage(data)
		if err != nil {
			return false, err
		}
		deliver(m)
	case kind == nsq.FrameTypeError:
		return false, fmt.Errorf("%w: %s", errRefused, data)
	case string(data) == "_heartbeat_":
		c.send(nsq.Nop())
	default:
		return true, nil
	}
	return false, nil
}

// errRefused is an answer that no command of these tests should get.
var errRefused = errors.New("the broker refuses")

func (c *client) frame() (kind int32, data []byte, err error) {
	var header [8]byte
	if _, err = io.ReadFull(c.in, header[:]); err != nil {
		return 0, nil, err
	}
	data = make([]byte, binary.BigEndian.Uint32(header[:])-4)
	_, err = io.ReadFull(c.in, data)
	return int32(binary.BigEndian.Uint32(header[4:])), data, err
}
