package worker_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/supervise"
	"github.com/millrace/millrace/worker"
)

func TestTheLeasesOfWhatRunsAndOfWhatWaitsAreExtended(t *testing.T) {
	var ran atomic.Int64
	h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
		ran.Add(1)
		time.Sleep(time.Hour)
		return t.Payload, nil
	})
	inBubble(t, h, worker.Config{Replicas: 1, Prefetch: 5, Lease: 3 * time.Second}, func(r *rig) {
		r.ask("a", "b", "c")
		r.equal("answers", len(r.answers(4*time.Hour)), 3)
		r.equal("runs", ran.Load(), 3)
		r.equal("lost", r.saw(worker.TaskLost), 0)
	})
}

func TestAHandlerThatBeatsIsLeftAlone(t *testing.T) {
	h := worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
		for range 1000 {
			time.Sleep(4 * time.Second)
			worker.Beat(ctx)
		}
		return t.Payload, ctx.Err()
	})
	inBubble(t, h, worker.Config{TTL: 5 * time.Second}, func(r *rig) {
		r.ask("a")
		r.equal("answers", r.answers(2*time.Hour), "[job-0 a]")
		r.equal("silent", r.saw(worker.ReplicaSilent), 0)
	})
}

func TestASilentReplicaIsReplacedAndItsTaskRunsElsewhereAtOnce(t *testing.T) {
	var ran atomic.Int64
	causes := make(chan error, 1)
	h := worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
		if ran.Add(1) == 1 {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return []byte("stale"), nil // whatever it says now, nobody hears it
		}
		return t.Payload, nil
	})
	synctest.Test(t, func(t *testing.T) {
		causes = make(chan error, 1)
		r := newRig(t)
		r.serve(h, worker.Config{TTL: 5 * time.Second, Replicas: 2, Retries: -1})
		start := time.Now()
		r.ask("a")
		got := r.take(r.replies, time.Hour)
		if len(got) != 1 || show(got[0]) != "job-0 a" {
			t.Fatalf("answers: %v", got)
		}
		if took := time.Unix(0, got[0].Published).Sub(start); took < 5*time.Second || took > 5100*time.Millisecond {
			t.Errorf("the task ran again after %v, want the TTL of 5s", took)
		}
		r.equal("attempts", got[0].Headers.Text("attempts"), "2")
		if err := <-causes; !errors.Is(err, supervise.ErrSilent) {
			t.Errorf("its context ended with %v", err)
		}
		r.equal("replicas again", len(r.worker.Status().Replicas), 2)
		r.end()
	})
}

func TestAHandlerThatIgnoresItsContextIsAbandonedAndNothingItSaysCounts(t *testing.T) {
	var ran atomic.Int64
	release := make(chan struct{})
	h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
		if ran.Add(1) == 1 {
			<-release
			return []byte("stale"), nil
		}
		return t.Payload, nil
	})
	synctest.Test(t, func(t *testing.T) {
		release = make(chan struct{})
		r := newRig(t)
		r.serve(h, worker.Config{TTL: 5 * time.Second, Replicas: 1, Grace: time.Second})
		r.ask("a")
		r.equal("answers", r.answers(time.Minute), "[job-0 a]")
		r.equal("abandoned", len(r.worker.Status().Abandoned), 1)
		close(release)
		r.equal("answers afterwards", r.answers(time.Minute), "[]")
		r.equal("abandoned afterwards", len(r.worker.Status().Abandoned), 0)
		r.end()
	})
}

func TestTooManyAbandonedHandlersEndTheWorker(t *testing.T) {
	release := make(chan struct{})
	synctest.Test(t, func(t *testing.T) {
		release = make(chan struct{})
		h := worker.HandlerFunc(func(context.Context, *worker.Task) ([]byte, error) {
			<-release
			return nil, nil
		})
		r := newRig(t)
		r.serve(h, worker.Config{TTL: time.Second, Replicas: 2, Grace: time.Second, MaxAbandoned: 3})
		r.ask("a", "b", "c")
		var abandoned *supervise.AbandonedError
		if err := <-r.served; !errors.As(err, &abandoned) || len(abandoned.Stuck) < 4 {
			t.Errorf("Serve returned %v", err)
		}
		close(release)
		synctest.Wait()
		if d := r.depth(); d.Ready != 3 || d.InFlight != 0 {
			t.Errorf("the tasks were not given back: %+v", d)
		}
		r.broker.Close()
	})
}

// By then somebody else may have answered the task.
func TestAnErrorWhoseLeaseHadEndedIsNotSent(t *testing.T) {
	h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
		if string(t.Payload) == "bad" {
			return nil, worker.Permanent(errors.New("bad"))
		}
		if string(t.Payload) == "retry" {
			return nil, errors.New("bad")
		}
		return t.Payload, nil
	})
	inBubble(t, h, worker.Config{Replicas: 1, Prefetch: 5}, func(r *rig) {
		r.broker.set(func(b *tapped) {
			b.loses = func(d millrace.Delivery) bool { return string(d.Body) != "good" }
		})
		r.ask("bad", "good", "retry")
		r.equal("answers", r.answers(time.Second), "[job-1 good]")
		r.equal("published to others than who asked", r.broker.log("publish q"), "[]")
		r.equal("lost", r.saw(worker.TaskLost), 2)
		r.equal("acks", r.broker.log("ack"), "[ack 1]")
	})
}

// Not every broker says which of many leases it was.
func TestWhichLeaseHadEndedIsFoundOut(t *testing.T) {
	h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
		return nil, worker.Permanent(errors.New(string(t.Payload)))
	})
	inBubble(t, h, worker.Config{Replicas: 1}, func(r *rig) {
		r.broker.set(func(b *tapped) {
			b.refuse = func(call string) error {
				if call == "publish q.dead 1" {
					return millrace.ErrNoSpace // so that a batch of more gathers
				}
				return nil
			}
			b.loses = func(d millrace.Delivery) bool { return string(d.Body) == "b" }
			b.vague = true
		})
		r.ask("x")
		synctest.Wait()
		r.ask("a", "b", "c", "d")
		synctest.Wait()
		r.broker.set(func(b *tapped) { b.refuse = nil })
		r.equal("answers", r.answers(time.Minute), "[job-0 failed: x job-0 failed: a job-2 failed: c job-3 failed: d]")
	})
}

func TestAValueCountsThoughItsLeaseHadEnded(t *testing.T) {
	causes := make(chan error, 1)
	synctest.Test(t, func(t *testing.T) {
		causes = make(chan error, 1)
		h := worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return t.Payload, nil
		})
		r := newRig(t)
		r.serve(h, worker.Config{Replicas: 1, Lease: 3 * time.Second})
		r.broker.set(func(b *tapped) { b.loses = func(millrace.Delivery) bool { return true } })
		r.ask("a")
		r.equal("answers", r.answers(2*time.Second), "[job-0 a]")
		if err := <-causes; !errors.Is(err, millrace.ErrLeaseLost) {
			t.Errorf("its context ended with %v", err)
		}
		r.end()
	})
}

func TestATaskWhoseLeaseEndedWhileItWaitedIsNotRun(t *testing.T) {
	var ran atomic.Int64
	h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
		ran.Add(1)
		time.Sleep(10 * time.Second)
		return t.Payload, nil
	})
	inBubble(t, h, worker.Config{Replicas: 1, Prefetch: 1, Lease: 3 * time.Second}, func(r *rig) {
		r.broker.set(func(b *tapped) {
			b.loses = func(d millrace.Delivery) bool { return string(d.Body) == "b" && d.Attempt == 1 }
		})
		r.ask("a", "b")
		r.equal("answers", r.answers(time.Hour), "[job-0 a job-1 b]")
		r.equal("runs", ran.Load(), 2)
	})
}

func TestALostAckRunsTheTaskAgain(t *testing.T) {
	var ran atomic.Int64
	h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
		ran.Add(1)
		return t.Payload, nil
	})
	inBubble(t, h, worker.Config{Replicas: 1, Lease: 3 * time.Second}, func(r *rig) {
		r.broker.set(func(b *tapped) { b.dropAcks = 2 })
		r.ask("a")
		r.equal("answers", r.answers(time.Hour), "[job-0 a job-0 a job-0 a]")
		r.equal("left", r.depth(), millrace.Depth{})
	})
}
