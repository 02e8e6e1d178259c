package replica

import (
	"context"
	"time"

	"github.com/millrace/millrace/supervise"
)

// Handler handles one message. ctx ends when the replica is replaced or the set
// must stop at once; its cause tells why. The handler beats through
// supervise.Beat and emits through Emit, both from ctx. Once it returns, the
// message has come to its end (see the package comment).
type Handler[T any] func(ctx context.Context, msg T) error

// Config says how a Set works. With the zero value it has no replica until Scale
// is called.
type Config[T any] struct {
	// Replicas is how many Serve starts.
	Replicas int

	// Supervise says how each replica is supervised. Name is the set's name; a
	// replica's name is that, a '#' and its number. Restart is ignored.
	// Intensity limits the restarts of one replica and MaxAbandoned the
	// goroutines that the whole set has abandoned; beyond either, Serve returns
	// an error. OnEvent is called by several goroutines, one for each replica.
	Supervise supervise.Config

	// Lost, if set, is called once for each message that is lost, with why:
	// a *supervise.PanicError, a *supervise.SilentError, supervise.ErrGoexit, the
	// error that a sink gave to Emit, or why the replica had to stop. It must not
	// wait for the set. If it is nil, the message goes to the next free replica,
	// ahead of the queue.
	Lost func(msg T, err error)

	// Failed, if set, is called once for each message for which the handler
	// returned an error other than ErrRetire, by the replica, before it takes
	// the next message.
	Failed func(msg T, err error)
}

// Counts are how many messages came to which end.
type Counts struct {
	Handled, Failed, Lost uint64
}

// Status is one replica at one moment.
type Status struct {
	supervise.Status
	Number  int       // see the function Number
	Serial  uint64    // of all replicas that the set has started, from 1; never used again, as numbers are
	Busy    bool      // it has a message in hand
	Since   time.Time // when it took that message
	Leaving bool      // it takes no more messages
	Counts            // of this replica
}
