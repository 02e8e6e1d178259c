package mpmc

import (
	"context"
	"sync"
	"sync/atomic"
)

// A waitlist holds the goroutines that wait at one end of a queue, receivers for
// an item or senders for room.
//
// A waiter first joins the list and then tries again; whoever makes an item or
// room does that first and then looks at the list: one of the two sees the other.
// Only one woken waiter is under way at a time, however much there is to do; it
// wakes the next when it has found that there is more. So a burst costs its maker
// one wake-up, and a wake-up always reaches a goroutine that will look.
type waitlist struct {
	wakeable atomic.Bool // somebody waits and nobody woken is under way

	mu          sync.Mutex // guards what follows; held for a few instructions
	first, last *waiter
	waking      bool    // a woken waiter has not come back yet
	free        *waiter // left by earlier waits, through next
}

// A waiter is a place in a waitlist.
type waiter struct {
	woken      chan struct{} // has room for one, so that waking never blocks
	listed     bool
	next, prev *waiter
}

// Nobody spins or yields before it sleeps: by the time that a goroutine is awake
// again there is more to do than for one item, and the two ends of the queue do
// not run in step, where each item would cost several cache misses.

// wait calls try until it returns something else than the error blocked, and
// returns that, or context.Cause if ctx ends while waiting. Whatever it returns,
// a wake-up may have been used up that was meant for more, or for another: the
// caller must notify the list again if there is something left to come for.
func (l *waitlist) wait(ctx context.Context, blocked error, try func() error) error {
	for again := false; ; again = true {
		w := l.join(again)
		if err := try(); err != blocked {
			l.leave(w)
			return err
		}
		select {
		case <-w.woken:
			l.arrive(w)
		case <-ctx.Done():
			l.leave(w)
			return context.Cause(ctx)
		}
		if err := try(); err != blocked {
			return err
		}
	}
}

// join puts the caller on the list, in front if it was woken before in vain.
func (l *waitlist) join(again bool) *waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.free
	if w != nil {
		l.free, w.next = w.next, nil
	} else {
		w = &waiter{woken: make(chan struct{}, 1)}
	}
	l.insert(w, again)
	l.update()
	return w
}

// leave takes w off the list, or receives its wake-up if that is on its way.
func (l *waitlist) leave(w *waiter) {
	l.mu.Lock()
	if w.listed {
		l.remove(w)
		l.update()
		l.recycle(w)
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	<-w.woken
	l.arrive(w)
}

// arrive ends the way of a woken waiter: from here on others can be woken.
func (l *waitlist) arrive(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waking = false
	l.update()
	l.recycle(w)
}

// notify wakes one waiter, unless one is on its way.
func (l *waitlist) notify() {
	if l.wakeable.Load() {
		l.wakeOne()
	}
}

func (l *waitlist) wakeOne() {
	l.mu.Lock()
	w := l.first
	if w == nil || l.waking {
		l.mu.Unlock()
		return
	}
	l.remove(w)
	l.waking = true
	l.update()
	l.mu.Unlock()
	w.woken <- struct{}{}
}

// wakeAll wakes every waiter: the queue is closed.
func (l *waitlist) wakeAll() {
	l.mu.Lock()
	all := l.first
	for w := all; w != nil; w = w.next {
		w.listed = false
	}
	l.first, l.last = nil, nil
	l.update()
	l.mu.Unlock()
	for w := all; w != nil; {
		next := w.next // w is its owner's again once it is woken
		w.woken <- struct{}{}
		w = next
	}
}

func (l *waitlist) update() { l.wakeable.Store(l.first != nil && !l.waking) }

func (l *waitlist) insert(w *waiter, front bool) {
	w.listed = true
	switch {
	case l.first == nil:
		l.first, l.last = w, w
	case front:
		w.next, l.first.prev, l.first = l.first, w, w
	default:
		w.prev, l.last.next, l.last = l.last, w, w
	}
}

func (l *waitlist) remove(w *waiter) {
	w.listed = false
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	w.next, w.prev = nil, nil
}

func (l *waitlist) recycle(w *waiter) {
	w.prev, w.next, l.free = nil, l.free, w
}
