package mpmc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
)

// Errors of the operations. They are returned as they are, never wrapped.
var (
	// ErrClosed is returned when sending on a closed channel, and when receiving
	// from one of which nothing is left.
	ErrClosed = errors.New("mpmc: channel is closed")
	// ErrFull is returned by TrySend when the channel holds Cap items.
	ErrFull = errors.New("mpmc: channel is full")
	// ErrEmpty is returned by TryRecv when there is no item, but may be later.
	ErrEmpty = errors.New("mpmc: channel is empty")
)

// A Chan is a first-in, first-out channel for items of type T. All its methods may
// be called by any number of goroutines at the same time. It is made by New or
// NewUnbounded and must not be copied.
type Chan[T any] struct {
	queue     queue[T]
	receivers waitlist // waiting for an item
	bell      atomic.Pointer[bell]
	_         [cacheLine]byte
	senders   waitlist // waiting for room
	_         [cacheLine]byte
}

// New returns a channel that holds at most capacity items. It panics if capacity
// is less than 1. Memory is taken as items come, not for the capacity at once.
func New[T any](capacity int) *Chan[T] {
	if capacity < 1 {
		panic(fmt.Sprintf("mpmc: New with capacity %d, want at least 1", capacity))
	}
	return newChan[T](capacity)
}

// NewUnbounded returns a channel that always has room: it holds as many items as
// there is memory for.
func NewUnbounded[T any]() *Chan[T] { return newChan[T](0) }

func newChan[T any](limit int) *Chan[T] {
	c := new(Chan[T])
	c.queue.init(uint64(limit))
	return c
}

// Send sends v. While the channel is full it waits.
//
// It returns ErrClosed if the channel is closed before v went in, or
// context.Cause(ctx) if ctx ends while waiting; then v was not sent.
func (c *Chan[T]) Send(ctx context.Context, v T) error {
	if err := c.queue.push(v); err != nil {
		return c.sendLater(ctx, v, err)
	}
	c.announce()
	return nil
}

// sendLater is the rest of Send after push returned err, apart so that the usual
// way is short.
func (c *Chan[T]) sendLater(ctx context.Context, v T, err error) error {
	if err == ErrFull {
		err = c.senders.wait(ctx, ErrFull, func() error { return c.TrySend(v) })
		c.passRoom()
	}
	return err
}

// TrySend sends v if there is room. It returns ErrFull if there is none, and
// ErrClosed if the channel is closed.
func (c *Chan[T]) TrySend(v T) error {
	if err := c.queue.push(v); err != nil {
		return err
	}
	c.announce()
	return nil
}

// SendAll sends the items of vs in order; items of other senders may come in
// between. While the channel is full it waits. It costs much less than as many
// calls of Send.
//
// It returns how many items were sent, which are the first n of vs. If these are
// not all, the error is ErrClosed or context.Cause(ctx), as for Send.
func (c *Chan[T]) SendAll(ctx context.Context, vs []T) (n int, err error) {
	send := func() error {
		k, err := c.queue.pushSome(vs[n:])
		if err == nil {
			n += k
			c.announce()
		}
		return err
	}
	for n < len(vs) {
		err := send()
		if err == ErrFull {
			err = c.senders.wait(ctx, ErrFull, send)
			c.passRoom()
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Recv receives the oldest item. While there is none it waits.
//
// It returns ErrClosed once the channel is closed and nothing is left in it, or
// context.Cause(ctx) if ctx ends while waiting.
func (c *Chan[T]) Recv(ctx context.Context) (T, error) {
	v, err := c.TryRecv()
	if err != nil {
		return c.recvLater(ctx, err)
	}
	return v, nil
}

// recvLater is the rest of Recv after TryRecv returned err.
func (c *Chan[T]) recvLater(ctx context.Context, err error) (v T, _ error) {
	if err == ErrEmpty {
		err = c.receivers.wait(ctx, ErrEmpty, func() (err error) {
			v, err = c.TryRecv()
			return err
		})
		c.passItems()
	}
	return v, err
}

// TryRecv receives the oldest item if there is one. It returns ErrEmpty if there
// is none, and ErrClosed if there will never be one again.
func (c *Chan[T]) TryRecv() (T, error) {
	v, err := c.queue.pop()
	c.received(err)
	return v, err
}

// RecvBatch waits until at least one item is there, then takes what is there, up
// to len(buf) items, into buf. It never waits for buf to be full. It costs much
// less than as many calls of Recv.
//
// It returns how many items it took, at least one unless there is an error, which
// is that of Recv. With an empty buf it returns 0 and nil at once.
func (c *Chan[T]) RecvBatch(ctx context.Context, buf []T) (n int, err error) {
	if len(buf) == 0 {
		return 0, nil
	}
	recv := func() (err error) {
		n, err = c.queue.popSome(buf)
		c.received(err)
		return err
	}
	if err = recv(); err == ErrEmpty {
		err = c.receivers.wait(ctx, ErrEmpty, recv)
		c.passItems()
	}
	return n, err
}

// Len returns the number of items in the channel at one moment during the call.
func (c *Chan[T]) Len() int { return c.queue.len() }

// Cap returns the capacity given to New, or 0 if the channel is unbounded.
func (c *Chan[T]) Cap() int { return int(c.queue.limit) }

// Close closes the channel: every later send, and every one that waits, returns
// ErrClosed; receivers get what is left and then ErrClosed. Any goroutine may
// close, at any time and as often as it likes; the first time counts.
func (c *Chan[T]) Close() {
	if !c.queue.tail.close() {
		return
	}
	c.receivers.wakeAll()
	c.senders.wakeAll()
	c.ring()
}

// All receives items until the channel is closed and nothing is left in it, or
// until ctx ends: ctx.Err tells which. Unlike Recv it does not take another item
// once ctx has ended; what it does not take stays in the channel.
func (c *Chan[T]) All(ctx context.Context) iter.Seq[T] {
	return func(yield func(T) bool) {
		for ctx.Err() == nil {
			v, err := c.Recv(ctx)
			if err != nil || !yield(v) {
				return
			}
		}
	}
}

// announce tells receivers that items went in.
func (c *Chan[T]) announce() {
	c.receivers.notify()
	if c.bell.Load() != nil {
		c.ring()
	}
}

// received tells senders that a receiver made room, and rings for the items that
// it left.
func (c *Chan[T]) received(err error) {
	if err == nil && c.queue.limit != 0 {
		c.senders.notify()
	}
	if c.bell.Load() != nil {
		c.ringIfReady()
	}
}

// passItems and passRoom are for one that has waited, and may have been the only
// one woken for more than it took, or took nothing because its context ended.

func (c *Chan[T]) passItems() {
	if !c.queue.idle() {
		c.receivers.notify()
	}
}

func (c *Chan[T]) passRoom() {
	if !c.queue.full() {
		c.senders.notify()
	}
}
