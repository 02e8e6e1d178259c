package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/control"
)

const (
	// maxReplicas is how many replicas a worker may have. It refuses more.
	maxReplicas = 10_000
	// maxTries is how often the workers are looked at again because they had changed.
	maxTries = 5
)

// Scaled is what Scale has changed.
type Scaled struct {
	Before, After int // replicas in all, without those that are leaving
	Changes       []Resized
}

// Resized is a worker that has another number of replicas now.
type Resized struct {
	Worker   Worker // as it is now
	From, To int
}

// Leaving is how many of the replicas that were told to leave finish a task first.
func (s *Scaled) Leaving() (n int) {
	for i := range s.Changes {
		c := &s.Changes[i]
		n += max(0, min(c.Worker.Leaving(), c.From-c.To)) // others may leave there too
	}
	return n
}

// Scale changes how many replicas the workers of the queue have in all, to 0 also: then
// tasks wait. New ones are started where there are the fewest a core; those that leave do so
// where there are the most, idle ones first, and busy ones after their tasks. It returns
// when the workers have confirmed that: new replicas take tasks, leaving ones begin no
// other.
//
// With an error, Scaled tells what was changed nevertheless. It is ErrNoWorker, ErrTooFew,
// ErrTooMany, ErrChanging, an *UnconfirmedError, the cause of ctx, or what the broker says.
func (f *Fleet) Scale(ctx context.Context, c Change) (Scaled, error) {
	var s Scaled
	if c.n < 0 && c.to {
		return s, fmt.Errorf("%w: %d", ErrTooFew, c.n)
	}
	var refused error
	for try := range maxTries {
		workers, err := f.steerable(ctx)
		if err != nil {
			return s, err
		}
		have := total(workers)
		if try == 0 {
			s.Before = have
		}
		s.After = have
		want := c.from(have)
		switch {
		case want < 0:
			return s, fmt.Errorf("%w: there are %d", ErrTooFew, have)
		case want > maxReplicas*len(workers):
			return s, fmt.Errorf("%w: %d, of %d for each", ErrTooMany, want, maxReplicas)
		case want == have:
			return s, nil
		}
		moved, again, err := f.resize(ctx, workers, plan(workers, want), &s)
		if !c.to {
			c.n -= moved
		}
		if err != nil || again == nil {
			return s, err
		}
		refused = again
	}
	return s, fmt.Errorf("%w: %w", ErrChanging, refused)
}

// resize tells the workers to have those sizes, and notes what has changed. It returns by
// how much in all, and why a worker refused, if one did.
func (f *Fleet) resize(ctx context.Context, workers []Worker, sizes []int, s *Scaled) (moved int, refused, err error) {
	var all []told
	for i, w := range workers {
		if sizes[i] != w.Size {
			order := control.Order{Op: control.Scale, From: w.Size, Size: sizes[i]}
			words := fmt.Sprintf("have %d replicas in place of %d", sizes[i], w.Size)
			all = append(all, told{worker: w, order: order, words: words})
		}
	}
	answers, err := f.confirm(ctx, all)
	for _, t := range all {
		switch a, ok := answers[t.worker.ID]; {
		case !ok:
		case a.Outcome == control.Done:
			moved += t.order.Size - t.order.From
			s.Changes = append(s.Changes, Resized{fromWire(&a.Worker, time.Now()), t.order.From, t.order.Size})
		default:
			refused = fmt.Errorf("%s says: %w", t.worker.Name(), errors.New(a.Why))
		}
	}
	s.After += moved
	return moved, refused, err
}

func total(workers []Worker) (n int) {
	for i := range workers {
		n += workers[i].Size
	}
	return n
}
