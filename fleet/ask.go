package fleet

import (
	"context"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/control"
)

const (
	// repeatEvery is how often something is said again that was not answered.
	repeatEvery = 500 * time.Millisecond
	// callPatience is how long a roll call waits for workers that do not answer, also for
	// the first of all.
	callPatience = 2 * time.Second
	// firstQuiet is after how much silence a roll call is over when nobody was known before,
	// quiet when all who were have answered.
	firstQuiet = 500 * time.Millisecond
	quiet      = 150 * time.Millisecond
	// confirmWithin is how long a worker has to confirm what it was told. After that it
	// refuses it.
	confirmWithin = 5 * time.Second
)

// ask is something that is said until it is answered. Its fields are protected by Fleet.mu.
type ask struct {
	id      string
	good    func(control.Answer) bool // says which answers count
	answers map[string]control.Answer // by the worker's id
	last    time.Time                 // when the last of these workers answered
	changed chan struct{}             // tells who waits; has room for one token
}

func (a *ask) hear(answer control.Answer) {
	if answer.ID == a.id && a.good(answer) {
		if _, before := a.answers[answer.Worker.ID]; !before {
			a.last = time.Now()
		}
		a.answers[answer.Worker.ID] = answer
	} else if answer.Outcome != control.Ended {
		return
	}
	a.wake()
}

func (a *ask) wake() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// begin begins to listen for the answers to what will be said with that id.
func (f *Fleet) begin(good func(control.Answer) bool) *ask {
	a := &ask{id: newID(), good: good, answers: make(map[string]control.Answer), changed: make(chan struct{}, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asks[a] = struct{}{}
	return a
}

func (f *Fleet) finish(a *ask) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.asks, a)
}

// wait waits until more is heard, that long, or until nothing is heard any more.
func (f *Fleet) wait(ctx context.Context, a *ask, d time.Duration) error {
	timer := time.NewTimer(max(0, d))
	defer timer.Stop()
	select {
	case <-a.changed:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// anyAnswer is for asks to which every answer counts.
func anyAnswer(control.Answer) bool { return true }

// call asks all workers at once. It returns when those who were known have given a good
// answer and nobody has spoken for a while, or patience is over; who has not answered then
// is silent. Returns an error when ctx has ended or the broker cannot be talked to.
func (f *Fleet) call(ctx context.Context, op control.Op, good func(control.Answer) bool) error {
	a := f.begin(good)
	defer f.finish(a)
	order := control.Order{ID: a.id, Op: op, ReplyTo: f.replyTo}.Encode()
	f.mu.Lock()
	expected := f.alive()
	f.mu.Unlock()
	start := time.Now()
	for said := (time.Time{}); ; {
		missing, next := f.rest(a, expected, start)
		if next <= 0 {
			break
		}
		if again := time.Until(said.Add(repeatEvery)); said.IsZero() || missing && again <= 0 {
			if err := f.say(ctx, callPatience, order); err != nil {
				return err
			}
			said = time.Now()
			continue
		} else if missing {
			next = min(next, again)
		}
		if err := f.wait(ctx, a, next); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range expected {
		m := f.members[id]
		if _, answered := a.answers[id]; !answered && m != nil && m.heard.Before(start) {
			m.silent = true
		}
	}
	f.forget()
	return nil
}

// rest says whether an answer is missing, and how long to wait for more; 0 when it is over.
func (f *Fleet) rest(a *ask, expected []string, start time.Time) (missing bool, next time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	missing = len(a.answers) == 0
	for _, id := range expected {
		m := f.members[id]
		if _, answered := a.answers[id]; !answered && m != nil && !m.ended {
			missing = true
		}
	}
	if next = time.Until(start.Add(callPatience)); missing {
		return true, next
	}
	after := firstQuiet
	if len(expected) > 0 {
		after = quiet
	}
	return false, min(next, time.Until(a.last.Add(after)))
}

// say publishes orders.
func (f *Fleet) say(ctx context.Context, within time.Duration, orders ...millrace.Message) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return f.broker.Publish(ctx, control.Topic(f.queue), orders...)
}

// told is an order for one worker.
type told struct {
	worker Worker
	order  control.Order
	words  string // what it is told to do
}

// confirm tells workers something, each its own, until all have answered. The answers are
// by worker. Those that did not answer, and will refuse from now on, are in an
// *UnconfirmedError; another error is the cause of ctx, or that nothing is heard any more.
func (f *Fleet) confirm(ctx context.Context, all []told) (map[string]control.Answer, error) {
	a := f.begin(anyAnswer)
	defer f.finish(a)
	start := time.Now()
	for i := range all {
		t := &all[i]
		t.order.ID, t.order.To, t.order.ReplyTo = a.id, t.worker.ID, f.replyTo
		// In the worker's own time, which is not behind this: so when confirmWithin is over
		// here it is over there.
		t.order.Before = control.Millis(t.worker.Age + start.Sub(t.worker.heard) + confirmWithin)
	}
	var sayErr error
	for said := (time.Time{}); ; {
		answers, missing := f.answered(a, all)
		left := time.Until(start.Add(confirmWithin))
		if len(missing) == 0 {
			return answers, nil
		}
		if left <= 0 {
			return answers, unconfirmed(missing, sayErr)
		}
		if again := time.Until(said.Add(repeatEvery)); again <= 0 {
			var orders []millrace.Message
			for _, t := range missing {
				orders = append(orders, t.order.Encode())
			}
			sayErr = f.say(ctx, left, orders...)
			said = time.Now()
			continue
		} else if err := f.wait(ctx, a, min(left, again)); err != nil {
			return answers, err
		}
	}
}

// answered returns the answers there are, and who has not given one.
func (f *Fleet) answered(a *ask, all []told) (answers map[string]control.Answer, missing []told) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answers = make(map[string]control.Answer)
	for _, t := range all {
		if answer, ok := a.answers[t.worker.ID]; ok {
			answers[t.worker.ID] = answer
		} else if m := f.members[t.worker.ID]; m != nil && m.ended {
			answers[t.worker.ID] = control.Answer{Outcome: control.Ended, Why: "the worker has ended", Worker: m.Worker}
		} else {
			missing = append(missing, t)
		}
	}
	return answers, missing
}
