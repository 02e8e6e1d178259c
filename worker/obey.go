package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/control"
	"github.com/millrace/millrace/replica"
)

const (
	// maxReplicas is how many replicas a worker can be told to have: beyond, it is a slip
	// of the finger.
	maxReplicas = 10_000
	// settleWithin is how long an order to scale waits until what it asked for is so. It
	// is enough for replicas that are idle; busy ones finish their tasks.
	settleWithin = 100 * time.Millisecond
)

// obey does what an order says, unless that was done before, and returns the answer.
func (w *Worker) obey(ctx context.Context, o control.Order) control.Answer {
	switch o.Op {
	case control.Report:
		return control.Answer{ID: o.ID, Outcome: control.Done}
	case control.Pause, control.Resume:
		// What is so is not said but kept: an order that comes late does no harm.
		if err := w.lookWhetherPaused(ctx); err != nil {
			w.setPaused(o.Op == control.Pause)
		}
		return control.Answer{ID: o.ID, Outcome: control.Done}
	}
	if a, before := w.obeyed.get(o.ID); before {
		return a
	}
	a := control.Answer{ID: o.ID, Outcome: control.Done}
	if err := w.carryOut(ctx, o); err != nil {
		a.Outcome, a.Why = control.Refused, err.Error()
	}
	w.obeyed.put(a)
	w.tell(Event{Kind: Told, Order: orderText(o), Err: whyRefused(a)})
	return a
}

// carryOut does what an order says that changes something.
func (w *Worker) carryOut(ctx context.Context, o control.Order) error {
	switch {
	case o.To == "":
		return errors.New("it names no worker")
	case o.Before > 0 && control.Millis(time.Since(w.born)) >= o.Before:
		return errors.New("it came too late")
	case w.ending.Load() && o.Op != control.Drain:
		return errors.New("the worker is ending")
	}
	switch o.Op {
	case control.Scale:
		size := w.replicas.Size()
		switch {
		case size != o.From:
			return fmt.Errorf("there are %d replicas, not %d", size, o.From)
		case o.Size < 0 || o.Size > maxReplicas:
			return fmt.Errorf("a worker can have up to %d replicas", maxReplicas)
		}
		ctx, cancel := context.WithTimeout(ctx, settleWithin)
		defer cancel()
		if err := w.Scale(ctx, o.Size); !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return nil
	case control.Retire:
		err := w.replicas.RetireReplica(o.Replica, o.Serial)
		if errors.Is(err, replica.ErrNoReplica) {
			return fmt.Errorf("replica %d is gone, or leaving", o.Replica)
		}
		return w.scaled(err)
	case control.Drain:
		w.beginDrain()
	}
	return nil
}

// orderText is an order in words.
func orderText(o control.Order) string {
	switch o.Op {
	case control.Scale:
		return fmt.Sprintf("scale from %d to %d replicas", o.From, o.Size)
	case control.Retire:
		return fmt.Sprintf("retire replica %d", o.Replica)
	}
	return string(o.Op)
}

func whyRefused(a control.Answer) error {
	if a.Outcome != control.Refused {
		return nil
	}
	return errors.New("refused: " + a.Why)
}

// maxObeyed is how many orders a worker remembers. Askers repeat theirs for seconds.
const maxObeyed = 256

// obeyed remembers how the last orders were answered, so that a repeat is harmless. It is
// follow's goroutine's.
type obeyed struct {
	answers map[string]control.Answer // by the order's id
	ring    [maxObeyed]string         // the ids, in the order in which they came
	next    int                       // the place in the ring of the next one
}

func (b *obeyed) get(id string) (control.Answer, bool) {
	a, ok := b.answers[id]
	return a, ok
}

func (b *obeyed) put(a control.Answer) {
	if b.answers == nil {
		b.answers = make(map[string]control.Answer)
	}
	delete(b.answers, b.ring[b.next])
	b.answers[a.ID] = a
	b.ring[b.next] = a.ID
	b.next = (b.next + 1) % maxObeyed
}
