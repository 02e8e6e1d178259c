package worker

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/supervise"
)

// Causes of the end of a handler's context, besides those of package supervise and
// the cause of the context that Serve was given. See context.Cause.
var (
	// ErrTimeout ends an attempt that took longer than its timeout.
	ErrTimeout = errors.New("worker: the attempt took longer than its timeout")
	// ErrCancelled ends a task that nobody waits for any more. It is not answered.
	ErrCancelled = errors.New("worker: the task was cancelled")
	// ErrStopped ends the tasks that still run when a worker must stop. They are
	// given back, to be run by another.
	ErrStopped = errors.New("worker: stopped")
)

// ErrServing is returned by Serve when it was called before: a Worker serves once.
var ErrServing = errors.New("worker: Serve was called before")

// ErrNotServing is returned by Scale, Retire and Drain when Serve is not running.
var ErrNotServing = errors.New("worker: not serving")

// The kinds of errors in results and dead letters, under millrace.HeaderErrorKind.
const (
	// KindFailed is an error that the handler returned.
	KindFailed = "failed"
	// KindTimeout is an attempt that took longer than its timeout.
	KindTimeout = "timeout"
	// KindPanic is a handler that panicked. The text is the panic's value and stack.
	KindPanic = "panic"
	// KindKilled is a task that was delivered more often than Config.MaxDeliveries
	// allows without an answer: it kills or hangs those who run it.
	KindKilled = "killed"
	// KindTooLarge is a result that is larger than the broker takes.
	KindTooLarge = "too-large"
	// KindForeign is a message whose headers cannot be understood.
	KindForeign = "foreign"
)

// Permanent returns an error that says what err says, and also that trying again is
// no use: the task fails at once. It returns nil when err is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// RetryAfter returns an error that says what err says, and also how long to wait
// before the task is tried again, in place of the growing delay. The retry counts.
// It returns nil when err is nil.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{err, max(0, d)}
}

type retryAfterError struct {
	err   error
	delay time.Duration
}

func (e *retryAfterError) Error() string { return e.err.Error() }
func (e *retryAfterError) Unwrap() error { return e.err }

// Redeliver returns an error that says what err says, and also that it is no fault of
// the task's: what ran it died, or could not be started. The task is given back, to be
// delivered again after a growing delay, and burns no retry; Config.MaxDeliveries ends
// that. It returns nil when err is nil.
func Redeliver(err error) error {
	if err == nil {
		return nil
	}
	return &redeliverError{err}
}

type redeliverError struct{ err error }

func (e *redeliverError) Error() string { return e.err.Error() }
func (e *redeliverError) Unwrap() error { return e.err }

// Beat is a sign of life of the handler that ctx was given to: its TTL starts anew.
// A handler in a worker with a TTL calls it whenever it has made progress. Elsewhere
// it does nothing.
func Beat(ctx context.Context) { supervise.Beat(ctx) }
