package supervise

import (
	"fmt"
	"time"
)

// Kind says what an [Event] reports.
type Kind int

const (
	// Started tells that a generation was started.
	Started Kind = iota
	// Silent tells that a generation showed no sign of life for its TTL. It is
	// fenced; its context is cancelled when the callback returns. Err is a
	// *SilentError.
	Silent
	// Exited tells that a generation's goroutine has returned. Err says why and
	// is nil after a normal exit.
	Exited
	// Abandoned tells that a generation ignored its cancelled context beyond the
	// grace. It is fenced. Err says why the context was cancelled, Stack where
	// the goroutine is.
	Abandoned
	// Returned tells that an abandoned generation's goroutine has returned at last.
	Returned
	// Restarting tells that the next generation is started after Delay.
	Restarting
)

// String returns the kind in lower case.
func (k Kind) String() string {
	names := [...]string{"started", "silent", "exited", "abandoned", "returned", "restarting"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return names[k]
}

// Event is one thing that happened to a worker.
type Event struct {
	Kind       Kind
	Name       string
	Generation uint64
	Time       time.Time
	Err        error
	Delay      time.Duration // Restarting: how long from Time
	Stack      []byte        // Abandoned: the goroutine's stack
}

// State is what a worker is doing.
type State int

const (
	// Stopped means that Serve is not running.
	Stopped State = iota
	// Running means that the worker works, and its TTL runs.
	Running
	// Idle means that the worker waits for work.
	Idle
	// Emitting means that the worker hands a value to its consumer.
	Emitting
	// Stopping means that the worker's context is cancelled and that it has not
	// returned yet.
	Stopping
	// Waiting means that the last generation is gone, and that the next waits for
	// its backoff.
	Waiting
)

// String returns the state in lower case.
func (s State) String() string {
	names := [...]string{"stopped", "running", "idle", "emitting", "stopping", "waiting"}
	if s < 0 || int(s) >= len(names) {
		return fmt.Sprintf("State(%d)", int(s))
	}
	return names[s]
}

// Status is a worker at one moment.
type Status struct {
	Name       string
	State      State
	Generation uint64        // of the current or last generation, from 1
	Restarts   uint64        // since the Supervisor was made
	Age        time.Duration // since the generation was started
	LastBeat   time.Duration // since its last sign of life
	Err        error         // why the last generation that ended did
	Abandoned  []Stuck       // not returned yet, oldest first
}

// Stuck is an abandoned generation: its goroutine ignores its cancelled context.
type Stuck struct {
	Generation uint64
	Since      time.Time
	Stack      []byte // where it was at Since
}
