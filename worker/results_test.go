package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/worker"
)

// shout is a handler that has an answer to everything.
var shout = worker.Func(func(_ context.Context, s string) (string, error) { return s + "!", nil })

func TestEveryTaskIsAnsweredAndAcked(t *testing.T) {
	inBubble(t, shout, worker.Config{}, func(r *rig) {
		r.ask("a", "b", "c")
		got := r.answers(time.Second)
		slices.Sort(got)
		r.equal("answers", got, []string{"job-0 a!", "job-1 b!", "job-2 c!"})
		r.equal("left in the queue", r.depth(), millrace.Depth{})
	})
}

// The other order would lose the answer when the worker dies in between.
func TestATaskIsAckedOnlyWhenItsResultIsSafe(t *testing.T) {
	inBubble(t, shout, worker.Config{Replicas: 1}, func(r *rig) {
		r.broker.set(func(b *tapped) {
			b.refuse = func(call string) error {
				if strings.HasPrefix(call, "publish "+replyTo) {
					return millrace.ErrNoSpace
				}
				return nil
			}
		})
		r.ask("a")
		r.equal("answers while the broker refuses", len(r.answers(time.Second)), 0)
		r.equal("acks before the result was safe", r.broker.log("ack"), "[]")
		r.broker.set(func(b *tapped) { b.refuse = nil })
		r.equal("answers", r.answers(time.Minute), "[job-0 a!]")
		r.equal("acks", r.broker.log("ack"), "[ack 1]")
	})
}

func TestABrokerThatRefusesResultsGetsThemLater(t *testing.T) {
	var began atomic.Int64
	h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
		began.Add(1)
		return t.Payload, nil
	})
	inBubble(t, h, worker.Config{Replicas: 1, Lease: 30 * time.Second}, func(r *rig) {
		r.broker.set(func(b *tapped) {
			b.refuse = func(call string) error {
				if strings.HasPrefix(call, "publish") {
					return millrace.ErrNoSpace
				}
				return nil
			}
		})
		for range 100 {
			r.ask("a")
			synctest.Wait()
		}
		time.Sleep(5 * time.Minute)
		if n := began.Load(); n >= 10 {
			t.Errorf("%d tasks were begun while the broker refuses their results", n)
		}
		r.equal("prefetch", r.broker.prefetch(), 0)
		if !errors.Is(r.worker.Status().Refused, millrace.ErrNoSpace) || r.saw(worker.BrokerRefuses) < 10 {
			t.Errorf("it was not said that the broker refuses: %v", r.worker.Status().Refused)
		}
		r.equal("leases lost meanwhile", r.saw(worker.TaskLost), 0)
		r.broker.set(func(b *tapped) { b.refuse = nil })
		r.equal("answers", len(r.answers(time.Minute)), 100)
		r.equal("tasks that were run", began.Load(), 100)
		r.equal("told that it works again", r.saw(worker.BrokerAccepts), 1)
		r.equal("refused", r.worker.Status().Refused, nil)
	})
}

func TestResultsGoToTheTopicOfWhoAsked(t *testing.T) {
	inBubble(t, shout, worker.Config{}, func(r *rig) {
		const clients = 100
		var subs []millrace.Subscription
		for i := range clients {
			sub, err := r.broker.Broker.Subscribe(r.Context(), fmt.Sprintf("reply.%d", i), "replies", millrace.SubscribeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			subs = append(subs, sub)
		}
		for i := range 3 * clients {
			r.publish(queue, fmt.Sprint(i), "id", fmt.Sprint(i), "reply-to", fmt.Sprintf("reply.%d", i%clients))
		}
		for i, sub := range subs {
			var got []string
			for _, d := range r.take(sub, time.Second) {
				got = append(got, show(d))
			}
			slices.Sort(got)
			want := []string{fmt.Sprintf("%d %d!", i, i), fmt.Sprintf("%d %d!", i+clients, i+clients), fmt.Sprintf("%d %d!", i+2*clients, i+2*clients)}
			slices.Sort(want)
			r.equal("answers of one client", got, want)
		}
	})
}

func TestATaskWithoutReplyIsRunAndNobodyIsTold(t *testing.T) {
	ran := make(chan string, 10)
	h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
		ran <- t.ID + string(t.Payload)
		return nil, nil
	})
	inBubble(t, h, worker.Config{}, func(r *rig) {
		r.publish(queue, "plain")
		synctest.Wait()
		r.equal("ran", <-ran, "plain")
		r.equal("published", r.broker.log("publish"), "[]")
		r.equal("left in the queue", r.depth(), millrace.Depth{})
	})
}

func TestAnEmptyResultIsAResult(t *testing.T) {
	h := worker.HandlerFunc(func(context.Context, *worker.Task) ([]byte, error) { return nil, nil })
	inBubble(t, h, worker.Config{}, func(r *rig) {
		r.ask("a")
		r.equal("answers", r.answers(time.Second), "[job-0 ]")
	})
}

func TestAResultThatIsTooLargeIsAnError(t *testing.T) {
	h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
		if string(t.Payload) == "big" {
			return make([]byte, 2000), nil
		}
		return t.Payload, nil
	})
	inBubble(t, h, worker.Config{Replicas: 1}, func(r *rig) {
		r.broker.set(func(b *tapped) { b.limit = 1000 })
		r.ask("a", "big", "b", "c")
		got := r.answers(time.Second)
		slices.Sort(got)
		if len(got) != 4 || !strings.HasPrefix(got[1], "job-1 too-large: the result of 2000 bytes is too large") {
			t.Errorf("answers: %q", got)
		}
		letters := r.deadLetters()
		r.equal("dead letters", len(letters), 1)
		r.equal("its payload", string(letters[0].Body), "big")
		r.equal("retried", r.saw(worker.TaskRetried), 0)
	})
}

// The retried copy and the dead letter are longer than the task by a few headers.
func TestATaskThatJustFitsTheBrokerFailsWithoutALoss(t *testing.T) {
	h := worker.HandlerFunc(func(context.Context, *worker.Task) ([]byte, error) { return nil, errors.New("no luck") })
	inBubble(t, h, worker.Config{}, func(r *rig) {
		r.ask(strings.Repeat("x", 1000))
		r.broker.set(func(b *tapped) { b.limit = 1000 + len("..id.job-0.reply-to.") + len(replyTo) })
		got := r.answers(time.Minute)
		if len(got) != 1 || !strings.HasPrefix(got[0], "job-0 too-large: it cannot be tried again") || !strings.Contains(got[0], "no luck") {
			t.Errorf("answers: %q", got)
		}
		letters := r.deadLetters()
		r.equal("dead letters", len(letters), 1)
		if text := letters[0].Headers.Text("error"); !strings.Contains(text, "payload of 1000 bytes is left out") {
			t.Errorf("the dead letter says %q", text)
		}
	})
}

func TestWhatAHandlerAddsIsInTheResult(t *testing.T) {
	h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
		t.Reply = t.Reply.Append("stderr", "psst")
		if string(t.Payload) == "bad" {
			return nil, worker.Permanent(errors.New("bad"))
		}
		return t.Payload, nil
	})
	inBubble(t, h, worker.Config{Replicas: 1}, func(r *rig) {
		r.ask("good", "bad")
		for _, d := range r.take(r.replies, time.Second) {
			r.equal("header of "+show(d), d.Headers.Text("stderr"), "psst")
		}
	})
}
