package supervise

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The fence and an emission race over and over. A value must never be delivered
// while, or after, the fence is down.
func TestFenceAndEmissionExcludeEachOther(t *testing.T) {
	const emitters, rounds = 3, 20_000
	var delivered, refused int
	for range rounds {
		p := newPulse(1, 1)
		var fenced atomic.Bool // set after the fence fell
		var late, ok, no atomic.Int64
		sink := func(context.Context, int) error {
			if fenced.Load() {
				late.Add(1)
			}
			return nil
		}
		var all sync.WaitGroup
		for range emitters {
			all.Go(func() {
				switch err := Emit(t.Context(), p, 1, sink); {
				case err == nil:
					ok.Add(1)
				case errors.Is(err, ErrFenced):
					no.Add(1)
				}
			})
		}
		all.Go(func() {
			silent, _ := p.fenceIfSilent()
			for !silent {
				silent, _ = p.fenceIfSilent()
			}
			fenced.Store(true)
		})
		all.Wait()
		if late.Load() > 0 {
			t.Fatal("a value was delivered after the fence fell")
		}
		if ok.Load()+no.Load() != emitters {
			t.Fatal("an emission was neither delivered nor refused")
		}
		if err := Emit(t.Context(), p, 1, sink); !errors.Is(err, ErrFenced) {
			t.Fatalf("after all, Emit returned %v", err)
		}
		p.waitQuiet()
		delivered += int(ok.Load())
		refused += int(no.Load())
	}
	if delivered == 0 || refused == 0 {
		t.Skipf("no race: %d delivered, %d refused", delivered, refused)
	}
}

// A worker that was idle, or emitted, for long is not silent at the moment at
// which that ends, even if the monitor looks just then.
func TestTheEndOfALongHoldIsNotSilence(t *testing.T) {
	for i := range 40_000 {
		p := newPulse(1, time.Hour)
		p.start = p.start.Add(-10 * time.Hour)
		end := func() { p.Busy() }
		if i%2 == 0 {
			p.Idle()
		} else {
			_ = p.BeginEmit()
			end = p.EndEmit
		}
		var both sync.WaitGroup
		both.Go(end)
		silent, next := false, time.Duration(0)
		both.Go(func() {
			for range 20 {
				if silent, next = p.fenceIfSilent(); silent || next < time.Hour {
					return
				}
			}
		})
		both.Wait()
		if silent {
			t.Fatalf("round %d: silent as it came back", i)
		}
	}
}

// waitQuiet waits for every emission, and misses no end of one.
func TestQuietComesAfterTheLastEmission(t *testing.T) {
	for range 2_000 {
		p := newPulse(1, 0)
		var under atomic.Int64
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				_ = Emit(t.Context(), p, 1, func(context.Context, int) error {
					under.Add(1)
					defer under.Add(-1)
					return nil
				})
			})
		}
		p.fence()
		p.waitQuiet()
		if n := under.Load(); n != 0 {
			t.Fatalf("%d emissions under way when all was quiet", n)
		}
		all.Wait()
	}
}

func TestSignsOfLifeDoNotAllocate(t *testing.T) {
	p := newPulse(1, time.Hour)
	ctx := context.WithValue(t.Context(), pulseKey{}, p)
	sink := func(context.Context, [4]int) error { return nil }
	allocs := testing.AllocsPerRun(100, func() {
		p.Idle()
		p.Busy()
		p.Beat()
		Beat(ctx)
		_ = Emit(ctx, p, [4]int{}, sink)
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestBackoffNeverOverflows(t *testing.T) {
	b := Config{Backoff: Backoff{First: 1, Max: 1<<63 - 1}}.WithDefaults().Backoff
	for n := range 200 {
		if d := b.wait(n, func(n int64) int64 { return n - 1 }); d <= 0 || n > 62 && d != b.Max-1 {
			t.Fatalf("restart %d waits for %v", n, d)
		}
	}
}

func BenchmarkBeat(b *testing.B) {
	p := newPulse(1, time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		p.Beat()
	}
}

func BenchmarkIdleBusy(b *testing.B) {
	p := newPulse(1, time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		p.Idle()
		p.Busy()
	}
}

func BenchmarkEmit(b *testing.B) {
	for name, ttl := range map[string]time.Duration{"TTL": time.Hour, "NoTTL": 0} {
		b.Run(name, func(b *testing.B) {
			p := newPulse(1, ttl)
			ctx := context.Background()
			sink := func(context.Context, int) error { return nil }
			b.ReportAllocs()
			for b.Loop() {
				_ = Emit(ctx, p, 1, sink)
			}
		})
	}
}
