package gather

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/millrace/millrace"
)

// What a *TaskError can be compared with, using errors.Is.
var (
	// ErrTimeout matches the error of a task whose last attempt took too long.
	ErrTimeout = errors.New("gather: the task timed out")
	// ErrPanic matches the error of a task whose handler panicked the last time.
	ErrPanic = errors.New("gather: the task's handler panicked")
	// ErrKilled matches the error of a task that was given up because it was delivered
	// again and again without an answer: it kills or hangs its workers.
	ErrKilled = errors.New("gather: the task kills its workers")
)

// ErrCancelled is returned by Pending.Wait after Pending.Cancel.
var ErrCancelled = errors.New("gather: cancelled")

// ErrClosed is returned when a client is used after Close, and ends what waits then.
// It wraps millrace.ErrClosed.
var ErrClosed = fmt.Errorf("gather: client: %w", millrace.ErrClosed)

// The kinds of a TaskError: those of package worker, and two that arise in the client.
const (
	KindFailed   = "failed"    // the handler returned an error
	KindTimeout  = "timeout"   // the last attempt took too long
	KindPanic    = "panic"     // the handler panicked; the message ends with the stack
	KindKilled   = "killed"    // delivered too often without an answer
	KindTooLarge = "too-large" // the input or the result is larger than the broker takes
	KindForeign  = "foreign"   // the worker did not understand the request's headers
	KindEncode   = "encode"    // the input could not be encoded; it was not sent
	KindDecode   = "decode"    // the result could not be decoded
)

// TaskError is the result of a request that failed for good. It says nothing about
// the other requests. Use errors.As to tell it from the end of a stream.
type TaskError struct {
	// ID is the request id, which is also in the workers' logs and dead letters.
	ID string
	// Kind is one of the kinds above.
	Kind string
	// Message is what the handler's error said.
	Message string
	// ExitCode is that of the command that failed, else -1.
	ExitCode int
	// Attempts is how often the task was run.
	Attempts int

	err error // what it wraps, if it arose here
}

// Error tells the request and what the handler said.
func (e *TaskError) Error() string {
	s := "task " + e.ID + ": " + e.Message
	if e.Attempts > 1 {
		s += " (after " + strconv.Itoa(e.Attempts) + " attempts)"
	}
	return s
}

// Is makes the kinds comparable with ErrTimeout, ErrPanic, ErrKilled and
// millrace.ErrTooLarge.
func (e *TaskError) Is(target error) bool {
	switch target {
	case ErrTimeout:
		return e.Kind == KindTimeout
	case ErrPanic:
		return e.Kind == KindPanic
	case ErrKilled:
		return e.Kind == KindKilled
	case millrace.ErrTooLarge:
		return e.Kind == KindTooLarge
	}
	return false
}

// Unwrap returns the error of the codec, for KindEncode and KindDecode.
func (e *TaskError) Unwrap() error { return e.err }
