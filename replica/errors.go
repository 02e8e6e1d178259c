package replica

import (
	"errors"
	"fmt"
)

var (
	// ErrRetire is returned by a handler to say that its replica leaves after
	// this message, and is not replaced. The message counts as handled.
	ErrRetire = errors.New("replica: retire")

	// ErrStopped is returned by Scale, Retire and RetireReplica when the set is shutting down
	// or has ended.
	ErrStopped = errors.New("replica: the set has stopped")

	// ErrNoReplica is returned by Retire and RetireReplica when there is no such replica
	// to retire.
	ErrNoReplica = errors.New("replica: no replica to retire")

	// ErrServed is returned by Serve when it was called before.
	ErrServed = errors.New("replica: Serve was called before")

	// errPanicked refuses a value whose sink panicked: nobody knows better.
	errPanicked = errors.New("replica: the sink of an emission panicked")
)

// UnhandledError is returned by Serve when messages that were lost by their
// replica found no other until the end, and there is no Config.Lost to take them.
type UnhandledError[T any] struct {
	Messages []T // in the order in which they would have been handled
}

// Error tells how many there are.
func (e *UnhandledError[T]) Error() string {
	return fmt.Sprintf("replica: %d messages that were received could not be handled before the end", len(e.Messages))
}
