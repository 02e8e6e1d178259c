package worker

import (
	"strings"
	"sync"
	"sync/atomic"
)

// maxCancelled is how many cancelled ids a worker remembers.
const maxCancelled = 1024

// cancelledIDs remembers what was cancelled last, for the tasks that have not come
// yet or wait for a replica.
type cancelledIDs struct {
	any atomic.Bool // set with the first: until then has needs no lock

	mu   sync.Mutex // protects all below
	ids  map[string]bool
	ring []string // the same, in the order in which they came
	next int      // the place in the ring of the next one when it is full
}

func (c *cancelledIDs) add(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ids[id] {
		return
	}
	if c.ids == nil {
		c.ids = make(map[string]bool)
	}
	c.ids[id] = true
	if len(c.ring) < maxCancelled {
		c.ring = append(c.ring, id)
	} else {
		delete(c.ids, c.ring[c.next])
		c.ring[c.next] = id
		c.next = (c.next + 1) % maxCancelled
	}
	c.any.Store(true)
}

// has says whether the request, or its job, was cancelled.
func (c *cancelledIDs) has(request string) bool {
	if !c.any.Load() || request == "" {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ids[request] || c.ids[jobOf(request)]
}

// jobOf returns the id of the job that a request belongs to.
func jobOf(request string) string {
	if i := strings.LastIndexByte(request, '-'); i >= 0 {
		return request[:i]
	}
	return request
}

// cancel ends the running tasks with that id or of the job with it, and keeps those
// that are yet to run from it. The order matters: a task that begins between the two
// finds itself cancelled or is found.
func (w *Worker) cancel(id string) {
	w.cancelled.add(id)
	w.interrupt(ErrCancelled, func(it *item) bool {
		return it.id == id || jobOf(it.id) == id
	})
}
