package worker

import (
	"errors"
	"fmt"
	"sync"

	"github.com/millrace/millrace/supervise"
)

const (
	// maxHangs is how often a task may hang replicas of one worker before it fails
	// without being run once more. It is below the number of goroutines that may be
	// abandoned, so that one such task does not bring down the worker.
	maxHangs = 5
	// maxTroubles is how many tasks a worker remembers that were lost.
	maxTroubles = 1024
)

// troubles remembers of tasks that were lost why, and how often they hung a replica.
type troubles struct {
	mu sync.Mutex // protects all below; never held while waiting or calling
	of map[string]trouble
}

type trouble struct {
	hangs int
	why   error // the last one
}

// name is what a task is remembered under.
func (it *item) name() string {
	if it.id != "" {
		return it.id
	}
	return fmt.Sprintf("message %d", it.delivery.Seq)
}

// note adds to what is remembered of a task; for it, some other may be forgotten. It
// returns how often the task has hung a replica.
func (ts *troubles) note(id string, why error) (hangs int) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t, known := ts.of[id]
	if !known && len(ts.of) >= maxTroubles {
		for other := range ts.of {
			delete(ts.of, other)
			break
		}
	}
	if ts.of == nil {
		ts.of = make(map[string]trouble)
	}
	var stuck *stuckError
	if errors.Is(why, supervise.ErrSilent) || errors.As(why, &stuck) {
		t.hangs++
	}
	t.why = why
	ts.of[id] = t
	return t.hangs
}

// forget takes what is remembered of a task.
func (ts *troubles) forget(id string) (trouble, bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t, ok := ts.of[id]
	delete(ts.of, id)
	return t, ok
}

func (ts *troubles) hangs(id string) int {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.of[id].hangs
}

// hopeless says why a task is not run once more, if so: it was delivered too often
// without an answer, or hung too many replicas.
func (w *Worker) hopeless(it *item) *refusal {
	before := int(it.delivery.Attempt) - 1
	if before == 0 || before < w.cfg.MaxDeliveries && w.troubles.hangs(it.name()) < maxHangs {
		return nil
	}
	text := fmt.Sprintf("it was delivered %d times without an answer: it kills or hangs what runs it", before)
	if t, ok := w.troubles.forget(it.name()); ok {
		text += "; the last time: " + t.why.Error()
	}
	return &refusal{KindKilled, text}
}
