package fanin_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/fanin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBroken = errors.New("broken")

type merger = fanin.Merger[int]

// serve serves in a goroutine of the test's bubble; the function it returns ends
// the context and returns what Serve did.
func serve(m *merger) (end func() error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	result := make(chan error, 1)
	go func() { result <- m.Serve(ctx) }()
	return func() error {
		cancel(errBroken)
		return <-result
	}
}

// count emits from from to to, and returns the first error.
func count(from, to int) fanin.Source[int] {
	return func(ctx context.Context, emit fanin.Emit[int]) error {
		for v := from; v < to; v++ {
			if err := emit(ctx, v); err != nil {
				return err
			}
		}
		return nil
	}
}

// untilTold waits for the end of its context.
func untilTold(ctx context.Context, _ fanin.Emit[int]) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func add(t *testing.T, m *merger, name string, src fanin.Source[int]) *fanin.Input[int] {
	t.Helper()
	in, err := m.Add(name, src)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func readAll(t *testing.T, m *merger) (all []int) {
	t.Helper()
	buf := make([]int, 7)
	for {
		n, err := m.RecvBatch(t.Context(), buf)
		if err != nil {
			if !errors.Is(err, fanin.ErrClosed) || n != 0 {
				t.Fatalf("%d values and %v", n, err)
			}
			return all
		}
		all = append(all, buf[:n]...)
	}
}

func TestEverySourceKeepsItsOrderAndNothingIsLostOrDoubled(t *testing.T) {
	const sources, each = 8, 20_000
	for _, capacity := range []int{1, 2, 100} {
		t.Run(fmt.Sprint(capacity), func(t *testing.T) {
			m := fanin.New(fanin.Config[int]{Buffer: capacity})
			for i := range sources {
				add(t, m, fmt.Sprint(i), count(i*each, (i+1)*each))
			}
			m.Close()
			result := make(chan error, 1)
			go func() { result <- m.Serve(t.Context()) }()
			var next [sources]int
			for i, v := range readAll(t, m) {
				source := v / each
				if v%each != next[source] {
					t.Fatalf("value %d: source %d gave %d, want %d", i, source, v%each, next[source])
				}
				next[source]++
			}
			for i, n := range next {
				if n != each {
					t.Errorf("source %d: %d values", i, n)
				}
			}
			if err := <-result; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheStreamEndsAfterCloseWhenEverythingWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := fanin.New(fanin.Config[int]{Grace: time.Second})
		add(t, m, "a", count(0, 3))
		result := make(chan error, 1)
		go func() { result <- m.Serve(t.Context()) }()
		synctest.Wait()
		add(t, m, "b", count(3, 5)) // all sources have ended, and still one more may come
		m.Close()
		if _, err := m.Add("c", count(5, 6)); !errors.Is(err, fanin.ErrClosed) {
			t.Errorf("Add after Close returned %v", err)
		}
		time.Sleep(time.Hour) // no grace counts: nobody told it to stop
		if m.Len() != 5 || m.Sources() != 0 {
			t.Errorf("%d values wait, %d sources", m.Len(), m.Sources())
		}
		if got := readAll(t, m); !slices.Equal(got, []int{0, 1, 2, 3, 4}) {
			t.Errorf("read %v", got)
		}
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

func TestLiveValuesAreReadWithinTheGraceAndTheRestIsHandedOver(t *testing.T) {
	for name, callback := range map[string]bool{"to the callback": true, "in the error": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var rest []int
				cfg := fanin.Config[int]{Buffer: 8, Grace: 10 * time.Second}
				if callback {
					cfg.Undelivered = func(vs []int) { rest = append(rest, vs...) }
				}
				m := fanin.New(cfg)
				accepted := 0
				add(t, m, "a", func(ctx context.Context, emit fanin.Emit[int]) error {
					for {
						if err := emit(ctx, accepted); err != nil {
							return err
						}
						accepted++
					}
				})
				add(t, m, "last words", func(ctx context.Context, emit fanin.Emit[int]) error {
					<-ctx.Done()
					time.Sleep(5 * time.Second)
					return emit(ctx, -1)
				})
				end := serve(m)
				synctest.Wait()
				start := time.Now()
				var read []int
				go func() {
					for v := range m.All(context.Background()) {
						read = append(read, v)
						time.Sleep(3 * time.Second)
					}
				}()
				err := end()
				if took := time.Since(start); took != 10*time.Second {
					t.Errorf("it took %v, want the grace", took)
				}
				var undelivered *fanin.UndeliveredError[int]
				if errors.As(err, &undelivered) == callback {
					t.Errorf("Serve returned %v", err)
				}
				if !callback {
					rest = undelivered.Values
				}
				if !errors.Is(err, errBroken) {
					t.Errorf("Serve returned %v, want the cause of its context too", err)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if got := fmt.Sprint(read, rest); got != "[0 1 2 3] [4 5 6 7 -1]" && got != "[0 1 2 3] [4 5 6 7 8 -1]" {
					t.Errorf("read and rest: %v, accepted %d", got, accepted)
				}
				if err := m.Emit(context.Background(), 1); !errors.Is(err, fanin.ErrClosed) {
					t.Errorf("Emit after the end returned %v", err)
				}
			})
		})
	}
}

func TestDrainingEndsBeforeTheGraceWhenNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := fanin.New(fanin.Config[int]{Grace: time.Hour})
		add(t, m, "a", count(0, 10))
		add(t, m, "b", untilTold)
		result := make(chan error, 1)
		go func() { result <- m.Serve(t.Context()) }()
		synctest.Wait()
		start := time.Now()
		m.Stop()
		if got := len(readAll(t, m)); got != 10 {
			t.Errorf("read %d", got)
		}
		if err := <-result; err != nil {
			t.Errorf("after Stop, Serve returned %v", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %v", took)
		}
		if _, err := m.Add("c", count(0, 1)); !errors.Is(err, fanin.ErrClosed) {
			t.Errorf("Add after Stop returned %v", err)
		}
		if err := m.Serve(t.Context()); !errors.Is(err, fanin.ErrServed) {
			t.Errorf("a second Serve returned %v", err)
		}
	})
}

func TestAReaderThatWalksAwayLeavesNoGoroutineBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left at its end
		rest := 0
		m := fanin.New(fanin.Config[int]{Buffer: 4, Undelivered: func(vs []int) { rest = len(vs) }})
		var ends [3]error
		for i := range 3 {
			add(t, m, fmt.Sprint(i), func(ctx context.Context, emit fanin.Emit[int]) error {
				for {
					// A source that does not listen to its context, only to emit.
					if err := emit(context.Background(), i); err != nil {
						ends[i] = err
						return err
					}
				}
			})
		}
		end := serve(m)
		if _, err := m.Recv(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := end(); !errors.Is(err, errBroken) {
			t.Errorf("Serve returned %v", err)
		}
		if rest != 4 || ends != [3]error{fanin.ErrClosed, fanin.ErrClosed, fanin.ErrClosed} {
			t.Errorf("%d undelivered; the sources ended with %v", rest, ends)
		}
	})
}

func TestSourcesAreRemovedWhileTheRestGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := fanin.New(fanin.Config[int]{})
		var why error
		early := add(t, m, "early", untilTold)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := early.Remove(gone); !errors.Is(err, context.Canceled) {
			t.Errorf("removed before it began: %v", err)
		}
		a := add(t, m, "a", func(ctx context.Context, emit fanin.Emit[int]) error {
			if err := emit(ctx, 1); err != nil {
				return err
			}
			<-ctx.Done()
			why = context.Cause(ctx)
			time.Sleep(time.Minute)
			return nil
		})
		b := add(t, m, "b", untilTold)
		end := serve(m)
		synctest.Wait()
		<-early.Done()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Remove(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Remove within a second returned %v", err)
		}
		if err := a.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		if !errors.Is(why, fanin.ErrRemoved) {
			t.Errorf("it was told %v", why)
		}
		if m.Sources() != 1 {
			t.Errorf("%d sources", m.Sources())
		}
		if v, err := m.Recv(t.Context()); v != 1 || err != nil {
			t.Errorf("what it had emitted: %v, %v", v, err)
		}
		select {
		case <-b.Done():
			t.Error("the other source has ended too")
		default:
		}
		_ = end()
		if err := b.Remove(gone); err != nil {
			t.Errorf("removed after its end: %v", err)
		}
	})
}

func TestASourceThatFailsEndsAloneAndIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := map[string]error{}
		var mu sync.Mutex
		m := fanin.New(fanin.Config[int]{OnEnd: func(name string, err error) {
			mu.Lock()
			defer mu.Unlock()
			ends[name] = err
		}})
		add(t, m, "error", func(context.Context, fanin.Emit[int]) error { return errBroken })
		add(t, m, "panic", explode)
		add(t, m, "goexit", func(context.Context, fanin.Emit[int]) error { runtime.Goexit(); return nil })
		add(t, m, "fine", count(0, 1))
		add(t, m, "told", untilTold)
		end := serve(m)
		synctest.Wait()
		if m.Sources() != 1 {
			t.Errorf("%d sources go on, want one", m.Sources())
		}
		go func() { readAll(t, m) }()
		err := end()
		var p *fanin.PanicError
		if !errors.As(err, &p) || !strings.Contains(string(p.Stack), "fanin_test.explode") || !errors.Is(err, errBroken) {
			t.Errorf("no panic with its stack in %v", err)
		}
		if !errors.Is(err, fanin.ErrGoexit) || !strings.Contains(err.Error(), "source error: broken") {
			t.Errorf("Serve returned %v", err)
		}
		if len(ends) != 5 || ends["fine"] != nil || ends["told"] != nil {
			t.Errorf("ends: %v", ends)
		}
	})
}

func explode(context.Context, fanin.Emit[int]) error { panic(errBroken) }

func TestServeKeepsTheFirstErrorsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		m := fanin.New(fanin.Config[int]{OnEnd: func(string, error) { told++ }})
		result := make(chan error, 1)
		go func() { result <- m.Serve(t.Context()) }()
		for i := range 100 {
			add(t, m, fmt.Sprint(i), func(context.Context, fanin.Emit[int]) error { return errBroken })
			synctest.Wait()
		}
		m.Close()
		if n := strings.Count((<-result).Error(), "broken"); n != 16 || told != 100 {
			t.Errorf("%d errors kept, %d told", n, told)
		}
	})
}

func TestLeavingTheIteratorLosesNothingAndStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := fanin.New(fanin.Config[int]{Buffer: 2})
		add(t, m, "a", count(0, 10))
		m.Close()
		result := make(chan error, 1)
		go func() { result <- m.Serve(t.Context()) }()
		var got []int
		for range 5 {
			for v := range m.All(t.Context()) {
				got = append(got, v)
				if len(got)%2 == 0 {
					break
				}
			}
		}
		if rest := readAll(t, m); len(rest) != 0 || len(got) != 10 || !slices.IsSorted(got) {
			t.Errorf("got %v, rest %v", got, rest)
		}
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}
