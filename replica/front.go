package replica

import (
	"sync"
	"sync/atomic"
)

// front holds the messages that were lost, in order, ahead of the queue. It is
// nearly always empty, which a replica sees without the lock.
type front[T any] struct {
	count atomic.Int64
	mu    sync.Mutex
	msgs  []T
}

func (f *front[T]) push(msg T) {
	f.mu.Lock()
	f.msgs = append(f.msgs, msg)
	f.count.Store(int64(len(f.msgs)))
	f.mu.Unlock()
}

func (f *front[T]) pop() (msg T, ok bool) {
	if f.count.Load() == 0 {
		return msg, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.msgs) == 0 {
		return msg, false
	}
	var zero T
	msg, f.msgs[0] = f.msgs[0], zero
	f.msgs = f.msgs[1:]
	f.count.Store(int64(len(f.msgs)))
	return msg, true
}

func (f *front[T]) takeAll() []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.msgs
	f.msgs = nil
	f.count.Store(0)
	return all
}
