package worker

import (
	"sync"
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
// With NoPrefetch that is one for each replica, and one more for each task whose
// result is on its way to the broker: a replica that is free again need not wait for
// that. Else there are some on top: as many as were asked for, or as were finished
// lately in aheadFor. The number can grow fourfold at each revision, so that a worker
// of quick tasks is up to speed after a few, and one of slow tasks holds none that
// another worker could run.
type flow struct {
	mu       sync.Mutex // protects all below, and the order of the calls of set
	set      func(n int)
	prefetch int // Config.Prefetch
	replicas int
	refused  bool // the broker refuses results
	over     bool // nothing is received any more
	limit    int  // what was set last

	leaving int // tasks that are finished and not settled; counted with NoPrefetch

	ahead   int       // on top, when adaptive
	since   time.Time // of the last revision
	settles int       // tasks settled since then
	count   int       // deliveries that were received since, and their bytes
	bytes   int
	average int // bytes of a delivery
}

func (f *flow) adaptive() bool { return f.prefetch == 0 }

// start says how to tell the subscription, which was made with a prefetch of limit.
func (f *flow) start(limit int, set func(n int)) {
	f.change(func(f *flow) { f.limit, f.set, f.since = limit, set, time.Now() })
}

// wanted is how many tasks the worker may hold now. The caller holds mu.
func (f *flow) wanted() int {
	switch {
	case f.over || f.refused || f.replicas == 0:
		return 0
	case f.adaptive():
		return f.replicas + f.ahead
	case f.prefetch > 0:
		return f.replicas + f.prefetch
	default:
		return f.replicas + f.leaving
	}
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

// noReplica says whether there is none that could run a task.
func (f *flow) noReplica() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replicas == 0
}

// finished says that n tasks are on their way to the publisher.
func (f *flow) finished(n int) {
	if f.prefetch < 0 {
		f.change(func(f *flow) { f.leaving += n })
	}
}

// received says that n deliveries came, with so many bytes in all.
func (f *flow) received(n, bytes int) {
	if f.adaptive() {
		f.mu.Lock()
		f.count += n
		f.bytes += bytes
		f.mu.Unlock()
	}
}

// settled says that n tasks that were finished are not held any more.
func (f *flow) settled(n int) {
	switch {
	case f.prefetch < 0:
		f.change(func(f *flow) { f.leaving -= n })
	case f.adaptive():
		f.mu.Lock()
		f.settles += n
		if now := time.Now(); now.Sub(f.since) >= reviseEvery {
			f.revise(now)
			f.apply()
		}
		f.mu.Unlock()
	}
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
	f.since, f.settles, f.count, f.bytes = now, 0, 0, 0
}
