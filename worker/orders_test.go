package worker_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/control"
	"github.com/millrace/millrace/worker"
)

const asker = "answers.me#ephemeral"

// say publishes an order, and returns what the worker answers.
func (r *rig) say(o control.Order) (answers []control.Answer) {
	r.Helper()
	sub, err := r.broker.Broker.Subscribe(r.Context(), asker, control.AnswerChannel, millrace.SubscribeOptions{})
	if err != nil {
		r.Fatal(err)
	}
	defer sub.Close()
	o.ReplyTo = asker
	if err := r.broker.Broker.Publish(r.Context(), control.Topic(queue), o.Encode()); err != nil {
		r.Fatal(err)
	}
	for _, d := range r.take(sub, time.Second) {
		if a, ok := control.ReadAnswer(d.Body); ok && a.ID == o.ID {
			answers = append(answers, a)
		}
	}
	return answers
}

// outcome says an order and returns the outcome, "" when there is no answer.
func (r *rig) outcome(o control.Order) string {
	r.Helper()
	answers := r.say(o)
	if len(answers) == 0 {
		return ""
	}
	return fmt.Sprint(answers[0].Outcome, " ", answers[0].Why)
}

func (r *rig) id() string { return r.worker.Status().ID }

func (r *rig) size() int { return r.say(control.Order{ID: "size", Op: control.Report})[0].Worker.Size }

func TestARepeatedOrderIsAnsweredAgainAndObeyedOnce(t *testing.T) {
	inBubble(t, shout, worker.Config{Replicas: 3}, func(r *rig) {
		first := control.Order{ID: "1", Op: control.Scale, To: r.id(), From: 3, Size: 5}
		r.equal("first", r.outcome(first), "done ")
		r.equal("back", r.outcome(control.Order{ID: "2", Op: control.Scale, To: r.id(), From: 5, Size: 3}), "done ")
		r.equal("first again", r.outcome(first), "done ")
		r.equal("size", r.size(), 3)
		r.equal("told", r.saw(worker.Told), 2)
	})
}

func TestAnOrderThatDoesNotFitIsRefused(t *testing.T) {
	inBubble(t, shout, worker.Config{Replicas: 3}, func(r *rig) {
		me := r.id()
		const late = 1
		for i, c := range []struct {
			order control.Order
			want  string
		}{
			{control.Order{Op: control.Scale, To: me, From: 2, Size: 5}, "refused there are 3 replicas, not 2"},
			{control.Order{Op: control.Scale, To: me, From: 3, Size: -1}, "refused a worker can have up to 10000 replicas"},
			{control.Order{Op: control.Scale, To: me, From: 3, Size: 10_001}, "refused a worker can have up to 10000 replicas"},
			{control.Order{Op: control.Scale, From: 3, Size: 5}, "refused it names no worker"},
			{control.Order{Op: control.Drain}, "refused it names no worker"},
			{control.Order{Op: control.Retire}, "refused it names no worker"},
			{control.Order{Op: control.Drain, To: me, Before: late}, "refused it came too late"},
			{control.Order{Op: control.Retire, To: me, Replica: 2, Serial: 1}, "refused replica 2 is gone, or leaving"},
			{control.Order{Op: control.Scale, To: "somebody", From: 3, Size: 5}, ""},
		} {
			c.order.ID = fmt.Sprint(i)
			r.equal(fmt.Sprintf("%+v", c.order), r.outcome(c.order), c.want)
		}
		r.equal("size", r.size(), 3)
		r.equal("draining", r.worker.Status().Draining, false)
	})
}

func TestAnOrderHoldsUntilItsTimeInTheWorkersOwnClock(t *testing.T) {
	inBubble(t, shout, worker.Config{Replicas: 1}, func(r *rig) {
		time.Sleep(time.Minute)
		soon := control.Millis(time.Minute + time.Hour)
		r.equal("in time", r.outcome(control.Order{ID: "1", Op: control.Scale, To: r.id(), From: 1, Size: 2, Before: soon}), "done ")
		time.Sleep(time.Hour)
		r.equal("too late", r.outcome(control.Order{ID: "2", Op: control.Scale, To: r.id(), From: 2, Size: 3, Before: soon}), "refused it came too late")
	})
}

func TestAWorkerThatDrainsIsAskedAndCancelledButNotScaled(t *testing.T) {
	var began atomic.Int64
	inBubble(t, waiting(&began), worker.Config{Replicas: 2}, func(r *rig) {
		r.ask("a", "b")
		synctest.Wait()
		r.equal("drain", r.outcome(control.Order{ID: "1", Op: control.Drain, To: r.id()}), "done ")
		r.equal("drain again", r.outcome(control.Order{ID: "2", Op: control.Drain, To: r.id()}), "done ")
		r.equal("scale", r.outcome(control.Order{ID: "3", Op: control.Scale, To: r.id(), From: 2, Size: 3}), "refused the worker is ending")
		w := r.say(control.Order{ID: "4", Op: control.Report})[0].Worker
		r.equal("report", fmt.Sprint(w.Draining, w.Busy), "true 2")
		r.cancel("job-0")
		time.Sleep(time.Second)
		w = r.say(control.Order{ID: "5", Op: control.Report})[0].Worker
		r.equal("after one was cancelled", fmt.Sprint(w.Draining, w.Busy, w.Cancelled), "true 1 1")
		r.equal("answers", r.answers(2*time.Hour), "[job-1 b]")
		r.equal("Serve", <-r.served, nil)
		r.served <- nil
	})
}

// A drain that was begun from elsewhere has no end; who calls Drain too has one.
func TestDrainIsBoundedByWhoeverIsInAHurry(t *testing.T) {
	var began atomic.Int64
	inBubble(t, waiting(&began), worker.Config{Replicas: 1}, func(r *rig) {
		r.ask("a")
		synctest.Wait()
		r.equal("drain", r.outcome(control.Order{ID: "1", Op: control.Drain, To: r.id()}), "done ")
		hurry := errors.New("the machine goes down")
		ctx, cancel := context.WithTimeoutCause(r.Context(), time.Minute, hurry)
		defer cancel()
		r.equal("Drain", r.worker.Drain(ctx), hurry)
		r.equal("Serve", <-r.served, hurry)
		r.served <- nil
		r.equal("given back", r.depth(), millrace.Depth{Ready: 1})
	})
}

// Waiting tasks are given back, and one that a replica was about to begin too.
func TestAPausedWorkerBeginsNothing(t *testing.T) {
	var began atomic.Int64
	inBubble(t, waiting(&began), worker.Config{Replicas: 1, Prefetch: 5}, func(r *rig) {
		if err := r.broker.Declare(r.Context(), control.PausedTopic(queue), control.PausedChannel); err != nil {
			t.Fatal(err)
		}
		r.ask("a", "b", "c")
		synctest.Wait()
		r.equal("pause", r.outcome(control.Order{ID: "1", Op: control.Pause}), "done ")
		r.equal("given back", r.depth(), millrace.Depth{Ready: 2, InFlight: 1})
		r.answers(3 * time.Hour)
		r.equal("begun", began.Load(), 1)
		r.equal("events", r.saw(worker.Paused), 1)
		if err := r.broker.Broker.Delete(r.Context(), control.PausedTopic(queue), ""); err != nil {
			t.Fatal(err)
		}
		r.answers(3 * time.Hour) // nobody tells it
		r.equal("begun", began.Load(), 3)
		r.equal("events", r.saw(worker.Resumed), 1)
	})
}

// A task is on its way, and there is a replica that waits for it.
func TestATaskThatArrivesInAPauseIsNotBegun(t *testing.T) {
	inBubble(t, shout, worker.Config{Replicas: 1, Prefetch: 5}, func(r *rig) {
		arrives := make(chan struct{})
		r.broker.set(func(b *tapped) { b.arrives = arrives })
		r.ask("a")
		synctest.Wait()
		r.equal("on their way", r.depth(), millrace.Depth{InFlight: 1})
		if err := r.broker.Declare(r.Context(), control.PausedTopic(queue), control.PausedChannel); err != nil {
			t.Fatal(err)
		}
		r.equal("pause", r.outcome(control.Order{ID: "1", Op: control.Pause}), "done ")
		close(arrives)
		r.equal("answers", r.answers(time.Minute), "[]")
		r.equal("given back", r.depth(), millrace.Depth{Ready: 1})
	})
}

func TestAWorkerThatCannotSeeWhetherItIsPausedBelievesWhatItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.broker.set(func(b *tapped) { b.blind = errors.New("not today") })
		r.serve(shout, worker.Config{Replicas: 1})
		r.equal("paused", r.worker.Status().Paused, false)
		r.equal("pause", r.outcome(control.Order{ID: "1", Op: control.Pause}), "done ")
		r.equal("paused", r.worker.Status().Paused, true)
		r.broker.set(func(b *tapped) { b.blind = nil })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.equal("paused, as it sees now", r.worker.Status().Paused, false)
		r.end()
	})
}

// The memory of orders is bounded, and the newest stay.
func TestManyOrders(t *testing.T) {
	inBubble(t, shout, worker.Config{Replicas: 1}, func(r *rig) {
		for i := range 400 {
			o := control.Order{ID: fmt.Sprint(i), Op: control.Scale, To: r.id(), From: 1 + i%2, Size: 2 - i%2}
			if err := r.broker.Broker.Publish(r.Context(), control.Topic(queue), o.Encode()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		r.equal("told", r.saw(worker.Told), 400)
		r.equal("the last again", r.outcome(control.Order{ID: "399", Op: control.Scale, To: r.id(), From: 2, Size: 1}), "done ")
		r.equal("told", r.saw(worker.Told), 400)
		r.equal("the first again", r.outcome(control.Order{ID: "0", Op: control.Scale, To: r.id(), From: 7, Size: 1}), "refused there are 1 replicas, not 7")
	})
}
