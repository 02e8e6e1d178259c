package worker

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/supervise"
)

// Status is a worker at one moment.
type Status struct {
	ID       string // no other worker ever has the same
	Queue    string
	Replicas []ReplicaStatus // by number
	Busy     int             // of them that run a task
	Waiting  int             // tasks that were received and wait for a replica
	// Abandoned are the goroutines of handlers that ignore their context.
	Abandoned []supervise.Stuck
	// Refused is why the broker does not take results at the moment, else nil.
	Refused error
	// Paused says that the queue is paused: the worker takes no tasks. See package fleet.
	Paused bool
	// Draining says that the worker is ending: it takes no tasks any more.
	Draining bool
	Counts
}

// Counts are how tasks have ended since the worker was made.
type Counts struct {
	Done      int64 // with a value, which is safe
	Failed    int64 // with an error, which is safe, and a dead letter
	Retried   int64 // with an error, to be tried again
	Lost      int64 // without counting: their lease ended, or their replica died
	Cancelled int64 // because nobody waits for them
}

// ReplicaStatus is one replica at one moment.
type ReplicaStatus struct {
	Number int
	Serial uint64 // no two replicas of a worker ever have the same
	State  supervise.State
	Task   string    // the request id of the task that it runs, if that has one
	Since  time.Time // when it began with the task; zero when it runs none
	// LastBeat is how long ago it gave a sign of life. It is 0 while none is expected: it
	// runs no task, or has no TTL.
	LastBeat time.Duration
	Restarts uint64 // how often it was replaced
	Leaving  bool   // it takes no more tasks
}

type counters struct {
	done, failed, retried, lost, cancelled atomic.Int64
}

// Status returns what the worker is doing.
func (w *Worker) Status() Status {
	s := Status{
		ID: w.id, Queue: w.queue, Waiting: w.ready.Len(), Abandoned: w.replicas.Abandoned(),
		Paused: w.pause.on.Load(), Draining: w.ending.Load(),
		Counts: Counts{
			Done: w.count.done.Load(), Failed: w.count.failed.Load(), Retried: w.count.retried.Load(),
			Lost: w.count.lost.Load(), Cancelled: w.count.cancelled.Load(),
		},
	}
	if err := w.refusing.Load(); err != nil {
		s.Refused = *err
	}
	runners := w.runners.all()
	for _, one := range w.replicas.Replicas() {
		r := ReplicaStatus{Number: one.Number, Serial: one.Serial, State: one.State, Restarts: one.Restarts, Leaving: one.Leaving}
		if one.Number < len(runners) && runners[one.Number] != nil {
			r.Task, r.Since = runners[one.Number].now()
		}
		if !r.Since.IsZero() {
			s.Busy++
		}
		r.LastBeat = w.lastBeat(one.Status, !r.Since.IsZero())
		s.Replicas = append(s.Replicas, r)
	}
	return s
}

// now returns the task that is running and since when.
func (r *runner) now() (id string, since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running == nil {
		return "", time.Time{}
	}
	return r.running.id, r.pulse.BusySince()
}

// replicaEvent passes on what happens to a replica.
func (w *Worker) replicaEvent(e supervise.Event) {
	kinds := map[supervise.Kind]EventKind{
		supervise.Started: ReplicaStarted, supervise.Silent: ReplicaSilent,
		supervise.Exited: ReplicaFailed, supervise.Abandoned: ReplicaAbandoned,
	}
	kind, ok := kinds[e.Kind]
	if !ok || e.Kind == supervise.Exited && e.Err == nil {
		return
	}
	_, number, _ := strings.Cut(e.Name, "#")
	replica, _ := strconv.Atoi(number) // as package replica names them
	err := e.Err
	if len(e.Stack) > 0 {
		err = fmt.Errorf("%w; it is here:\n%s", err, e.Stack)
	}
	w.tell(Event{Kind: kind, Replica: replica, Err: err})
}
