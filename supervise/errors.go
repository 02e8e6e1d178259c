package supervise

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

var (
	// ErrFenced is returned by Emit and Pulse.BeginEmit when the generation
	// has been fenced: the value was not delivered, and none of this generation
	// will ever be again.
	ErrFenced = errors.New("supervise: fenced: this generation has been replaced")

	// ErrSilent is matched by every *SilentError.
	ErrSilent = errors.New("supervise: silent")

	// ErrGoexit is the exit of a worker that called runtime.Goexit, as
	// testing.T.FailNow does. It counts as abnormal.
	ErrGoexit = errors.New("supervise: the worker called runtime.Goexit")

	// ErrReturned stands among the causes of an *IntensityError for a
	// Permanent worker that returned nil.
	ErrReturned = errors.New("supervise: the worker returned although it is permanent")

	// ErrServing is returned by Serve when it is already running.
	ErrServing = errors.New("supervise: Serve is already running")
)

// SilentError says that a generation showed no sign of life for its TTL. It is
// the cause of that generation's context (context.Cause) and matches ErrSilent.
type SilentError struct {
	Name       string
	Generation uint64
	TTL        time.Duration
	LastBeat   time.Time // the last sign of life
}

// Error names the worker, its generation and its TTL.
func (e *SilentError) Error() string {
	return fmt.Sprintf("supervise: %s was silent for its TTL of %v", label(e.Name, e.Generation), e.TTL)
}

// Is reports whether target is ErrSilent.
func (e *SilentError) Is(target error) bool { return target == ErrSilent }

// PanicError is a panic of the worker, with the stack of the goroutine at the
// time.
type PanicError struct {
	Value any
	Stack []byte
}

// Error shows the value that the worker panicked with, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("supervise: panic: %v", e.Value) }

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// IntensityError is returned by Serve when the worker was restarted more often
// than its Intensity allows. It wraps the last causes.
type IntensityError struct {
	Name     string
	Restarts int           // within Window, the one that was refused included
	Window   time.Duration // the sliding window
	Causes   []error       // of the last exits, oldest first, at most 8
}

// Error tells the limit that was passed and the last cause.
func (e *IntensityError) Error() string {
	last := ErrReturned
	if n := len(e.Causes); n > 0 {
		last = e.Causes[n-1]
	}
	return fmt.Sprintf("supervise: %s failed %d times within %v, last: %v", e.Name, e.Restarts, e.Window, last)
}

// Unwrap returns the last causes.
func (e *IntensityError) Unwrap() []error { return e.Causes }

// AbandonedError is returned by Serve when it leaves goroutines behind that
// ignore their cancelled context: at the end, or because there are more of them
// than Config.MaxAbandoned. Only the end of the process frees them for sure.
type AbandonedError struct {
	Name  string
	Stuck []Stuck // oldest first
	Cause error   // why Serve ended
}

// Error tells how many were abandoned, and where the last one is stuck.
func (e *AbandonedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "supervise: %s: %d abandoned: goroutines that ignore their cancelled context", e.Name, len(e.Stuck))
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	if n := len(e.Stuck); n > 0 {
		fmt.Fprintf(&b, "\ngeneration %d is here:\n%s", e.Stuck[n-1].Generation, e.Stuck[n-1].Stack)
	}
	return b.String()
}

// Unwrap returns why Serve ended.
func (e *AbandonedError) Unwrap() error { return e.Cause }

func label(name string, generation uint64) string {
	return fmt.Sprintf("%s (generation %d)", name, generation)
}
