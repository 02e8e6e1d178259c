package worker_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/worker"
)

// inDeafBubble is inBubble with a handler that ignores its context for the payload
// "deaf", until f has returned, and answers every other task at once.
func inDeafBubble(t *testing.T, cfg worker.Config, f func(r *rig, ran *atomic.Int64)) {
	t.Helper()
	var ran atomic.Int64
	var release chan struct{} // made in the bubble
	h := worker.HandlerFunc(func(_ context.Context, task *worker.Task) ([]byte, error) {
		if string(task.Payload) == "deaf" {
			ran.Add(1)
			<-release
		}
		return task.Payload, nil
	})
	inBubble(t, h, cfg, func(r *rig) {
		release = make(chan struct{})
		f(r, &ran)
		close(release)
		synctest.Wait()
	})
}

// A handler without a TTL that ignores its timeout fails its task all the same, and its
// replica is replaced: the next task runs.
func TestATimeoutHasTeethWithoutATTL(t *testing.T) {
	cfg := worker.Config{Replicas: 1, Timeout: time.Second, Grace: 2 * time.Second, Retries: -1}
	inDeafBubble(t, cfg, func(r *rig, ran *atomic.Int64) {
		start := time.Now()
		r.ask("deaf", "well")
		got := r.answers(10 * time.Second)
		if len(got) != 2 || !strings.HasPrefix(got[0], "job-0 timeout: ") || got[1] != "job-1 well" {
			t.Errorf("answers: %q", got)
		}
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("it took %v", took)
		}
		r.equal("runs", ran.Load(), 1)
		r.equal("dead letters", len(r.deadLetters()), 1)
		r.equal("left in the queue", r.depth(), millrace.Depth{})
	})
}

// One that ignores that its task was cancelled is replaced too.
func TestACancelledTaskCannotKeepAReplica(t *testing.T) {
	inDeafBubble(t, worker.Config{Replicas: 1, Grace: 2 * time.Second}, func(r *rig, _ *atomic.Int64) {
		r.ask("deaf")
		synctest.Wait()
		r.publish(queue+millrace.ControlSuffix, `{"v":1,"op":"cancel","cancel":"job-0"}`)
		synctest.Wait()
		r.publish(queue, "well", "id", "job-1", "reply-to", replyTo)
		got := r.answers(10 * time.Second)
		if len(got) != 1 || !strings.HasSuffix(got[0], " well") {
			t.Errorf("answers: %q", got)
		}
		r.equal("left in the queue", r.depth(), millrace.Depth{})
	})
}

// One task that hangs whatever runs it ends in one error and one dead letter, and the
// worker outlives it.
func TestOnePoisonTaskDoesNotBringDownTheWorker(t *testing.T) {
	cfg := worker.Config{Replicas: 2, TTL: time.Second, Grace: time.Second}
	inDeafBubble(t, cfg, func(r *rig, ran *atomic.Int64) {
		r.ask("deaf", "well")
		got := r.answers(10 * time.Minute)
		if len(got) != 2 || got[0] != "job-1 well" ||
			!strings.HasPrefix(got[1], "job-0 killed: ") || !strings.Contains(got[1], "was silent for its TTL of 1s") {
			t.Errorf("answers: %q", got)
		}
		r.equal("runs", ran.Load(), 5)
		r.equal("dead letters", len(r.deadLetters()), 1)
		r.ask("well")
		r.equal("it still works", len(r.answers(10*time.Second)), 1)
	})
}

func TestAWorkerWithoutAHandlerIsRefused(t *testing.T) {
	if _, err := worker.New(nil, queue, nil, worker.Config{}); err == nil {
		t.Error("it was accepted")
	}
}
