package control

import (
	"encoding/json"

	"github.com/millrace/millrace"
)

// Outcome is what became of an order at one worker.
type Outcome string

// The outcomes.
const (
	// Done says that the order was obeyed: what Answer.Worker shows is so, or, of a drain
	// and of replicas that finish their tasks first, certain to come.
	Done Outcome = "done"
	// Refused says that nothing was done, and that Answer.Why tells why.
	Refused Outcome = "refused"
	// Ended says, of no order, that the worker has ended in good order.
	Ended Outcome = "ended"
)

// MaxListed is how many replicas a worker lists at most, so that its answer fits into a
// message of any broker.
const MaxListed = 2000

// Answer is what a worker says to an asker.
type Answer struct {
	Version int `json:"v"`
	// ID is that of the order.
	ID      string  `json:"id,omitempty"`
	Outcome Outcome `json:"outcome"`
	Why     string  `json:"why,omitempty"`
	// Worker is what the worker does, at the time of this answer.
	Worker Worker `json:"worker"`
}

// Worker is what a worker says of itself. Times are its own, in milliseconds.
type Worker struct {
	ID    string `json:"id"` // unique among all workers there ever are
	Host  string `json:"host"`
	PID   int    `json:"pid"`
	Cores int    `json:"cores"`
	Age   int64  `json:"age_ms"`
	TTL   int64  `json:"ttl_ms"`   // of a replica; 0: none
	Lease int64  `json:"lease_ms"` // of a task

	Paused   bool   `json:"paused,omitempty"`
	Draining bool   `json:"draining,omitempty"`
	Refused  string `json:"refused,omitempty"` // why the broker does not take its results
	// Size is how many replicas there are without those that are leaving, Busy how many
	// run a task, Waiting how many tasks wait for one.
	Size      int `json:"size"`
	Busy      int `json:"busy"`
	Waiting   int `json:"waiting"`
	Abandoned int `json:"abandoned,omitempty"`

	Done      int64 `json:"done"`
	Failed    int64 `json:"failed"`
	Retried   int64 `json:"retried"`
	Lost      int64 `json:"lost"`
	Cancelled int64 `json:"cancelled"`

	Replicas []Replica `json:"replicas,omitempty"` // the first MaxListed by number
}

// Replica is what a worker says of one of its replicas.
type Replica struct {
	Number   int    `json:"n"`
	Serial   uint64 `json:"serial"` // no two replicas of a worker ever have the same
	State    string `json:"state"`
	Task     string `json:"task,omitempty"`
	Busy     bool   `json:"busy,omitempty"`
	Running  int64  `json:"running_ms,omitempty"` // the task, for so long
	Beat     int64  `json:"beat_ms"`              // since its last heartbeat
	Restarts uint64 `json:"restarts,omitempty"`
	Leaving  bool   `json:"leaving,omitempty"`
}

// Encode returns the message that says a. It shares no memory with a.
func (a Answer) Encode() millrace.Message {
	a.Version = Version
	return encode(a)
}

// ReadAnswer reads what somebody has published. It is false for what is no answer that this
// version knows.
func ReadAnswer(body []byte) (a Answer, ok bool) {
	w := &a.Worker
	if json.Unmarshal(body, &a) != nil || a.Version != Version || w.ID == "" || min(w.Size, w.Busy, w.Waiting) < 0 {
		return Answer{}, false
	}
	switch a.Outcome {
	case Done, Refused, Ended:
		return a, true
	}
	return Answer{}, false
}
