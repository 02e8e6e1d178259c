package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace"
)

// holdings are the items whose leases have to be extended, in the slabs in which they
// were received: holding and releasing one costs next to nothing.
type holdings struct {
	mu    sync.Mutex // protects all below; never held while waiting or calling
	slabs []*slab
}

// slab is a batch of items that were received together.
type slab struct {
	items []item
	left  atomic.Int64 // of them that are held
}

func newSlab(ds []millrace.Delivery) *slab {
	s := &slab{items: make([]item, len(ds))}
	s.left.Store(int64(len(ds)))
	for i := range ds {
		s.items[i].delivery, s.items[i].slab = ds[i], s
	}
	return s
}

// add holds what is in a slab.
func (h *holdings) add(s *slab) {
	h.mu.Lock()
	h.slabs = append(h.slabs, s)
	h.mu.Unlock()
}

// release says that the items are not held any more. One that was released before
// is passed over.
func (h *holdings) release(items ...*item) {
	empty := false
	for _, it := range items {
		if it.released.CompareAndSwap(false, true) {
			empty = it.slab.left.Add(-1) == 0 || empty
		}
	}
	if empty {
		h.mu.Lock()
		h.slabs = slices.DeleteFunc(h.slabs, func(s *slab) bool { return s.left.Load() == 0 })
		h.mu.Unlock()
	}
}

// held returns all items that are held now.
func (h *holdings) held() []*item {
	h.mu.Lock()
	defer h.mu.Unlock()
	var held []*item
	for _, s := range h.slabs {
		for i := range s.items {
			if !s.items[i].released.Load() {
				held = append(held, &s.items[i])
			}
		}
	}
	return held
}

// extendBatch is how many leases are extended in one call of the broker.
const extendBatch = 1024

// extendLeases keeps what the worker holds until ctx ends. An item whose replica was
// silent has been released by then, so only the leases of live replicas' tasks, and
// of those that wait for a replica or for the publisher, are extended.
func (w *Worker) extendLeases(ctx context.Context) {
	ticker := time.NewTicker(max(w.cfg.Lease/3, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for batch := range slices.Chunk(w.holdings.held(), extendBatch) {
			lost, _ := w.extend(ctx, batch) // if it failed: the leases may last until the next time
			for _, it := range lost {
				w.leaseLost(it)
			}
		}
	}
}

// extend gives the items a new lease, and returns those that have lost theirs. An
// error means that this is not known.
func (w *Worker) extend(ctx context.Context, items []*item) (lost []*item, err error) {
	if len(items) == 0 {
		return nil, nil
	}
	err = w.tasks.Extend(ctx, deliveries(nil, items)...)
	var known *millrace.LeaseError
	switch {
	case err == nil:
		return nil, nil
	case !errors.Is(err, millrace.ErrLeaseLost):
		return nil, err
	case errors.As(err, &known):
		for _, i := range known.Lost {
			lost = append(lost, items[i])
		}
	case len(items) == 1:
		lost = items
	default:
		for i := range items { // find out which
			one, err := w.extend(ctx, items[i:i+1])
			if err != nil {
				return nil, err
			}
			lost = append(lost, one...)
		}
	}
	// What was acked or given back meanwhile had no lease that it could lose.
	return slices.DeleteFunc(slices.Clone(lost), func(it *item) bool { return it.released.Load() }), nil
}

// leaseLost lets go of an item that is somebody else's now: if it still runs, its
// handler's context ends.
func (w *Worker) leaseLost(it *item) {
	it.leaseLost.Store(true)
	w.holdings.release(it)
	w.interrupt(millrace.ErrLeaseLost, func(running *item) bool { return running == it })
	w.lost(it, millrace.ErrLeaseLost)
}

// taskLost is told by the replicas that one of them was replaced while it had the task.
// One that had its time, and one that nobody wants, has had its attempt; any other is
// given back.
func (w *Worker) taskLost(it *item, err error) {
	hangs := w.lost(it, err)
	var stuck *stuckError
	if !errors.As(err, &stuck) || it.leaseLost.Load() {
		w.giveBack(0, it)
		return
	}
	if hangs >= maxHangs {
		err = Permanent(err)
	}
	w.flow.finished()
	out := outcome{item: it, failed: &failure{err: err, cause: stuck.told}}
	if err := w.merger.Emit(w.brokerCtx, out); err != nil {
		w.flow.settled(1, 0)
		w.giveBack(0, it)
	}
}

// giveBack returns items to the broker, which delivers them again after the delay.
func (w *Worker) giveBack(delay time.Duration, items ...*item) {
	items = slices.DeleteFunc(items, func(it *item) bool { return it.released.Load() })
	if len(items) == 0 {
		return
	}
	w.holdings.release(items...)
	ctx, cancel := context.WithTimeout(w.brokerCtx, w.cfg.Grace)
	defer cancel()
	if err := w.tasks.Nack(ctx, delay, deliveries(nil, items)...); err != nil && !errors.Is(err, millrace.ErrLeaseLost) {
		// They come back when their leases end, which nobody extends any more.
		for _, it := range items {
			w.lost(it, fmt.Errorf("give back: %w", err))
		}
	}
}

// giveBackReady gives back what waits for a replica.
func (w *Worker) giveBackReady() {
	var items []*item
	for {
		it, err := w.ready.TryRecv()
		if err != nil {
			break
		}
		items = append(items, it)
	}
	for batch := range slices.Chunk(items, extendBatch) {
		w.giveBack(0, batch...)
	}
}

// lost tells that an attempt at a task will not count, and returns how often the task
// has hung a replica.
func (w *Worker) lost(it *item, why error) (hangs int) {
	w.count.lost.Add(1)
	hangs = w.troubles.note(it.name(), why)
	w.tell(Event{Kind: TaskLost, Task: it.id, Attempt: it.attempt(), Err: why})
	return hangs
}

// deliveries appends those of the items to dst.
func deliveries(dst []millrace.Delivery, items []*item) []millrace.Delivery {
	for _, it := range items {
		dst = append(dst, it.delivery)
	}
	return dst
}
