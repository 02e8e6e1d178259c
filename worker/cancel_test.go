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

// waiting is a handler that runs for an hour unless its context ends.
func waiting(began *atomic.Int64) worker.Handler {
	return worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
		began.Add(1)
		select {
		case <-time.After(time.Hour):
			return t.Payload, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	})
}

func cancelMessage(id string) millrace.Message {
	return control.Order{Op: control.Cancel, Cancel: id}.Encode()
}

func (r *rig) cancel(id string) {
	r.Helper()
	if err := r.broker.Broker.Publish(r.Context(), queue+millrace.ControlSuffix, cancelMessage(id)); err != nil {
		r.Fatal(err)
	}
	synctest.Wait()
}

func TestCancellingAJobReachesWhatRunsAndWhatWaits(t *testing.T) {
	var began atomic.Int64
	inBubble(t, waiting(&began), worker.Config{Replicas: 2, Prefetch: 2}, func(r *rig) {
		r.ask("a", "b", "c", "d", "e", "f") // 2 run, 2 wait in the worker, 2 in the broker
		r.publish(queue, "other", "id", "job2-0", "reply-to", replyTo)
		synctest.Wait()
		r.cancel("job")
		start := time.Now()
		r.equal("answers", r.answers(2*time.Hour), "[job2-0 other]")
		if time.Since(start) > 3*time.Hour {
			t.Error("the cancelled tasks were run to their end")
		}
		r.equal("runs", began.Load(), 3)
		r.equal("cancelled", r.worker.Status().Cancelled, 6)
		r.equal("left in the queue", r.depth(), millrace.Depth{})
		r.equal("dead letters", len(r.deadLetters()), 0)
	})
}

func TestCancellingOneRequestReachesNoOther(t *testing.T) {
	var began atomic.Int64
	inBubble(t, waiting(&began), worker.Config{Replicas: 20}, func(r *rig) {
		r.ask("a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k") // job-1 is a prefix of job-10
		synctest.Wait()
		r.cancel("job-1")
		r.equal("answers", len(r.answers(2*time.Hour)), 10)
		r.equal("cancelled", r.worker.Status().Cancelled, 1)
	})
}

func TestAReplicaWorksOnAfterItsTaskWasCancelled(t *testing.T) {
	var began atomic.Int64
	inBubble(t, waiting(&began), worker.Config{Replicas: 1}, func(r *rig) {
		r.ask("a")
		synctest.Wait()
		r.cancel("job")
		r.publish(queue, "next", "id", "x-0", "reply-to", replyTo)
		r.equal("answers", r.answers(2*time.Hour), "[x-0 next]")
	})
}

func TestWhatIsNotAControlMessageChangesNothing(t *testing.T) {
	inBubble(t, shout, worker.Config{Replicas: 1}, func(r *rig) {
		for _, body := range []string{
			"", "{", `[1]`, `{"cancel":"job"}`, `{"v":1}`,
			`{"v":1,"op":"cancel"}`, `{"v":2,"op":"cancel","cancel":"job"}`, `{"v":1,"op":"dance","id":"x"}`,
		} {
			r.publish(queue+millrace.ControlSuffix, body)
		}
		synctest.Wait() // until it was heard
		r.ask("a")
		r.equal("answers", r.answers(time.Second), "[job-0 a!]")
	})
}

// The memory of what was cancelled is bounded, and the newest stay.
func TestManyCancelledJobs(t *testing.T) {
	var began atomic.Int64
	inBubble(t, waiting(&began), worker.Config{Replicas: 1}, func(r *rig) {
		for i := range 5000 {
			if err := r.broker.Broker.Publish(r.Context(), queue+millrace.ControlSuffix, cancelMessage(fmt.Sprintf("many%d", i))); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		r.publish(queue, "a", "id", "many4999-0", "reply-to", replyTo)
		r.publish(queue, "b", "id", "many4000-0", "reply-to", replyTo)
		r.publish(queue, "c", "id", "many0-0", "reply-to", replyTo)
		r.equal("answers", r.answers(2*time.Hour), "[many0-0 c]")
	})
}

func TestTheCauseOfACancelledTaskIsErrCancelled(t *testing.T) {
	causes := make(chan error, 1)
	synctest.Test(t, func(t *testing.T) {
		causes = make(chan error, 1)
		r := newRig(t)
		r.serve(worker.HandlerFunc(func(ctx context.Context, _ *worker.Task) ([]byte, error) {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return nil, ctx.Err()
		}), worker.Config{})
		r.ask("a")
		synctest.Wait()
		r.cancel("job-0")
		if err := <-causes; !errors.Is(err, worker.ErrCancelled) {
			t.Errorf("the context ended with %v", err)
		}
		r.end()
	})
}

// A client that is gone has taken its reply topic with it.
func TestACancelledTaskIsNotAnsweredThoughItHasAValue(t *testing.T) {
	h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
		time.Sleep(time.Minute) // and never looks at its context
		return t.Payload, nil
	})
	inBubble(t, h, worker.Config{Replicas: 1}, func(r *rig) {
		r.ask("a", "b")
		synctest.Wait()
		r.cancel("job-0")
		r.equal("answers", r.answers(time.Hour), "[job-1 b]")
		r.equal("cancelled", r.worker.Status().Cancelled, 1)
		r.equal("left in the queue", r.depth(), millrace.Depth{})
	})
}
