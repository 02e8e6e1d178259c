package gather

import (
	"sync/atomic"
	"time"
)

// The defaults of Config.
const (
	DefaultWindow      = 16 << 10
	DefaultWindowBytes = 64 << 20
)

// Config is how a client asks. The zero value is usable.
type Config struct {
	// Window is how many requests of one Map may be without an answer or have an
	// answer that is not read yet; likewise for all calls of a client. It bounds
	// memory, and how far MapOrdered can be ahead. 0 means DefaultWindow.
	Window int

	// WindowBytes bounds the same in bytes: of the inputs, of the results that wait to
	// be read, and as an estimate of those to come. One request is always allowed,
	// whatever its size. 0 means DefaultWindowBytes.
	WindowBytes int64

	// Retries is how often a task that failed is tried again. 0 leaves that to the
	// workers, a negative number means never.
	Retries int

	// Timeout is how long one attempt at a task may take. 0 leaves that to the workers.
	Timeout time.Duration

	// Resend is how long an answer may be overdue before its request is published
	// again, whatever the broker says; twice as long before it is again, and so on.
	// Nothing is lost or doubled by it but work: a task that rightly takes longer runs
	// twice. 0 means never. A request that the broker has forgotten is published again
	// in any case: it holds fewer tasks and results then than are unanswered.
	Resend time.Duration
}

func (c Config) withDefaults() Config {
	if c.Window <= 0 {
		c.Window = DefaultWindow
	}
	if c.WindowBytes <= 0 {
		c.WindowBytes = DefaultWindowBytes
	}
	return c
}

// Stats counts what a client did since it was made.
type Stats struct {
	// Submitted requests were taken from inputs and calls.
	Submitted int64
	// Answered requests have their result, Failed of them an error.
	Answered, Failed int64
	// Retried counts the attempts beyond the first that answered requests took.
	Retried int64
	// Resent counts requests that were published again under the same id.
	Resent int64
	// Dropped results were for no request that waits: second answers, answers to
	// what was cancelled, and what is not a result of this client at all.
	Dropped int64
}

// counters is Stats while it counts.
type counters struct {
	submitted, answered, failed, retried, resent, dropped atomic.Int64
}

func (c *counters) snapshot() Stats {
	return Stats{
		Answered: c.answered.Load(), Failed: c.failed.Load(), Retried: c.retried.Load(),
		Resent: c.resent.Load(), Dropped: c.dropped.Load(),
		Submitted: c.submitted.Load(), // last: never fewer than are answered
	}
}

// note counts what an answer says of itself.
func (c *counters) note(a *answer) {
	if a.failure != nil || isError(a.headers) {
		c.failed.Add(1)
	}
	if n := attempts(a.headers); n > 1 {
		c.retried.Add(int64(n - 1))
	}
}
