package fleet

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/control"
)

// Worker is one worker of the queue as it was when it was last heard. Its times were
// measured by its own clock: ages, which mean the same everywhere.
type Worker struct {
	ID    string // unique among all workers that there ever are
	Host  string
	PID   int
	Cores int           // how many its process may use
	Age   time.Duration // since it was made
	TTL   time.Duration // how long a replica may be without a heartbeat; 0: none is expected
	Lease time.Duration // how long a task waits when the whole worker hangs

	// Silent is for how long nothing was heard from a worker that has not answered; 0 when
	// it has.
	Silent time.Duration

	Paused   bool   // it takes no tasks, because the queue is paused
	Draining bool   // it finishes its tasks and ends
	Refused  string // why the broker does not take its results; "" when it does

	Size      int // replicas, without those that are leaving
	Busy      int // replicas that run a task, also those that are leaving
	Waiting   int // tasks that it has received and that wait for a replica
	Abandoned int // goroutines of handlers that ignore their context

	// How tasks have ended there, as in worker.Counts.
	Done, Failed, Retried, Lost, Cancelled int64

	// Replicas are listed by number, up to the first 2000; those that are leaving too.
	Replicas []Replica

	heard time.Time // when it said this, by our clock
}

// Replica is one replica of a worker.
type Replica struct {
	Number   int           // from 1; one that replaces it has the same
	Serial   uint64        // no two replicas of a worker ever have the same
	State    string        // as package supervise names it: idle, running, emitting, stopping, waiting
	Busy     bool          // it runs a task
	Task     string        // the task's request id, "" when it has none
	Running  time.Duration // for how long it has run the task
	LastBeat time.Duration // since its last heartbeat; 0 when idle or without a TTL
	Restarts uint64        // how often it was replaced
	Leaving  bool          // it takes no more tasks
}

// Name is the worker's host and process id, for people. Two workers of one process have
// the same.
func (w *Worker) Name() string { return fmt.Sprintf("%s/%d", w.Host, w.PID) }

// Leaving is how many replicas finish a task before they leave.
func (w *Worker) Leaving() (n int) {
	for i := range w.Replicas {
		if r := &w.Replicas[i]; r.Leaving && r.Busy {
			n++
		}
	}
	return n
}

// replica returns the one with that number and serial, nil when it is not there.
func (w *Worker) replica(number int, serial uint64) *Replica {
	for i := range w.Replicas {
		if r := &w.Replicas[i]; r.Number == number && r.Serial == serial {
			return r
		}
	}
	return nil
}

// fromWire is what a worker has said of itself.
func fromWire(c *control.Worker, heard time.Time) Worker {
	w := Worker{
		heard: heard,
		ID:    c.ID, Host: c.Host, PID: c.PID, Cores: c.Cores, Age: control.Duration(c.Age),
		TTL: control.Duration(c.TTL), Lease: control.Duration(c.Lease),
		Paused: c.Paused, Draining: c.Draining, Refused: c.Refused,
		Size: c.Size, Busy: c.Busy, Waiting: c.Waiting, Abandoned: c.Abandoned,
		Done: c.Done, Failed: c.Failed, Retried: c.Retried, Lost: c.Lost, Cancelled: c.Cancelled,
	}
	for _, r := range c.Replicas {
		w.Replicas = append(w.Replicas, Replica{
			Number: r.Number, Serial: r.Serial, State: r.State, Busy: r.Busy, Task: r.Task,
			Running: control.Duration(r.Running), LastBeat: control.Duration(r.Beat),
			Restarts: r.Restarts, Leaving: r.Leaving,
		})
	}
	return w
}
