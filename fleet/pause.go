package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/control"
)

// Pause makes the workers of the queue take no more tasks until Resume. What runs is
// finished and answered, what they had received beyond that is given back, and tasks that
// are asked for wait. It returns the workers that have confirmed it.
//
// That the queue is paused is kept in the broker, as a topic named QUEUE.paused, as durable
// as the broker's topics are. So it holds for workers that join later, without their asking
// anybody, and whether or not anybody is there now: no worker is no error. A worker that
// cannot see it, because the broker does not tell, begins all the same, and looks again
// every five seconds. Of several nsqds each keeps it; one that was not there knows nothing
// of it, and is believed by workers that can reach no other. Workers in other languages
// that do not heed Millrace's control topic are not paused.
//
// Returns an *UnconfirmedError for workers that were known and have not confirmed it, the
// cause of ctx, or what the broker says.
func (f *Fleet) Pause(ctx context.Context) ([]Worker, error) {
	err := f.broker.Declare(ctx, control.PausedTopic(f.queue), control.PausedChannel)
	if err != nil {
		return nil, fmt.Errorf("fleet: pause %s: %w", f.queue, err)
	}
	return f.announce(ctx, control.Pause)
}

// Resume ends a pause: the workers of the queue take tasks again. It returns those that have
// confirmed it. A worker that did not hear of it finds out within some seconds by itself.
// Resuming a queue that is not paused is no error.
//
// Returns the errors of Pause.
func (f *Fleet) Resume(ctx context.Context) ([]Worker, error) {
	if err := f.broker.Delete(ctx, control.PausedTopic(f.queue), ""); err != nil {
		return nil, fmt.Errorf("fleet: resume %s: %w", f.queue, err)
	}
	return f.announce(ctx, control.Resume)
}

// announce makes all workers look whether the queue is paused, and returns those that have
// seen it.
func (f *Fleet) announce(ctx context.Context, op control.Op) (confirmed []Worker, err error) {
	paused := op == control.Pause
	err = f.call(ctx, op, func(a control.Answer) bool { return a.Worker.Paused == paused })
	if err != nil {
		return nil, err
	}
	var missing []told
	for _, w := range f.workers(time.Now()) {
		if w.Silent == 0 && w.Paused == paused {
			confirmed = append(confirmed, w)
		} else {
			missing = append(missing, told{worker: w, words: string(op)})
		}
	}
	if len(missing) > 0 {
		return confirmed, unconfirmed(missing, nil)
	}
	return confirmed, nil
}
