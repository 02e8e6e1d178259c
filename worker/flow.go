package worker

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// aheadFor is for how long the worker wants to have work at hand.
	aheadFor = 100 * time.Millisecond
	// The most tasks and bytes that it holds for that.
	maxAhead      = 16 << 10
	maxAheadBytes = 64 << 20
	// reviseEvery is how often the number is revised at the most.
	reviseEvery = 5 * time.Millisecond
)

// flow decides how many tasks the worker may hold: the prefetch of its subscription.
//
// That is one for each replica, and one more for each task whose result is on its way
// to the broker: a replica that is free again need not wait for that. Without
// NoPrefetch there are some on top: as many as were asked for, or as were finished
// lately in aheadFor. That number can grow fourfold at each revision, so that a worker
// of quick tasks is up to speed after a few, and one of slow tasks holds none that
// another worker could run.
type flow struct {
	leaving atomic.Int64 // tasks on their way to the broker
	plenty  atomic.Bool  // so many are held on top that one more or less does not matter

	mu       sync.Mutex // protects all below, and the order of the calls of set
	set      func(n int)
	prefetch int // Config.Prefetch
	replicas int
	refused  bool // the broker refuses results
	paused   bool // the queue is
	over     bool // nothing is received any more
	limit    int  // what was set last

	ahead   int       // on top, when adaptive
	since   time.Time // of the last revision
	settles int       // tasks settled since then
	count   int       // deliveries that were received since
	bytes   int       // of them, and of results
	average int       // bytes of a task and its result
}

// plentyAhead is how many tasks on top are so many that flow need not be exact.
const plentyAhead = 64

func (f *flow) adaptive() bool { return f.prefetch == 0 }

// start says how to tell the subscription, which was made with a prefetch of limit.
func (f *flow) start(limit int, set func(n int)) {
	f.change(func(f *flow) { f.limit, f.set, f.since = limit, set, time.Now() })
}

// wanted is how many tasks the worker may hold now. The caller holds mu.
func (f *flow) wanted() int {
	if f.over || f.refused || f.paused || f.replicas == 0 {
		return 0
	}
	n := f.replicas
	if !f.plenty.Load() {
		n += int(f.leaving.Load())
	}
	if f.adaptive() {
		return n + f.ahead
	}
	return n + max(0, f.prefetch)
}

// apply tells the subscription what has changed. The caller holds mu, so that what
// is told last is true; set does not wait.
func (f *flow) apply() {
	if limit := f.wanted(); limit != f.limit {
		f.limit = limit
		f.set(limit)
	}
}

// change changes what the prefetch depends on.
func (f *flow) change(how func(*flow)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how(f)
	f.apply()
}

// scaled says how many replicas there are.
func (f *flow) scaled(replicas int) {
	f.change(func(f *flow) { f.replicas = replicas })
}

// idle says whether nobody could run a task.
func (f *flow) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replicas == 0 || f.paused
}

// received says that n deliveries came, with so many bytes in all.
func (f *flow) received(n, bytes int) {
	f.mu.Lock()
	f.count += n
	f.bytes += bytes
	f.mu.Unlock()
}

// finished says that a task is on its way to the broker.
func (f *flow) finished() {
	f.leaving.Add(1)
	if !f.plenty.Load() {
		f.mu.Lock()
		f.apply()
		f.mu.Unlock()
	}
}

// settled says that n tasks that were finished are not held any more, and how many
// bytes their results had.
func (f *flow) settled(n, bytes int) {
	f.leaving.Add(int64(-n))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settles += n
	f.bytes += bytes
	if now := time.Now(); f.adaptive() && now.Sub(f.since) >= reviseEvery {
		f.revise(now)
	}
	f.apply()
}

// revise sets how many tasks are held on top from what was settled since the last
// time. After a pause the rate says nothing about what the replicas could do, but
// then there was nothing to hold either: the number falls by no more than half.
func (f *flow) revise(now time.Time) {
	ahead := int(float64(f.settles) * float64(aheadFor) / float64(now.Sub(f.since)))
	ahead = min(max(ahead, f.ahead/2), 4*(f.ahead+f.replicas), maxAhead)
	if f.count > 0 {
		f.average = f.bytes / f.count
	}
	f.ahead = min(ahead, maxAheadBytes/max(1, f.average))
	f.plenty.Store(f.ahead >= plentyAhead)
	f.since, f.settles, f.count, f.bytes = now, 0, 0, 0
}
