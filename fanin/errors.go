package fanin

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed is returned by Recv and RecvBatch at the end of the stream, by
	// an emission after it, and by Add when no more sources are taken.
	ErrClosed = errors.New("fanin: closed")

	// ErrStopped is the cause of a source's context when the merger is told to
	// stop.
	ErrStopped = errors.New("fanin: stopped")

	// ErrRemoved is the cause of a source's context after Input.Remove.
	ErrRemoved = errors.New("fanin: source removed")

	// ErrServed is returned by Serve when it was called before.
	ErrServed = errors.New("fanin: Serve was called before")

	// ErrGoexit is the error of a source that called runtime.Goexit.
	ErrGoexit = errors.New("fanin: the source called runtime.Goexit")
)

// SourceError is the error of one source.
type SourceError struct {
	Name string
	Err  error // what it returned, a *PanicError, or ErrGoexit
}

// Error names the source.
func (e *SourceError) Error() string { return fmt.Sprintf("fanin: source %s: %v", e.Name, e.Err) }

// Unwrap returns what the source returned.
func (e *SourceError) Unwrap() error { return e.Err }

// PanicError is a panic of a source, with the stack at the time.
type PanicError struct {
	Value any
	Stack []byte
}

// Error shows the value that the source panicked with, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("fanin: panic: %v", e.Value) }

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// UndeliveredError is returned by Serve when values that were emitted were not
// read in time and there was no Config.Undelivered to take them.
type UndeliveredError[T any] struct {
	Values []T
}

// Error tells how many there are.
func (e *UndeliveredError[T]) Error() string {
	return fmt.Sprintf("fanin: %d values were not read before the grace was over", len(e.Values))
}
