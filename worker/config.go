package worker

import (
	"log/slog"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/millrace/millrace"
)

// The defaults of Config.
const (
	DefaultRetries       = 3
	DefaultRetryDelay    = 100 * time.Millisecond
	DefaultMaxRetryDelay = time.Minute
	DefaultMaxDeliveries = 20
	DefaultGrace         = 5 * time.Second
)

// NoPrefetch as a Config.Prefetch lets the worker receive a task only when a replica
// is free to run it. It is for tasks that are long, such as commands: one that waits
// in a busy worker could be run by another.
const NoPrefetch = -1

// Config is how a worker works. The zero value is usable.
type Config struct {
	// Replicas is how many tasks are run at the same time. 0 means one a core; a
	// negative number none, until Scale.
	Replicas int

	// TTL is how long a handler may be silent: it has to call Beat more often than
	// that, or is replaced and its task given back. 0 means that none is expected to,
	// as with commands: they are alive while they run.
	TTL time.Duration

	// Lease is for how long the broker holds a task for this worker, unless extended,
	// which it is while the worker lives. It bounds how long a task waits when the
	// whole worker hangs. 0 means the TTL, or 30 s without one.
	Lease time.Duration

	// Timeout is how long one attempt at a task may take, unless the task says
	// otherwise. 0 means as long as it likes. The handler's context ends with it; a
	// value that comes within the Grace after it still counts. After that the attempt
	// has failed, and the replica is replaced although its goroutine cannot be stopped.
	Timeout time.Duration

	// Retries is how often a task that failed is tried again, unless the task says
	// otherwise. 0 means DefaultRetries, a negative number never.
	Retries int

	// RetryDelay bounds the delay before the first retry, and doubles for each one
	// after it up to MaxRetryDelay. The delay is random between half the bound and
	// the bound. 0 means DefaultRetryDelay and DefaultMaxRetryDelay.
	RetryDelay, MaxRetryDelay time.Duration

	// Prefetch is how many tasks the worker holds beyond those that are running. 0
	// means as many as it needs for about a tenth of a second, or NoPrefetch if the
	// handler has a method Prefetch() bool that returns false.
	Prefetch int

	// MaxDeliveries is how often a task may be delivered without an answer before it
	// fails without being run once more. 0 means DefaultMaxDeliveries. One that has
	// hung five replicas of this worker fails in any case.
	MaxDeliveries int

	// Grace is how long a handler whose context has ended, for whatever reason, has to
	// return before its goroutine is counted as abandoned and its replica replaced, and how long results may take to be
	// published when the worker stops at once. 0 means DefaultGrace.
	Grace time.Duration

	// MaxAbandoned is how many goroutines that ignore their context may be left
	// behind before Serve gives up. 0 means package supervise's default.
	MaxAbandoned int

	// Middleware is put around the handler, the first outermost.
	Middleware []Middleware

	// OnEvent, if set, is told what happens besides answered tasks. It is called by
	// several goroutines, with no lock held, and should return soon.
	OnEvent func(Event)

	// Logger, if set, gets every event as a record.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Replicas = orDefault(c.Replicas, runtime.GOMAXPROCS(0))
	c.Lease = orDefault(c.Lease, orDefault(c.TTL, millrace.DefaultLease))
	c.Retries = orDefault(c.Retries, DefaultRetries)
	c.RetryDelay = orDefault(c.RetryDelay, DefaultRetryDelay)
	c.MaxRetryDelay = orDefault(c.MaxRetryDelay, DefaultMaxRetryDelay)
	c.MaxDeliveries = orDefault(c.MaxDeliveries, DefaultMaxDeliveries)
	c.Grace = orDefault(c.Grace, DefaultGrace)
	return c
}

// orDefault returns v, the fallback when v is the zero value, and 0 when negative.
func orDefault[T int | time.Duration](v, fallback T) T {
	if v == 0 {
		return fallback
	}
	return max(0, v)
}

// backoff returns the delay before retry number n, from 1: random, so that tasks
// which failed together do not come back together, but never so short that an outage
// of seconds uses up all attempts.
func (c *Config) backoff(n int) time.Duration {
	bound := c.MaxRetryDelay
	if shift := n - 1; shift < 62 && c.RetryDelay <= c.MaxRetryDelay>>shift {
		bound = c.RetryDelay << shift
	}
	return bound - time.Duration(rand.Int64N(int64(bound)/2+1))
}
