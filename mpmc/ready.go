package mpmc

import "sync/atomic"

// A bell is the channel that Ready returns. While it is at rest, it holds a token
// whenever an item is in the queue or the queue is closed.
type bell struct {
	token chan struct{} // has room for one
	rings atomic.Uint64
}

// Ready returns a channel to select on: a value can be received from it when an
// item may be in c or c is closed. It is the same channel at every call.
//
// Whoever receives from it must then call TryRecv (or Recv or RecvBatch), which
// passes the signal on when items are left: a signal stands for any number of
// items and for all who select on it. The item may be gone by then, if other
// goroutines receive too: TryRecv returns ErrEmpty, and one selects again.
func (c *Chan[T]) Ready() <-chan struct{} {
	b := c.bell.Load()
	if b == nil {
		c.bell.CompareAndSwap(nil, &bell{token: make(chan struct{}, 1)})
		b = c.bell.Load()
		// Those who sent before the bell was there did not ring it.
		c.ringIfReady()
	}
	return b.token
}

// ringIfReady rings unless no item is in the queue and it is open.
func (c *Chan[T]) ringIfReady() {
	if !c.queue.idle() {
		c.ring()
	}
}

// ring puts the token in the bell, if there is a bell without one.
func (c *Chan[T]) ring() {
	b := c.bell.Load()
	if b == nil {
		return
	}
	// A send that finds the token there reads no more than the channel's length.
	// It must not read it before the item can be seen by the one who takes the
	// token, and only an atomic operation keeps that order on every processor.
	b.rings.Add(1)
	select {
	case b.token <- struct{}{}:
	default:
	}
}
