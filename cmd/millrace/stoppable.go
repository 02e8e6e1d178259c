package main

import (
	"io"
)

// stoppable reads a file that may block for good, such as a terminal, until stop is
// closed. The goroutine that is then blocked in the read ends with the process.
type stoppable struct {
	stop   <-chan struct{}
	chunks chan chunk
	spare  chan []byte
	now    chunk
}

type chunk struct {
	whole, rest []byte
	err         error
}

func newStoppable(r io.Reader, stop <-chan struct{}) *stoppable {
	s := &stoppable{stop: stop, chunks: make(chan chunk), spare: make(chan []byte, 2)}
	s.spare <- make([]byte, 64<<10)
	s.spare <- make([]byte, 64<<10)
	go func() {
		for {
			var buf []byte
			select {
			case buf = <-s.spare:
			case <-stop:
				return
			}
			n, err := r.Read(buf)
			select {
			case s.chunks <- chunk{whole: buf, rest: buf[:n], err: err}:
			case <-stop:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return s
}

// Read returns errStopped once stop is closed.
func (s *stoppable) Read(p []byte) (int, error) {
	for len(s.now.rest) == 0 {
		if s.now.err != nil {
			return 0, s.now.err
		}
		if s.now.whole != nil {
			s.spare <- s.now.whole
			s.now = chunk{}
		}
		select {
		case s.now = <-s.chunks:
		case <-s.stop:
			return 0, errStopped
		}
	}
	n := copy(p, s.now.rest)
	s.now.rest = s.now.rest[n:]
	return n, nil
}
