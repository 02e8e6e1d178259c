package supervise_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/supervise"
)

// Whatever a worker does that counts as life, for as long as it likes, it is not
// silent; when it stops to, its silence is noticed one TTL after the last sign,
// to the nanosecond.
func TestSilenceIsNoticedExactlyOneTTLAfterTheLastSignOfLife(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ttl := time.Duration(rapid.Int64Range(2, int64(time.Minute)).Draw(rt, "ttl"))
		below := rapid.Custom(func(rt *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(ttl)-1).Draw(rt, "d"))
		})
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"beat", "beat by context", "idle", "emit", "fail to emit"}), 0, 30).Draw(rt, "steps")
		gaps := make([]time.Duration, len(steps))
		holds := make([]time.Duration, len(steps))
		for i := range steps {
			gaps[i] = below.Draw(rt, "gap")
			holds[i] = time.Duration(rapid.Int64Range(0, 5*int64(ttl)).Draw(rt, "hold"))
		}
		synctest.Test(t, func(*testing.T) {
			var last time.Time
			work := func(ctx context.Context, p *supervise.Pulse) error {
				last = time.Now()
				for i, step := range steps {
					time.Sleep(gaps[i])
					switch step {
					case "beat":
						p.Beat()
					case "beat by context":
						supervise.Beat(derive(ctx))
					case "idle":
						p.Idle()
						time.Sleep(holds[i])
						if !p.Busy() {
							rt.Errorf("fenced while idle")
						}
					case "emit", "fail to emit":
						var refusal error
						if step == "fail to emit" {
							refusal = errBroken
						}
						err := supervise.Emit(ctx, p, i, func(context.Context, int) error {
							time.Sleep(holds[i])
							return refusal
						})
						if !errors.Is(err, refusal) {
							rt.Errorf("Emit returned %v, want %v", err, refusal)
						}
					}
					last = time.Now()
				}
				<-ctx.Done()
				return nil
			}
			s := supervise.New(work, supervise.Config{TTL: ttl, Restart: supervise.Temporary})
			err := s.Serve(context.Background())
			var silent *supervise.SilentError
			if !errors.As(err, &silent) {
				rt.Fatalf("Serve returned %v", err)
			}
			if after := time.Since(last); after != ttl {
				rt.Errorf("noticed after %v, want %v", after, ttl)
			}
			if !silent.LastBeat.Equal(last) || silent.TTL != ttl || silent.Generation != 1 {
				rt.Errorf("it tells %+v, last sign of life %v", silent, last)
			}
		})
	})
}

// derive returns a context as a handler's middleware would.
func derive(ctx context.Context) context.Context {
	type key struct{}
	return context.WithValue(ctx, key{}, 1)
}

func TestASilentWorkerIsFencedToldWhyAndReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		var delivered []uint64
		sink := func(_ context.Context, generation uint64) error {
			delivered = append(delivered, generation)
			return nil
		}
		work := func(ctx context.Context, p *supervise.Pulse) error {
			if p.Generation() == 2 {
				return supervise.Emit(ctx, p, p.Generation(), sink)
			}
			<-ctx.Done()
			if cause := context.Cause(ctx); !errors.Is(cause, supervise.ErrSilent) {
				t.Errorf("its context ended with %v", cause)
			}
			if err := supervise.Emit(ctx, p, p.Generation(), sink); !errors.Is(err, supervise.ErrFenced) {
				t.Errorf("Emit after the fence returned %v", err)
			}
			if !p.Fenced() {
				t.Error("it is not fenced")
			}
			return nil // saying that all is well does not undo it
		}
		s := supervise.New(work, supervise.Config{
			TTL: time.Second, Restart: supervise.Transient, Random: longest, OnEvent: l.add,
		})
		start := time.Now()
		if err := s.Serve(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took, want := time.Since(start), 1100*time.Millisecond; took != want {
			t.Errorf("replaced after %v, want TTL and backoff: %v", took, want)
		}
		if len(delivered) != 1 || delivered[0] != 2 {
			t.Errorf("delivered from generations %v, want 2 alone", delivered)
		}
		want := "1:started 1:silent 1:exited 2:restarting 2:started 2:exited"
		if l.String() != want {
			t.Errorf("events %v\nwant   %v", &l, want)
		}
	})
}

func TestWithoutATTLNoHeartbeatIsExpected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := supervise.New(func(context.Context, *supervise.Pulse) error { time.Sleep(1000 * time.Hour); return nil },
			supervise.Config{Restart: supervise.Transient})
		if err := s.Serve(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAnEmissionThatWasBegunBeforeTheTTLKeepsTheFenceUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		delivered := 0
		work := func(ctx context.Context, p *supervise.Pulse) error {
			time.Sleep(time.Second - 1)
			return supervise.Emit(ctx, p, 1, func(context.Context, int) error {
				time.Sleep(time.Hour)
				delivered++
				return nil
			})
		}
		s := supervise.New(work, supervise.Config{TTL: time.Second, Restart: supervise.Transient})
		if err := s.Serve(t.Context()); err != nil || delivered != 1 {
			t.Fatalf("delivered %d, %v", delivered, err)
		}
	})
}

// A goroutine that the worker leaves behind while it emits belongs to its
// generation: the next one starts when that emission is over.
func TestGenerationsDoNotOverlapInEmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		work := func(ctx context.Context, p *supervise.Pulse) error {
			if p.Generation() == 2 {
				order = append(order, "second generation")
				if err := context.Cause(ctx); err != nil {
					t.Error(err)
				}
				return nil
			}
			begun := make(chan struct{})
			go func() {
				_ = supervise.Emit(ctx, p, 1, func(context.Context, int) error {
					close(begun)
					time.Sleep(time.Minute)
					order = append(order, "delivered")
					return nil
				})
				if err := supervise.Emit(ctx, p, 2, func(context.Context, int) error { return nil }); !errors.Is(err, supervise.ErrFenced) {
					t.Errorf("after its generation was over, Emit returned %v", err)
				}
			}()
			<-begun
			return errBroken
		}
		s := supervise.New(work, supervise.Config{Restart: supervise.Transient, Backoff: supervise.Backoff{First: -1}})
		if err := s.Serve(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(order) != 2 || order[0] != "delivered" {
			t.Errorf("order %q", order)
		}
	})
}

func TestHelpersDoNothingWithoutASupervisor(t *testing.T) {
	supervise.Beat(t.Context())
	p := supervise.FromContext(t.Context())
	if p != nil {
		t.Fatalf("a pulse from nowhere: %+v", p)
	}
	p.Beat()
	p.Idle()
	if !p.Busy() || p.Fenced() || p.Generation() != 0 || !p.BusySince().IsZero() {
		t.Error("a nil pulse is fenced")
	}
	got := 0
	if err := supervise.Emit(t.Context(), p, 7, func(_ context.Context, v int) error { got = v; return nil }); err != nil || got != 7 {
		t.Errorf("Emit: %v, delivered %d", err, got)
	}
}
