package main

import (
	"bytes"
	"io"
	"sync"
	"time"
)

const (
	eraseLine = "\r\x1b[K"
	// How often the progress bar is drawn on a terminal, and written as a line of its
	// own to what is none.
	drawEvery  = 100 * time.Millisecond
	writeEvery = time.Second
)

// screen is where a job writes: results to standard output, all else to standard
// error. With a progress bar, one goroutine writes to the terminal: it takes the bar
// away before anything else appears there, and puts it back below.
type screen struct {
	out, err           io.Writer
	outIsTTY, errIsTTY bool
	status             func() string // the progress bar; nil when there is none

	requests chan write
	quit     chan struct{}
	routine  sync.WaitGroup

	// The goroutine's own.
	drawn   bool // the bar is on the terminal
	partial bool // the cursor is not at the beginning of a line
}

type write struct {
	to   io.Writer
	data []byte
	done chan error
}

// start begins to show the bar.
func (s *screen) start(status func() string) {
	s.status = status
	s.requests, s.quit = make(chan write), make(chan struct{})
	s.routine.Go(s.run)
}

// close shows the bar a last time and leaves it there.
func (s *screen) close() {
	if s.status != nil {
		close(s.quit)
		s.routine.Wait()
		s.status = nil
	}
}

// result writes to standard output, whole.
func (s *screen) result(data []byte) error {
	if s.status == nil || !s.outIsTTY {
		return writeAll(s.out, data)
	}
	return s.ask(s.out, data)
}

// message writes whole lines to standard error. What cannot be written there cannot
// be reported anywhere.
func (s *screen) message(data []byte) {
	if s.status == nil {
		_ = writeAll(s.err, data)
		return
	}
	_ = s.ask(s.err, data)
}

func (s *screen) ask(to io.Writer, data []byte) error {
	w := write{to, data, make(chan error, 1)}
	s.requests <- w
	return <-w.done
}

func writeAll(to io.Writer, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	_, err := to.Write(data)
	return err
}

func (s *screen) run() {
	every := drawEvery
	if !s.errIsTTY {
		every = writeEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case w := <-s.requests:
			s.erase()
			w.done <- writeAll(w.to, w.data)
			s.partial = !bytes.HasSuffix(w.data, []byte{'\n'}) && (len(w.data) > 0 || s.partial)
		case <-tick.C:
			s.draw("")
		case <-s.quit:
			if s.partial && s.errIsTTY {
				_ = writeAll(s.err, []byte{'\n'})
				s.partial = false
			}
			s.draw("\n")
			return
		}
	}
}

// erase takes the bar away.
func (s *screen) erase() {
	if s.drawn {
		_ = writeAll(s.err, []byte(eraseLine))
		s.drawn = false
	}
}

// draw shows the bar, but not behind a line that has no end yet. On what is no
// terminal, every bar is a line.
func (s *screen) draw(end string) {
	switch {
	case !s.errIsTTY:
		_ = writeAll(s.err, []byte(s.status()+"\n"))
	case !s.partial:
		_ = writeAll(s.err, []byte(eraseLine+s.status()+end))
		s.drawn = end == ""
	}
}
