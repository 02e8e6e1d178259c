package nsq

import (
	"errors"
	"io"
	"sync"

	"github.com/millrace/millrace/internal/nsqwire"
)

// frames cuts what a node sends into frames. The memory of a block that somebody keeps
// parts of is not used again, so that deliveries need no copy of their own.
type frames struct {
	src    io.Reader
	before func() // is called before each read

	block []byte
	r, w  int // block[r:w] was read and not taken
	kept  bool
}

// The sizes of blocks: the first one's, and that of a busy connection.
const (
	minBlock = 4 << 10
	maxBlock = 64 << 10
)

var errNotNSQ = errors.New("what it sends is not NSQ's protocol")

// next waits for the next frame. Its data is void after the next call, unless keep is
// called before that.
func (f *frames) next() (nsqwire.FrameType, []byte, error) {
	for {
		kind, data, rest, need := nsqwire.CutFrame(f.block[f.r:f.w])
		switch {
		case need == 0:
			f.r = f.w - len(rest)
			return kind, data, nil
		case need < 0:
			return 0, nil, errNotNSQ
		}
		if err := f.fill(need); err != nil {
			return 0, nil, err
		}
	}
}

// keep says that the data of the last frame is kept.
func (f *frames) keep() { f.kept = true }

// fill reads once, into a block in which need bytes have room.
func (f *frames) fill(need int) error {
	if f.r == f.w && !f.kept {
		f.r, f.w = 0, 0
	}
	if left := len(f.block) - f.r; left < need || f.w == len(f.block) {
		size := max(need, min(max(minBlock, 2*len(f.block)), maxBlock))
		block := make([]byte, size)
		f.w = copy(block, f.block[f.r:f.w])
		f.r, f.block, f.kept = 0, block, false
	}
	f.before()
	n, err := f.src.Read(f.block[f.w:])
	if f.w += n; n > 0 {
		return nil // an error comes again
	}
	return err
}

// outbox is what waits to be written. Whoever sends does not wait for that: a goroutine
// writes as much as is there at a time.
type outbox struct {
	mu      sync.Mutex // guards what follows
	pending []byte
	ready   int // where pending ends with RDY, if it does; else -1
	closed  bool
	room    chan struct{} // is closed when pending was taken

	more chan struct{} // has room for one
	done chan struct{} // closed when the writer has ended
}

const (
	// maxPending is how many bytes may wait before a publisher waits too.
	maxPending = 4 << 20
	// keepPending is the largest buffer that is kept.
	keepPending = 256 << 10
)

func newOutbox(dst io.WriteCloser, before func()) *outbox {
	o := &outbox{ready: -1, room: make(chan struct{}), more: make(chan struct{}, 1), done: make(chan struct{})}
	go o.write(dst, before)
	return o
}

// write writes until close is called, or dst fails, which it closes then.
func (o *outbox) write(dst io.WriteCloser, before func()) {
	defer close(o.done)
	defer o.end()
	var spare []byte
	for range o.more {
		o.mu.Lock()
		if len(o.pending) == 0 { // it went with what was there before
			o.mu.Unlock()
			continue
		}
		batch := o.pending
		o.pending, o.ready = spare[:0], -1
		close(o.room)
		o.room = make(chan struct{})
		o.mu.Unlock()
		before()
		if _, err := dst.Write(batch); err != nil {
			_ = dst.Close()
			return
		}
		if spare = batch; cap(spare) > keepPending {
			spare = nil
		}
	}
}

// end lets go of what cannot be written any more.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shut()
	o.pending, o.ready = nil, -1
	close(o.room)
}

// shut takes nothing more. The caller holds mu.
func (o *outbox) shut() {
	if !o.closed {
		o.closed = true
		close(o.more)
	}
}

// add sends commands. What is added to a connection that has ended is lost with it.
func (o *outbox) add(commands []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.pending, o.ready = append(o.pending, commands...), -1
		o.signal()
	}
}

// addReady sends RDY, in place of one that waits at the end.
func (o *outbox) addReady(command []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	if o.ready < 0 {
		o.ready = len(o.pending)
	}
	o.pending = append(o.pending[:o.ready], command...)
	o.signal()
}

// full returns nil, or what is closed when it may have room again.
func (o *outbox) full() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.pending) < maxPending || o.closed {
		return nil
	}
	return o.room
}

// signal tells the writer that there is something. The caller holds mu, and more is open.
func (o *outbox) signal() {
	select {
	case o.more <- struct{}{}:
	default:
	}
}

// close ends the writer, once it has written what is there, and waits for that.
func (o *outbox) close() {
	o.mu.Lock()
	o.shut()
	o.mu.Unlock()
	<-o.done
}
