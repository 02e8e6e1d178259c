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

// failing is a handler that fails the way the payload says.
func failing(ran *atomic.Int64) worker.Handler {
	return worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
		ran.Add(1)
		switch how, _, _ := strings.Cut(string(t.Payload), " "); how {
		case "always":
			return nil, errors.New("no luck")
		case "twice":
			if t.Attempt <= 2 {
				return nil, errors.New("no luck yet")
			}
		case "permanent":
			return nil, fmt.Errorf("wrapped: %w", worker.Permanent(errors.New("never")))
		case "after":
			return nil, worker.RetryAfter(errors.New("busy"), time.Hour)
		case "panic":
			panic("boom")
		case "exit":
			return nil, worker.Permanent(exitError(3))
		case "slow":
			<-ctx.Done()
			return nil, context.Cause(ctx)
		case "late":
			<-ctx.Done()
			return []byte("after all"), nil
		}
		return t.Payload, nil
	})
}

type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }
func (e exitError) ExitCode() int { return int(e) }

func TestWhatAlwaysFailsIsOneErrorAndOneDeadLetter(t *testing.T) {
	var ran atomic.Int64
	inBubble(t, failing(&ran), worker.Config{Retries: 4}, func(r *rig) {
		r.publish(queue, "always", "id", "job-7", "reply-to", replyTo, "color", "red")
		got := r.take(r.replies, time.Hour)
		if len(got) != 1 || show(got[0]) != "job-7 failed: no luck" {
			t.Fatalf("answers: %v", got)
		}
		r.equal("attempts in the result", got[0].Headers.Text("attempts"), "5")
		r.equal("runs", ran.Load(), 5)
		letters := r.deadLetters()
		r.equal("dead letters", len(letters), 1)
		h := letters[0].Headers
		for key, want := range map[string]string{
			"id": "job-7", "color": "red", "queue": queue, "error": "no luck", "error-kind": "failed", "attempts": "5", "failures": "",
		} {
			r.equal("header "+key+" of the dead letter", h.Text(key), want)
		}
		r.equal("left in the queue", r.depth(), millrace.Depth{})
	})
}

// Both must be safe, or a crash could leave a task that is acked and not answered.
func TestAFailedTaskIsAckedAfterItsErrorAndItsDeadLetter(t *testing.T) {
	var ran atomic.Int64
	inBubble(t, failing(&ran), worker.Config{Retries: -1}, func(r *rig) {
		r.ask("always")
		r.answers(time.Minute)
		calls := r.broker.log("publish", "ack", "declare "+queue+".dead")
		if len(calls) != 4 || calls[0] != "declare q.dead dead" || calls[3] != "ack 1" {
			t.Errorf("calls: %q", calls)
		}
	})
}

func TestATaskIsRetriedUntilItSucceeds(t *testing.T) {
	var ran atomic.Int64
	inBubble(t, failing(&ran), worker.Config{}, func(r *rig) {
		r.ask("twice")
		got := r.take(r.replies, time.Hour)
		if len(got) != 1 || show(got[0]) != "job-0 twice" {
			t.Fatalf("answers: %v", got)
		}
		r.equal("attempts", got[0].Headers.Text("attempts"), "3")
		r.equal("runs", ran.Load(), 3)
		r.equal("dead letters", len(r.deadLetters()), 0)
	})
}

func TestTheCopyOfARetryIsSafeBeforeTheTaskIsAcked(t *testing.T) {
	var ran atomic.Int64
	inBubble(t, failing(&ran), worker.Config{}, func(r *rig) {
		r.broker.set(func(b *tapped) {
			b.refuse = func(call string) error {
				if call == "publish q 1" {
					return millrace.ErrNoSpace
				}
				return nil
			}
		})
		r.ask("twice")
		time.Sleep(time.Minute)
		r.equal("acks while the copy is refused", r.broker.log("ack"), "[]")
		r.broker.set(func(b *tapped) { b.refuse = nil })
		r.equal("answers", r.answers(time.Hour), "[job-0 twice]")
	})
}

func TestRetriesBackOffWithJitter(t *testing.T) {
	var ran atomic.Int64
	inBubble(t, failing(&ran), worker.Config{Retries: 8, RetryDelay: time.Second, MaxRetryDelay: 10 * time.Second}, func(r *rig) {
		var payloads []string
		for i := range 50 {
			payloads = append(payloads, fmt.Sprintf("always %d", i))
		}
		r.ask(payloads...)
		r.answers(time.Hour)
		delays := map[int]map[time.Duration]bool{}
		for _, e := range r.told() {
			if e.Kind != worker.TaskRetried {
				continue
			}
			bound := min(time.Second<<(e.Attempt-1), 10*time.Second)
			if e.Delay < bound/2 || e.Delay > bound {
				t.Errorf("retry %d waits %v, want %v to %v", e.Attempt, e.Delay, bound/2, bound)
			}
			if delays[e.Attempt] == nil {
				delays[e.Attempt] = map[time.Duration]bool{}
			}
			delays[e.Attempt][e.Delay] = true
		}
		r.equal("retries of each task", len(delays), 8)
		for attempt, different := range delays {
			if len(different) < 40 {
				t.Errorf("the delays of %d of 50 tasks before retry %d are different: no jitter", len(different), attempt)
			}
		}
	})
}

func TestAPermanentErrorIsNotRetried(t *testing.T) {
	var ran atomic.Int64
	inBubble(t, failing(&ran), worker.Config{}, func(r *rig) {
		r.ask("permanent")
		r.equal("answers", r.answers(time.Hour), "[job-0 failed: wrapped: never]")
		r.equal("runs", ran.Load(), 1)
	})
}

func TestRetryAfterSaysWhen(t *testing.T) {
	var ran atomic.Int64
	inBubble(t, failing(&ran), worker.Config{Retries: 2}, func(r *rig) {
		r.ask("after")
		for run := int64(1); run <= 3; run++ {
			time.Sleep(time.Minute)
			r.equal("runs", ran.Load(), run)
			time.Sleep(59 * time.Minute)
		}
		r.equal("answers", r.answers(time.Second), "[job-0 failed: busy]")
	})
}

func TestAPanicIsAnErrorWithItsStack(t *testing.T) {
	var ran atomic.Int64
	inBubble(t, failing(&ran), worker.Config{Replicas: 1, Retries: 1}, func(r *rig) {
		r.ask("panic", "fine")
		got := r.take(r.replies, time.Hour)
		if len(got) != 2 || show(got[0]) != "job-1 fine" || show(got[1]) != "job-0 panic: panic: boom" {
			t.Fatalf("answers: %v", got)
		}
		if text := got[1].Headers.Text("error"); !strings.Contains(text, "failures_test.go") {
			t.Errorf("no stack in %q", text)
		}
		r.equal("replicas that had to be replaced", r.saw(worker.ReplicaFailed), 0)
	})
}

func TestTheExitCodeIsInTheResult(t *testing.T) {
	var ran atomic.Int64
	inBubble(t, failing(&ran), worker.Config{}, func(r *rig) {
		r.ask("exit")
		got := r.take(r.replies, time.Hour)
		r.equal("exit code", got[0].Headers.Text("exit-code"), "3")
		r.equal("in the dead letter", r.deadLetters()[0].Headers.Text("exit-code"), "3")
	})
}

func TestAnAttemptEndsWithItsTimeout(t *testing.T) {
	var ran atomic.Int64
	inBubble(t, failing(&ran), worker.Config{Timeout: time.Minute, Retries: 1, Replicas: 3}, func(r *rig) {
		start := time.Now()
		r.ask("slow")
		r.publish(queue, "slow", "id", "own", "reply-to", replyTo, "timeout", "3h", "retries", "0")
		r.publish(queue, "late", "id", "late", "reply-to", replyTo)
		got := r.take(r.replies, 10*time.Hour)
		slices.SortFunc(got, func(a, b millrace.Delivery) int { return strings.Compare(show(a), show(b)) })
		r.equal("answers", len(got), 3)
		r.equal("after two attempts", show(got[0]), "job-0 timeout: "+worker.ErrTimeout.Error())
		r.equal("a value counts though it is late", show(got[1]), "late after all")
		r.equal("the task's own timeout", show(got[2]), "own timeout: "+worker.ErrTimeout.Error())
		r.equal("runs", ran.Load(), 4)
		if took := time.Unix(0, got[2].Published).Sub(start); took < 3*time.Hour || took > 3*time.Hour+time.Second {
			t.Errorf("the task's own timeout of 3h ended it after %v", took)
		}
	})
}

func TestAHandlerThatIgnoresItsTimeoutDoesNotKeepTheTask(t *testing.T) {
	release := make(chan struct{})
	var ran atomic.Int64
	h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
		if ran.Add(1) == 1 {
			<-release
			return nil, errors.New("much too late")
		}
		return t.Payload, nil
	})
	synctest.Test(t, func(t *testing.T) {
		release = make(chan struct{})
		r := newRig(t)
		r.serve(h, worker.Config{Timeout: time.Second, Replicas: 2})
		r.ask("a")
		r.equal("answers", r.answers(time.Minute), "[job-0 a]")
		close(release)
		r.equal("answers of the first attempt", len(r.answers(time.Minute)), 0)
		r.equal("lost attempts", r.saw(worker.TaskLost), 1)
		r.end()
	})
}

func TestForeignMessagesAreKeptAsDeadLetters(t *testing.T) {
	inBubble(t, shout, worker.Config{}, func(r *rig) {
		raw := millrace.Headers("\x02id\x03abc\xff\xff")
		if err := r.broker.Broker.Publish(r.Context(), queue, millrace.Message{Headers: raw, Body: []byte("a")}); err != nil {
			t.Fatal(err)
		}
		r.publish(queue, "b", "id", "two", "reply-to", replyTo, "retries", "many")
		r.publish(queue, "c", "id", "three", "reply-to", "not a name!")
		got := r.answers(time.Minute)
		r.equal("answers", got, "[two foreign: header retries cannot be \"many\"]")
		letters := r.deadLetters()
		r.equal("dead letters", len(letters), 3)
		for _, d := range letters {
			r.equal("kind", d.Headers.Text("error-kind"), "foreign")
			r.equal("attempts", d.Headers.Text("attempts"), "0")
		}
	})
}

// The client, who knows what a task is worth, has the last word.
func TestTheTasksOwnRetriesCount(t *testing.T) {
	var ran atomic.Int64
	inBubble(t, failing(&ran), worker.Config{Retries: 10}, func(r *rig) {
		r.publish(queue, "always", "id", "x", "reply-to", replyTo, "retries", "1")
		r.answers(time.Hour)
		r.equal("runs", ran.Load(), 2)
	})
}

func TestATaskThatKillsItsWorkersIsGivenUp(t *testing.T) {
	var ran atomic.Int64
	h := worker.HandlerFunc(func(context.Context, *worker.Task) ([]byte, error) {
		ran.Add(1)
		return nil, worker.Redeliver(errors.New("killed by signal 9"))
	})
	inBubble(t, h, worker.Config{MaxDeliveries: 5, Retries: -1}, func(r *rig) {
		r.ask("a")
		r.equal("answers", r.answers(time.Hour), "[job-0 killed: it was delivered 5 times without an answer: it kills or hangs what runs it; the last time: killed by signal 9]")
		r.equal("runs", ran.Load(), 5)
		r.equal("dead letters", len(r.deadLetters()), 1)
		r.equal("attempts", r.saw(worker.TaskLost), 5)
	})
}

func TestRedeliveryBurnsNoRetry(t *testing.T) {
	var ran atomic.Int64
	h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
		if ran.Add(1) <= 3 {
			return nil, worker.Redeliver(errors.New("no memory for a process"))
		}
		return t.Payload, nil
	})
	inBubble(t, h, worker.Config{Retries: -1}, func(r *rig) {
		r.ask("a")
		r.equal("answers", r.answers(time.Hour), "[job-0 a]")
	})
}

func TestALongErrorLosesItsMiddle(t *testing.T) {
	h := worker.HandlerFunc(func(context.Context, *worker.Task) ([]byte, error) {
		return nil, worker.Permanent(errors.New("begin" + strings.Repeat("x", 1<<20) + "end"))
	})
	inBubble(t, h, worker.Config{}, func(r *rig) {
		r.ask("a")
		text := r.take(r.replies, time.Second)[0].Headers.Text("error")
		if len(text) > 20_000 || !strings.HasPrefix(text, "begin") || !strings.HasSuffix(text, "end") {
			t.Errorf("%d bytes: %.20s…", len(text), text)
		}
	})
}
