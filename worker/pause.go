package worker

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/control"
)

// lookEvery is how often a worker that is paused, or could not see whether it is, looks
// whether its queue is.
const lookEvery = 5 * time.Second

// errPaused gives back a task that a replica was about to begin.
var errPaused = errors.New("worker: paused")

// pausing is whether the worker takes no tasks because its queue is paused.
type pausing struct {
	on      atomic.Bool
	unknown atomic.Bool // it could not be seen the last time
}

// doubtful says whether to look again: nobody comes back for a worker that did not hear
// that its queue is paused no longer. One that is not paused and did not hear that it
// should be is told to whoever has paused the queue.
func (p *pausing) doubtful() bool { return p.on.Load() || p.unknown.Load() }

// lookWhetherPaused does what is kept in the broker. Returns an error when that cannot be
// seen; then everything stays as it is.
func (w *Worker) lookWhetherPaused(ctx context.Context) error {
	_, err := w.broker.Depth(ctx, control.PausedTopic(w.queue), control.PausedChannel)
	paused := err == nil
	if errors.Is(err, millrace.ErrNotFound) {
		err = nil
	}
	w.pause.unknown.Store(err != nil)
	if err != nil {
		return err
	}
	w.setPaused(paused)
	return nil
}

// setPaused begins or ends a pause. When it returns no task is begun any more that was not
// before, and those that wait for a replica have been given back.
func (w *Worker) setPaused(paused bool) {
	if w.pause.on.Swap(paused) == paused {
		return
	}
	kind := Resumed
	if paused {
		kind = Paused
	}
	w.tell(Event{Kind: kind})
	w.flow.change(func(f *flow) { f.paused = paused })
	if paused {
		w.giveBackReady()
	}
}
