package supervise_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/supervise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// log collects events.
type log struct {
	mu     sync.Mutex
	events []supervise.Event
}

func (l *log) add(e supervise.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

func (l *log) of(kind supervise.Kind) (all []supervise.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Kind == kind {
			all = append(all, e)
		}
	}
	return all
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, e := range l.events {
		fmt.Fprintf(&b, "%d:%v ", e.Generation, e.Kind)
	}
	return strings.TrimSpace(b.String())
}

// longest is a Random whose jitter is always the whole backoff.
func longest(n int64) int64 { return n - 1 }

// serve serves in a goroutine of the test's bubble until stop is called, which
// returns what Serve did.
func serve(s *supervise.Supervisor) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- s.Serve(ctx) }()
	return func() error {
		cancel()
		return <-result
	}
}

var errBroken = errors.New("broken")

func TestRestartFollowsOTP(t *testing.T) {
	type exit struct {
		name string
		work supervise.Func
		err  error // what it counts as
	}
	exits := []exit{
		{"nil", func(context.Context, *supervise.Pulse) error { return nil }, nil},
		{"error", func(context.Context, *supervise.Pulse) error { return errBroken }, errBroken},
		{"panic", func(context.Context, *supervise.Pulse) error { panic(errBroken) }, errBroken},
		{"goexit", func(context.Context, *supervise.Pulse) error { runtime.Goexit(); return nil }, supervise.ErrGoexit},
		{"silent", func(ctx context.Context, _ *supervise.Pulse) error { <-ctx.Done(); return nil }, supervise.ErrSilent},
	}
	for _, exit := range exits {
		for restart, again := range map[supervise.Restart]bool{
			supervise.Permanent: true,
			supervise.Transient: exit.err != nil,
			supervise.Temporary: false,
		} {
			t.Run(fmt.Sprintf("%s/%d", exit.name, restart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var l log
					work := func(ctx context.Context, p *supervise.Pulse) error {
						if p.Generation() == 1 {
							return exit.work(ctx, p)
						}
						p.Idle()
						<-ctx.Done()
						return ctx.Err()
					}
					s := supervise.New(work, supervise.Config{TTL: time.Second, Restart: restart, OnEvent: l.add})
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					err := s.Serve(ctx)
					if got := len(l.of(supervise.Started)) == 2; got != again {
						t.Errorf("started again: %v, want %v (%v)", got, again, &l)
					}
					want := exit.err
					if again {
						want = context.DeadlineExceeded
					}
					if !errors.Is(err, want) {
						t.Errorf("Serve returned %v, want %v", err, want)
					}
					if first := l.of(supervise.Exited)[0]; !errors.Is(first.Err, exit.err) {
						t.Errorf("the exit is told as %v, want %v", first.Err, exit.err)
					}
				})
			})
		}
	}
}

func TestAPanicBecomesAnErrorWithItsStack(t *testing.T) {
	s := supervise.New(explode, supervise.Config{Restart: supervise.Temporary})
	var p *supervise.PanicError
	if err := s.Serve(t.Context()); !errors.As(err, &p) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("Serve returned %v", err)
	}
	if !strings.Contains(string(p.Stack), "supervise_test.explode") {
		t.Errorf("the stack does not show where it was:\n%s", p.Stack)
	}
}

func explode(context.Context, *supervise.Pulse) error { panic(io.ErrUnexpectedEOF) }

func TestBackoffDoublesUpToItsMaximumAndOnlyHealthResetsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		work := func(_ context.Context, p *supervise.Pulse) error {
			switch p.Generation() {
			case 6:
				time.Sleep(59 * time.Second) // started well, but not for long enough
			case 7:
				time.Sleep(time.Minute)
			}
			return errBroken
		}
		s := supervise.New(work, supervise.Config{
			Backoff:   supervise.Backoff{First: time.Second, Max: 10 * time.Second, Healthy: time.Minute},
			Intensity: supervise.Intensity{Max: 8, Window: time.Hour},
			Random:    longest, OnEvent: l.add,
		})
		err := s.Serve(t.Context())
		var tooMany *supervise.IntensityError
		if !errors.As(err, &tooMany) {
			t.Fatalf("Serve returned %v", err)
		}
		var delays []string
		for _, e := range l.of(supervise.Restarting) {
			delays = append(delays, e.Delay.String())
		}
		if got, want := strings.Join(delays, " "), "1s 2s 4s 8s 10s 10s 1s 2s"; got != want {
			t.Errorf("delays %v, want %v", got, want)
		}
	})
}

func TestJitterIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []int64
		random := func(n int64) int64 { asked = append(asked, n); return 0 }
		s := supervise.New(fail, supervise.Config{
			Backoff:   supervise.Backoff{First: time.Second, Max: time.Hour},
			Intensity: supervise.Intensity{Max: 2},
			Random:    random,
		})
		start := time.Now()
		_ = s.Serve(t.Context())
		if want := []int64{int64(time.Second) + 1, int64(2*time.Second) + 1}; fmt.Sprint(asked) != fmt.Sprint(want) {
			t.Errorf("asked for random numbers below %v, want %v", asked, want)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the smallest jitter waited for %v, want 0", took)
		}
	})
}

func fail(context.Context, *supervise.Pulse) error { return errBroken }

// A budget that is reset by every restart that works for a while never trips
// (goakt #1268).
func TestIntensityCountsInASlidingWindowThatNoSuccessResets(t *testing.T) {
	for name, test := range map[string]struct {
		life  time.Duration
		trips bool
	}{
		"four within the window":        {19 * time.Second, true},
		"no more than three within one": {20 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				work := func(ctx context.Context, p *supervise.Pulse) error {
					p.Beat()
					select {
					case <-time.After(test.life):
						return fmt.Errorf("%w in generation %d", errBroken, p.Generation())
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				s := supervise.New(work, supervise.Config{
					Name:      "w",
					Backoff:   supervise.Backoff{First: -1, Healthy: time.Second},
					Intensity: supervise.Intensity{Max: 3, Window: time.Minute},
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				err := s.Serve(ctx)
				var tooMany *supervise.IntensityError
				if tripped := errors.As(err, &tooMany); tripped != test.trips {
					t.Fatalf("Serve returned %v; tripped: %v, want %v", err, tripped, test.trips)
				}
				if !test.trips {
					return
				}
				if tooMany.Restarts != 4 || len(tooMany.Causes) != 4 || !errors.Is(err, errBroken) {
					t.Errorf("it tells of %d restarts and %v", tooMany.Restarts, tooMany.Causes)
				}
				if want := "w failed 4 times within 1m0s, last: broken in generation 4"; !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			})
		})
	}
}

func TestNoRestartIsToleratedWithANegativeIntensity(t *testing.T) {
	s := supervise.New(fail, supervise.Config{Intensity: supervise.Intensity{Max: -1}})
	var tooMany *supervise.IntensityError
	if err := s.Serve(t.Context()); !errors.As(err, &tooMany) {
		t.Fatalf("Serve returned %v", err)
	}
}

func TestServeEndsWithItsContextWhateverTheWorkerIsDoing(t *testing.T) {
	works := map[string]supervise.Func{
		"working":    func(ctx context.Context, _ *supervise.Pulse) error { <-ctx.Done(); return nil },
		"idle":       func(ctx context.Context, p *supervise.Pulse) error { p.Idle(); <-ctx.Done(); return ctx.Err() },
		"backing of": fail,
		"emitting": func(ctx context.Context, p *supervise.Pulse) error {
			return supervise.Emit(ctx, p, 1, func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() })
		},
		"panicking on its way out": func(ctx context.Context, _ *supervise.Pulse) error { <-ctx.Done(); panic("late") },
	}
	for name, work := range works {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := supervise.New(work, supervise.Config{Random: longest})
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(10*time.Millisecond, func() { cancel(errBroken) })
				start := time.Now()
				if err := s.Serve(ctx); !errors.Is(err, errBroken) {
					t.Errorf("Serve returned %v, want the cause of its context", err)
				}
				if took := time.Since(start); took != 10*time.Millisecond {
					t.Errorf("it took %v, want 10ms", took)
				}
			})
		})
	}
}

func TestServeRunsOnceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := supervise.New(func(ctx context.Context, p *supervise.Pulse) error { <-ctx.Done(); return nil }, supervise.Config{})
		stop := serve(s)
		synctest.Wait()
		if err := s.Serve(t.Context()); !errors.Is(err, supervise.ErrServing) {
			t.Errorf("a second Serve returned %v", err)
		}
		_ = stop()
		stop = serve(s)
		synctest.Wait()
		if st := s.Status(); st.Generation != 2 || st.State != supervise.Running {
			t.Errorf("served again: %+v", st)
		}
		_ = stop()
	})
}

func TestStatusTellsWhatTheWorkerDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		step := make(chan struct{})
		work := func(ctx context.Context, p *supervise.Pulse) error {
			<-step
			p.Idle()
			<-step
			p.Busy()
			_ = supervise.Emit(ctx, p, 1, func(context.Context, int) error { <-step; return nil })
			<-step
			return errBroken
		}
		s := supervise.New(work, supervise.Config{Name: "w", Random: longest})
		want := func(state supervise.State) {
			t.Helper()
			synctest.Wait()
			if st := s.Status(); st.State != state || st.Name != "w" {
				t.Errorf("state %v, want %v", st.State, state)
			}
		}
		want(supervise.Stopped)
		stop := serve(s)
		want(supervise.Running)
		step <- struct{}{}
		want(supervise.Idle)
		time.Sleep(time.Second)
		step <- struct{}{}
		want(supervise.Emitting)
		time.Sleep(time.Minute)
		if st := s.Status(); st.LastBeat != time.Minute || st.Age != time.Minute+time.Second {
			t.Errorf("last beat %v ago, age %v", st.LastBeat, st.Age)
		}
		step <- struct{}{}
		want(supervise.Running)
		step <- struct{}{}
		want(supervise.Waiting)
		if st := s.Status(); !errors.Is(st.Err, errBroken) || st.Restarts != 0 || st.Generation != 1 {
			t.Errorf("while it waits: %+v", st)
		}
		time.Sleep(time.Second)
		want(supervise.Running)
		if st := s.Status(); st.Restarts != 1 || st.Generation != 2 {
			t.Errorf("after the restart: %+v", st)
		}
		close(step)
		_ = stop()
		want(supervise.Stopped)
	})
}

// Supervisors are started and stopped at any moment, and each leaves nothing
// behind. (After river's startstop stress.)
func TestStartStopStress(t *testing.T) {
	var everything sync.WaitGroup
	for range 200 {
		everything.Go(func() {
			var inside sync.WaitGroup
			work := func(ctx context.Context, p *supervise.Pulse) error {
				inside.Add(1)
				defer inside.Done()
				if p.Generation()%3 == 0 {
					panic("third")
				}
				p.Idle()
				runtime.Gosched()
				p.Busy()
				if p.Generation()%2 == 0 {
					<-ctx.Done()
				}
				return nil
			}
			s := supervise.New(work, supervise.Config{
				TTL: 50 * time.Microsecond, Backoff: supervise.Backoff{First: -1, Max: 1},
				Intensity: supervise.Intensity{Max: 1 << 30},
			})
			for i := range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
				if err := s.Serve(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Serve returned %v", err)
				}
				cancel()
				inside.Wait() // returns at once: all that Serve started has returned
				if st := s.Status(); st.State != supervise.Stopped {
					t.Errorf("state %v", st.State)
				}
			}
		})
	}
	everything.Wait()
}
