package fanin

import (
	"context"
	"sync"
)

// buffer is a bounded queue from many emitters to one reader (more are safe).
//
// An emitter that finds it full leaves its value in the line of waiters; the
// reader that makes room moves the value in and wakes it. So the emitter of a
// value knows exactly what became of it, also when its context ends meanwhile:
// in the line, the value is withdrawn; moved, it is accepted.
type buffer[T any] struct {
	mu      sync.Mutex // protects all below; never held while waiting or calling
	ring    []T        // its length is the capacity, a power of two
	head    uint       // of the oldest value; counts up, modulo len(ring) an index
	count   int
	line    line[T]    // emitters that wait; empty unless the ring is full
	spare   *waiter[T] // to be used again, so that waiting does not allocate
	readers int        // that wait
	closed  bool

	filled   chan struct{} // wakes one reader; has room for one token
	draining bool          // emptied is to be called
	emptied  func()        // called, without the lock, by a reader that took the last value
}

// waiter is one emission that waits for room.
type waiter[T any] struct {
	value      T
	accepted   bool
	waiting    bool          // it is in the line
	done       chan struct{} // gets one token when it has left the line; has room for it
	prev, next *waiter[T]
}

func newBuffer[T any](capacity int, emptied func()) *buffer[T] {
	size := 1
	for size < capacity {
		size *= 2
	}
	return &buffer[T]{ring: make([]T, size), filled: make(chan struct{}, 1), emptied: emptied}
}

// put adds v. It returns ErrClosed, or the cause of ctx if that ended while there
// was no room; then v was not added.
func (b *buffer[T]) put(ctx context.Context, v T) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	if b.count < len(b.ring) {
		b.push(v)
		wake := b.readers > 0
		b.mu.Unlock()
		if wake {
			b.wakeReader()
		}
		return nil
	}
	w := b.newWaiter(v)
	b.line.append(w)
	b.mu.Unlock()
	return b.await(ctx, w)
}

func (b *buffer[T]) await(ctx context.Context, w *waiter[T]) (err error) {
	select {
	case <-w.done:
	case <-ctx.Done():
		b.mu.Lock()
		if w.waiting {
			w.waiting = false
			b.line.remove(w)
			b.recycle(w)
			b.mu.Unlock()
			return context.Cause(ctx)
		}
		b.mu.Unlock()
		<-w.done // it has left the line: the token is there or about to be
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !w.accepted {
		err = ErrClosed
	}
	b.recycle(w)
	return err
}

// take waits for at least one value and moves as many as are there into buf. It
// returns ErrClosed at the end of the stream, or the cause of ctx.
func (b *buffer[T]) take(ctx context.Context, buf []T) (int, error) {
	for {
		b.mu.Lock()
		if b.count > 0 {
			n, woken, more := b.pop(buf)
			emptied := b.draining && b.count == 0
			b.mu.Unlock()
			woken.wake()
			if more {
				b.wakeReader()
			}
			if emptied {
				b.emptied()
			}
			return n, nil
		}
		if b.closed {
			b.mu.Unlock()
			b.wakeReader() // pass it on: the end is for every reader
			return 0, ErrClosed
		}
		b.readers++
		b.mu.Unlock()

		var err error
		select {
		case <-b.filled:
		case <-ctx.Done():
			err = context.Cause(ctx) // a token stays where it is, for another reader
		}
		b.mu.Lock()
		b.readers--
		b.mu.Unlock()
		if err != nil {
			return 0, err
		}
	}
}

// pop moves values into buf, refills the ring from the line, and returns the
// emitters whose values were moved. It reports whether another reader waits
// though values are left.
func (b *buffer[T]) pop(buf []T) (n int, woken line[T], more bool) {
	var zero T
	for ; n < len(buf) && b.count > 0; n++ {
		slot := &b.ring[b.head&uint(len(b.ring)-1)]
		buf[n], *slot = *slot, zero
		b.head++
		b.count--
	}
	for b.count < len(b.ring) && b.line.first != nil {
		w := b.line.first
		b.line.remove(w)
		b.push(w.value)
		w.waiting, w.accepted = false, true
		woken.append(w)
	}
	return n, woken, b.count > 0 && b.readers > 0
}

// close ends the stream: it returns the values that are left, and those who wait
// to emit get ErrClosed.
func (b *buffer[T]) close() []T {
	b.mu.Lock()
	rest := make([]T, b.count)
	b.closed = true
	woken := b.line
	b.line = line[T]{}
	for w := woken.first; w != nil; w = w.next {
		w.waiting = false
	}
	for i := range rest {
		rest[i] = b.ring[(b.head+uint(i))&uint(len(b.ring)-1)]
	}
	clear(b.ring)
	b.count = 0
	b.mu.Unlock()
	woken.wake()
	b.wakeReader()
	return rest
}

// drain asks that emptied be called from now on, and reports whether there is
// nothing left already.
func (b *buffer[T]) drain() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.draining = true
	return b.count == 0
}

func (b *buffer[T]) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

func (b *buffer[T]) push(v T) {
	b.ring[(b.head+uint(b.count))&uint(len(b.ring)-1)] = v
	b.count++
}

func (b *buffer[T]) wakeReader() {
	select {
	case b.filled <- struct{}{}:
	default:
	}
}

func (b *buffer[T]) newWaiter(v T) *waiter[T] {
	w := b.spare
	if w == nil {
		w = &waiter[T]{done: make(chan struct{}, 1)}
	} else {
		b.spare, w.next = w.next, nil
	}
	w.value, w.waiting = v, true
	return w
}

func (b *buffer[T]) recycle(w *waiter[T]) {
	var zero T
	w.value, w.accepted = zero, false
	w.next, b.spare = b.spare, w
}

// line is a first-in first-out list of waiters.
type line[T any] struct{ first, last *waiter[T] }

func (l *line[T]) append(w *waiter[T]) {
	w.prev, w.next = l.last, nil
	if l.last == nil {
		l.first = w
	} else {
		l.last.next = w
	}
	l.last = w
}

func (l *line[T]) remove(w *waiter[T]) {
	if w.prev == nil {
		l.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
}

// wake wakes everybody in a line that nobody else can reach. A waiter is used
// again as soon as it is awake, so the next one is looked up before.
func (l *line[T]) wake() {
	for w := l.first; w != nil; {
		next := w.next
		w.done <- struct{}{}
		w = next
	}
}
