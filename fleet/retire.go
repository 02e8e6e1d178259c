package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/control"
)

// Retired is the replica that Retire has told to leave.
type Retired struct {
	Worker  Worker  // as it was told
	Replica Replica // the same
	// Finishes says that it finishes a task before it leaves; else it has left.
	Finishes bool
}

// Retire makes exactly one replica of the queue leave, somewhere, after the task it is on,
// and not be replaced: the poison pill. An idle one is preferred, else it is one where there
// are the most a core. It returns when the replica's worker has confirmed that it takes no
// more tasks.
//
// Returns ErrNoWorker, ErrNoReplica when there are workers without replicas, ErrChanging, an
// *UnconfirmedError, the cause of ctx, or what the broker says. After an *UnconfirmedError
// one replica has left or none has, and Retired tells which one was meant.
func (f *Fleet) Retire(ctx context.Context) (Retired, error) {
	var refused error
	for range maxTries {
		workers, err := f.steerable(ctx)
		if err != nil {
			return Retired{}, err
		}
		if total(workers) == 0 {
			return Retired{}, ErrNoReplica
		}
		r, ok := choose(workers)
		if !ok {
			return Retired{}, ErrNoReplica
		}
		order := control.Order{Op: control.Retire, Replica: r.Replica.Number, Serial: r.Replica.Serial}
		words := fmt.Sprintf("retire replica %d", r.Replica.Number)
		answers, err := f.confirm(ctx, []told{{worker: r.Worker, order: order, words: words}})
		if err != nil {
			return r, err
		}
		a := answers[r.Worker.ID]
		if a.Outcome == control.Done {
			r.Worker = fromWire(&a.Worker, time.Now())
			if still := r.Worker.replica(r.Replica.Number, r.Replica.Serial); still != nil {
				r.Replica, r.Finishes = *still, still.Busy
			}
			return r, nil
		}
		refused = fmt.Errorf("%s says: %w", r.Worker.Name(), errors.New(a.Why))
	}
	return Retired{}, fmt.Errorf("%w: %w", ErrChanging, refused)
}

// choose chooses the replica that is to leave: on the worker from which a plan would take
// one, an idle one if there is, else that with the highest number.
func choose(workers []Worker) (r Retired, ok bool) {
	for i, size := range plan(workers, total(workers)-1) {
		if w := workers[i]; size < w.Size {
			r.Worker = w
		}
	}
	for _, one := range r.Worker.Replicas {
		if !one.Leaving && (!ok || !one.Busy || r.Replica.Busy) {
			r.Replica, ok = one, true
		}
	}
	return r, ok
}
