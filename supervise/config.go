package supervise

import (
	"math"
	"math/rand/v2"
	"time"
)

// Restart says after which exits a worker is started again, in OTP's terms. An
// exit is normal when the worker returned nil by itself; an error, a panic, a
// runtime.Goexit and silence are abnormal.
type Restart int

const (
	// Permanent workers are always started again.
	Permanent Restart = iota
	// Transient workers are started again after an abnormal exit only.
	Transient
	// Temporary workers are never started again.
	Temporary
)

// Defaults for the zero values of [Config].
const (
	DefaultGrace            = 5 * time.Second
	DefaultBackoffFirst     = 100 * time.Millisecond
	DefaultBackoffMax       = 30 * time.Second
	DefaultIntensityMax     = 10
	DefaultIntensityWindow  = time.Minute
	DefaultMaxAbandoned     = 10
	maxBackoffDoublings     = 62
	maxCausesKept           = 8
	maxStackKept            = 16 << 10
	maxStackDump            = 32 << 20
	abandonedGoroutineStack = "the goroutine's stack could not be found"
)

// Config says how a worker is supervised. The zero value is usable: no
// heartbeat is expected, and the worker is always restarted.
type Config struct {
	// Name identifies the worker in events and errors.
	Name string

	// TTL is how long the worker may be silent while it is neither idle nor
	// emitting. 0 means that no heartbeat is expected.
	TTL time.Duration

	// Grace is how long a worker whose context was cancelled has to return
	// before it is counted as abandoned. 0 means DefaultGrace.
	Grace time.Duration

	// Restart says after which exits the worker is started again.
	Restart Restart

	// Backoff is the wait before a restart.
	Backoff Backoff

	// Intensity limits the restarts; beyond it Serve returns an
	// *IntensityError.
	Intensity Intensity

	// MaxAbandoned is how many goroutines may be abandoned at the same time;
	// one more makes Serve return an *AbandonedError. 0 means
	// DefaultMaxAbandoned, a negative number means none.
	MaxAbandoned int

	// OnEvent, if set, is told what happens, in order. It is called without a
	// lock, by the goroutine that runs Serve: while it runs, nothing else is
	// noticed.
	OnEvent func(Event)

	// Random returns a number in [0, n), for the jitter. It must be safe for
	// concurrent use when the Config is shared. nil means math/rand/v2.
	Random func(n int64) int64
}

// Backoff is an exponential backoff with full jitter: the n-th restart in a row
// waits for a random time in [0, min(Max, First·2ⁿ)].
//
// Source: M. Brooker, "Exponential Backoff And Jitter", AWS, 2015.
type Backoff struct {
	// First bounds the first wait. 0 means DefaultBackoffFirst; a negative
	// duration means that restarts do not wait.
	First time.Duration
	// Max bounds every wait. 0 means DefaultBackoffMax.
	Max time.Duration
	// Healthy is how long a generation must have run for the next restart to
	// count as the first again. 0 means twice Max.
	Healthy time.Duration
}

// Intensity limits restarts: more than Max of them within Window, a sliding
// window, and the supervisor gives up. A restart leaves the window with time
// only, never because a later generation did well.
type Intensity struct {
	// Max is the number of restarts tolerated within Window. 0 means
	// DefaultIntensityMax; a negative number means none.
	Max int
	// Window is the length of the sliding window. 0 means
	// DefaultIntensityWindow.
	Window time.Duration
}

// WithDefaults returns the Config with every zero value replaced by what it
// stands for.
func (c Config) WithDefaults() Config {
	orDefault(&c.Grace, DefaultGrace)
	orDefault(&c.Backoff.First, DefaultBackoffFirst)
	orDefault(&c.Backoff.Max, DefaultBackoffMax)
	orDefault(&c.Backoff.Healthy, 2*c.Backoff.Max)
	orDefault(&c.Intensity.Max, DefaultIntensityMax)
	orDefault(&c.Intensity.Window, DefaultIntensityWindow)
	orDefault(&c.MaxAbandoned, DefaultMaxAbandoned)
	if c.OnEvent == nil {
		c.OnEvent = func(Event) {}
	}
	if c.Random == nil {
		c.Random = rand.Int64N
	}
	return c
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// wait returns how long restart number n in a row (from 0) waits.
func (b Backoff) wait(n int, random func(int64) int64) time.Duration {
	ceiling := b.Max
	if n < maxBackoffDoublings && b.First <= b.Max>>n {
		ceiling = b.First << n
	}
	if ceiling <= 0 {
		return 0
	}
	return time.Duration(random(int64(min(ceiling, math.MaxInt64-1)) + 1))
}
