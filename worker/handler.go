package worker

import (
	"context"
	"time"

	"github.com/millrace/millrace"
)

// Task is one request as its handler sees it.
type Task struct {
	// ID is the request id; "" when the message asked for no reply.
	ID string
	// Queue is the queue it came from.
	Queue string
	// Payload is the input. It is read-only and valid for as long as anyone keeps it.
	Payload []byte
	// Headers are the headers of the message.
	Headers millrace.Headers
	// Attempt says how often the task has been started, this time included: 1 is
	// the first time.
	Attempt int
	// Replica is the number, from 1, of the replica that runs the task. No two
	// replicas of a worker that are alive have the same.
	Replica int
	// Timeout is how long this attempt may take; 0 means as long as it likes. The
	// handler's context ends with it.
	Timeout time.Duration
	// Reply holds headers that the handler wants to add to the result.
	Reply millrace.Headers
}

// Handler answers tasks: it returns the result, or an error. It is called by several
// replicas at the same time, each with one task. The task is valid until Handle returns;
// the result must not be changed any more from then on.
//
// The context ends when the task is cancelled, its timeout has passed, its lease was
// lost or the worker stops at once; context.Cause tells which. An error is tried again
// with a growing delay, as often as the task's retries allow, unless the error says
// otherwise: see Permanent, RetryAfter and Redeliver. A panic is such an error. An error
// with a method ExitCode() int puts that into the result.
type Handler interface {
	Handle(ctx context.Context, t *Task) ([]byte, error)
}

// HandlerFunc is a function that is a Handler.
type HandlerFunc func(ctx context.Context, t *Task) ([]byte, error)

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, t *Task) ([]byte, error) { return f(ctx, t) }

// Middleware wraps a handler, to observe or change what passes through.
type Middleware func(Handler) Handler
