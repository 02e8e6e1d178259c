package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// listen prints the address it listens on, and serves each connection.
func listen(serve func(net.Conn) error) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			_ = serve(conn) // until the client goes
			_ = conn.Close()
		}()
	}
}

// frame is a frame of NSQ's protocol.
func frame(kind uint32, data []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(data)+4))
	return append(binary.BigEndian.AppendUint32(out, kind), data...)
}

// commands reads commands and calls each with its line; a body, where the command has one,
// is passed over.
func commands(conn net.Conn, do func(line []byte, more bool) error) error {
	in := bufio.NewReaderSize(conn, 1<<20)
	if _, err := in.Discard(4); err != nil { // the magic
		return err
	}
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		name, _, _ := bytes.Cut(line[:len(line)-1], []byte(" "))
		switch string(name) {
		case "IDENTIFY", "PUB", "MPUB":
			line = bytes.Clone(name)
			var size [4]byte
			if _, err := io.ReadFull(in, size[:]); err != nil {
				return err
			}
			if _, err := in.Discard(int(binary.BigEndian.Uint32(size[:]))); err != nil {
				return err
			}
		}
		if err := do(line, in.Buffered() > 0); err != nil {
			return err
		}
	}
}

// serveOK is the ceiling of publishing: everything is answered by OK.
func serveOK([]string) error {
	ok := frame(0, []byte("OK"))
	return listen(func(conn net.Conn) error {
		out := bufio.NewWriter(conn)
		return commands(conn, func(_ []byte, more bool) error {
			if _, err := out.Write(ok); err != nil || more {
				return err
			}
			return out.Flush()
		})
	})
}

// preparedBatch is how many prepared messages are sent together.
const preparedBatch = 500

// prepared is a buffer of messages, and message how long each is.
func prepare() (prepared []byte, message int) {
	one := frame(2, make([]byte, 8+2+16+messageSize))
	return bytes.Repeat(one, preparedBatch), len(one)
}

// serveMessages is the ceiling of consuming: as many messages as the client is ready for,
// from a buffer that was written before.
func serveMessages([]string) error { return serveReaders(nil) }

// servePassing is the ceiling of publishing and consuming at the same time: batches are
// answered by OK, and for each message that was published a prepared one is sent.
func servePassing([]string) error { return serveReaders(&stock{more: make(chan struct{}, 1)}) }

// stock is how many messages were published and not sent.
type stock struct {
	n    atomic.Int64
	more chan struct{} // there is something again
}

func (s *stock) add(n int) {
	s.n.Add(int64(n))
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// take takes up to n of the stock, and waits until there is something. Without a stock
// there is always enough.
func (s *stock) take(n int, gone <-chan struct{}) int {
	for s != nil {
		if has := s.n.Load(); has > 0 {
			k := min(int64(n), has)
			if s.n.CompareAndSwap(has, has-k) {
				if k < has {
					s.add(0)
				}
				return int(k)
			}
			continue
		}
		select {
		case <-s.more:
		case <-gone:
			return 0
		}
	}
	return n
}

func serveReaders(published *stock) error {
	prepared, message := prepare()
	ok := frame(0, []byte("OK"))
	return listen(func(conn net.Conn) error {
		ready := make(chan int, 1<<16) // how many more may be sent
		gone := make(chan struct{})
		defer close(gone)
		go func() {
			for n := 0; ; {
				if n == 0 {
					select {
					case n = <-ready:
					case <-gone:
						return
					}
				}
				for more := true; more && n < preparedBatch; {
					select {
					case k := <-ready:
						n += k
					default:
						more = false
					}
				}
				k := published.take(min(n, preparedBatch), gone)
				if _, err := conn.Write(prepared[:k*message]); err != nil || k == 0 {
					return
				}
				n -= k
			}
		}()
		finished := 0
		return commands(conn, func(line []byte, more bool) error {
			switch {
			case bytes.HasPrefix(line, []byte("FIN ")):
				finished++
			case bytes.HasPrefix(line, []byte("RDY ")):
				n := 0
				_, err := fmt.Sscanf(string(line), "RDY %d", &n)
				ready <- n
				return err
			default:
				if published != nil && string(line) == "MPUB" {
					published.add(batchSize)
				}
				_, err := conn.Write(ok)
				return err
			}
			if !more {
				ready <- finished
				finished = 0
			}
			return nil
		})
	})
}

// appending is the ceiling of publishing that syncs: as many bytes as the batch's bodies
// have, appended to a file and synced, over and over, by one.
func (s *setup) appending(batch int) func(context.Context) (map[string]float64, error) {
	return func(context.Context) (map[string]float64, error) {
		f, err := os.Create(filepath.Join(s.dir, "appended"))
		if err != nil {
			return nil, err
		}
		rate, err := appendTo(f, make([]byte, batch*messageSize), s.length)
		return single(rate * float64(batch)), errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
}

// appendTo appends and syncs for a time, and returns how often in a second.
func appendTo(f *os.File, bytes []byte, length time.Duration) (float64, error) {
	begun, n := time.Now(), 0
	for ; time.Since(begun) < length; n++ {
		if _, err := f.Write(bytes); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(begun).Seconds(), nil
}
