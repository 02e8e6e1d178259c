package fleet

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/internal/control"
)

// silentAfter is after how long a worker that drains and says nothing counts as dead. It is
// asked each second.
const silentAfter = 5 * time.Second

// Drained is what became of the workers that Drain told to end.
type Drained struct {
	Ended    []Worker // in good order, as they were at the end
	Draining []Worker // that have confirmed it and finish their tasks yet
}

// Drain makes every worker of the queue end: it finishes the tasks that it runs, publishes
// their results, gives back the others and ends, as it would when it is told so on its own
// machine. It returns when all have ended; how long that takes is for their tasks to say.
//
// Returns ErrNoWorker, an *UnconfirmedError for those that did not confirm or fell silent
// before they had ended, the cause of ctx, or what the broker says. With an error, Drained
// tells what became of the others; those that have confirmed go on when ctx ends.
func (f *Fleet) Drain(ctx context.Context) (Drained, error) {
	if err := f.call(ctx, control.Report, anyAnswer); err != nil {
		return Drained{}, err
	}
	var all []told
	for _, w := range f.workers(time.Now()) { // also those that drain: they are waited for
		if w.Silent == 0 {
			all = append(all, told{worker: w, order: control.Order{Op: control.Drain}, words: "drain"})
		}
	}
	if len(all) == 0 {
		return Drained{}, ErrNoWorker
	}
	answers, err := f.confirm(ctx, all)
	var confirmed []told
	for _, t := range all {
		if _, ok := answers[t.worker.ID]; ok {
			confirmed = append(confirmed, t)
		}
	}
	d, lost, waitErr := f.awaitEnds(ctx, confirmed)
	var silent *UnconfirmedError
	switch {
	case errors.As(err, &silent):
		silent.add(lost)
	case err == nil && waitErr == nil && len(lost) > 0:
		err = unconfirmed(lost, nil)
	case err == nil:
		err = waitErr
	}
	return d, err
}

// awaitEnds waits until the workers have ended, and returns those that fell silent before.
func (f *Fleet) awaitEnds(ctx context.Context, all []told) (d Drained, lost []told, err error) {
	a := f.begin(anyAnswer)
	defer f.finish(a)
	report := control.Order{ID: a.id, Op: control.Report, ReplyTo: f.replyTo}.Encode()
	for said := time.Now(); ; {
		d, lost = f.ends(all)
		if len(d.Draining) == 0 {
			return d, lost, nil
		}
		again := time.Until(said.Add(time.Second))
		if again <= 0 {
			_ = f.say(ctx, callPatience, report) // who is not told does not answer either
			said, again = time.Now(), time.Second
		}
		if err := f.wait(ctx, a, again); err != nil {
			return d, lost, err
		}
	}
}

// ends sorts the workers by what became of them.
func (f *Fleet) ends(all []told) (d Drained, lost []told) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range all {
		m := f.members[t.worker.ID]
		switch {
		case m == nil || !m.ended && time.Since(m.heard) > silentAfter:
			lost = append(lost, t)
		case m.ended:
			d.Ended = append(d.Ended, fromWire(&m.Worker, m.heard))
		default:
			d.Draining = append(d.Draining, fromWire(&m.Worker, m.heard))
		}
	}
	return d, lost
}
