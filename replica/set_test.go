package replica_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/mpmc"
	"github.com/millrace/millrace/replica"
	"github.com/millrace/millrace/supervise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBroken = errors.New("broken")

// record collects messages, and says who handled them.
type record struct {
	mu   sync.Mutex
	msgs []int
	by   []int
	errs []error
}

func (r *record) handle(ctx context.Context, msg int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.msgs = append(r.msgs, msg)
	r.by = append(r.by, replica.Number(ctx))
	return nil
}

func (r *record) fail(msg int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.msgs = append(r.msgs, msg)
	r.errs = append(r.errs, err)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprint(r.msgs)
}

// fixture is a set over an unbounded queue that is served in the test's bubble.
type fixture struct {
	*replica.Set[int]
	t     *testing.T
	queue *mpmc.Chan[int]
	end   context.CancelCauseFunc
	serve chan error
}

func newFixture(t *testing.T, handler replica.Handler[int], cfg replica.Config[int]) *fixture {
	if cfg.Supervise.Random == nil {
		cfg.Supervise.Random = func(n int64) int64 { return n - 1 }
	}
	f := &fixture{t: t, queue: mpmc.NewUnbounded[int](), serve: make(chan error, 1)}
	f.Set = replica.New(f.queue, handler, cfg)
	ctx, end := context.WithCancelCause(context.Background())
	f.end = end
	go func() { f.serve <- f.Serve(ctx) }()
	synctest.Wait()
	return f
}

// send sends the messages from from to to, and waits until all is still.
func (f *fixture) send(from, to int) {
	f.t.Helper()
	for v := from; v < to; v++ {
		if err := f.queue.TrySend(v); err != nil {
			f.t.Fatal(err)
		}
	}
	synctest.Wait()
}

// shutdown shuts down and returns what Serve did.
func (f *fixture) shutdown() error {
	f.t.Helper()
	if err := f.Shutdown(context.Background()); err != nil {
		f.t.Error("Shutdown:", err)
	}
	return <-f.serve
}

func (f *fixture) want(size, busy, waiting int) {
	f.t.Helper()
	synctest.Wait()
	if f.Size() != size || f.Busy() != busy || f.queue.Len() != waiting {
		f.t.Errorf("%d replicas, %d busy, %d messages wait; want %d, %d, %d",
			f.Size(), f.Busy(), f.queue.Len(), size, busy, waiting)
	}
}

func TestReplicasRetireOneByOneAndMessagesWaitForNewOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got record
		f := newFixture(t, got.handle, replica.Config[int]{Replicas: 3})
		for i := range 3 {
			f.send(5*i, 5*i+5)
			f.want(3-i, 0, 0)
			if err := f.Retire(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := len(f.Replicas()); n != 2-i {
				t.Errorf("when Retire returned there were %d replicas", n)
			}
		}
		f.send(15, 20)
		f.want(0, 0, 5)
		if err := f.Retire(t.Context()); !errors.Is(err, replica.ErrNoReplica) {
			t.Errorf("Retire of nobody returned %v", err)
		}
		time.Sleep(time.Hour)
		if len(got.msgs) != 15 {
			t.Errorf("handled %v", &got)
		}
		if err := f.Scale(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		f.want(3, 0, 0)
		slices.Sort(got.msgs)
		for i, v := range got.msgs {
			if i != v || len(got.msgs) != 20 {
				t.Fatalf("handled %v", got.msgs)
			}
		}
		if err := f.shutdown(); err != nil {
			t.Error(err)
		}
		if c := f.Counts(); c != (replica.Counts{Handled: 20}) {
			t.Errorf("counts %+v", c)
		}
	})
}

func TestAPoisonPillRetiresExactlyOneReplicaInItsPlaceInTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pill = -1
		var got record
		handler := func(ctx context.Context, msg int) error {
			if msg == pill {
				return fmt.Errorf("enough: %w", replica.ErrRetire)
			}
			time.Sleep(time.Second)
			return got.handle(ctx, msg)
		}
		f := newFixture(t, handler, replica.Config[int]{Replicas: 2})
		for _, v := range []int{1, 2, 3, pill, 4, 5, pill, 6} {
			_ = f.queue.TrySend(v)
		}
		time.Sleep(time.Hour)
		f.want(0, 0, 1)
		if n := len(f.Replicas()); n != 0 {
			t.Errorf("%d replicas", n)
		}
		slices.Sort(got.msgs)
		if got.String() != "[1 2 3 4 5]" {
			t.Errorf("handled %v, want all before the last pill", &got)
		}
		if c := f.Counts(); c.Handled != 7 || c.Failed+c.Lost != 0 {
			t.Errorf("counts %+v", c)
		}
		_ = f.Scale(t.Context(), 1)
		time.Sleep(time.Second)
		f.want(1, 0, 0)
		_ = f.shutdown()
	})
}

func TestShutdownBeforeServeMeansThatNothingRuns(t *testing.T) {
	var got record
	s := replica.New(mpmc.NewUnbounded[int](), got.handle, replica.Config[int]{Replicas: 3})
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Serve(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Scale(t.Context(), 1); !errors.Is(err, replica.ErrStopped) {
		t.Errorf("Scale returned %v", err)
	}
}

func TestShutdownFinishesWhatWasReceivedAndLeavesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got record
		handler := func(ctx context.Context, msg int) error {
			time.Sleep(time.Minute)
			return got.handle(ctx, msg)
		}
		f := newFixture(t, handler, replica.Config[int]{Replicas: 2})
		f.send(0, 5)
		if err := f.shutdown(); err != nil {
			t.Error(err)
		}
		slices.Sort(got.msgs)
		if got.String() != "[0 1]" || f.queue.Len() != 3 {
			t.Errorf("handled %v, %d wait", &got, f.queue.Len())
		}
	})
}

func TestShutdownStopsHandlersAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed, lost record
		errDeadline := errors.New("too late")
		release := make(chan struct{})
		f := newFixture(t, func(ctx context.Context, msg int) error {
			if msg == 0 {
				<-release // deaf
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}, replica.Config[int]{
			Replicas: 2, Failed: failed.fail, Lost: lost.fail,
			Supervise: supervise.Config{Grace: time.Second},
		})
		f.send(0, 3)
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errDeadline)
		defer cancel()
		start := time.Now()
		if err := f.Shutdown(ctx); !errors.Is(err, errDeadline) {
			t.Errorf("Shutdown returned %v", err)
		}
		if took := time.Since(start); took != time.Minute+time.Second {
			t.Errorf("it took %v, want the deadline and a grace", took)
		}
		err := <-f.serve
		var left *supervise.AbandonedError
		if !errors.As(err, &left) || len(left.Stuck) != 1 {
			t.Errorf("Serve returned %v", err)
		}
		if failed.String() != "[1]" || !errors.Is(failed.errs[0], errDeadline) {
			t.Errorf("failed %v: %v", &failed, failed.errs)
		}
		if lost.String() != "[0]" || !errors.Is(lost.errs[0], errDeadline) {
			t.Errorf("lost %v: %v", &lost, lost.errs)
		}
		f.want(0, 0, 1)
		close(release)
		synctest.Wait()
		if n := len(f.Abandoned()); n != 0 {
			t.Errorf("it has returned and still %d are counted", n)
		}
		if c := f.Counts(); c != (replica.Counts{Failed: 1, Lost: 1}) {
			t.Errorf("counts %+v", c)
		}
	})
}

func TestServeIsContentWithAShutdownThatHadToHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }
		f := newFixture(t, handler, replica.Config[int]{Replicas: 1})
		f.send(0, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown returned %v", err)
		}
		if err := <-f.serve; err != nil {
			t.Errorf("Serve returned %v", err)
		}
	})
}

func TestServeEndsWhenTheQueueIsClosedAndEverythingIsHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got record
		var died atomic.Bool
		handler := func(ctx context.Context, msg int) error {
			time.Sleep(time.Second)
			if msg == 3 && died.CompareAndSwap(false, true) {
				panic(errBroken) // its message must still be handled
			}
			return got.handle(ctx, msg)
		}
		f := newFixture(t, handler, replica.Config[int]{Replicas: 2})
		f.send(0, 4)
		f.queue.Close()
		if err := <-f.serve; err != nil {
			t.Error(err)
		}
		slices.Sort(got.msgs)
		if got.String() != "[0 1 2 3]" {
			t.Errorf("handled %v", &got)
		}
	})
}

func TestAHandledMessageIsNotKeptAlive(t *testing.T) {
	queue := mpmc.NewUnbounded[*[64]int]()
	handled := make(chan weak.Pointer[[64]int], 1)
	s := replica.New(queue, func(_ context.Context, msg *[64]int) error {
		handled <- weak.Make(msg)
		return nil
	}, replica.Config[*[64]int]{Replicas: 1})
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context()) }()
	_ = queue.TrySend(new([64]int))
	msg := <-handled
	for s.Counts().Handled == 0 || s.Busy() > 0 {
		runtime.Gosched()
	}
	for range 10 {
		runtime.GC()
	}
	if msg.Value() != nil {
		t.Error("the idle replica keeps its last message alive")
	}
	queue.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// Sets are scaled, retired, poisoned, shut down and ended at any moment, and
// each leaves nothing behind. (After river's startstop stress.)
func TestStartStopStress(t *testing.T) {
	var everything sync.WaitGroup
	for seed := range 40 {
		everything.Go(func() {
			q := mpmc.New[int](8)
			var inside sync.WaitGroup
			handler := func(_ context.Context, msg int) error {
				inside.Add(1)
				defer inside.Done()
				switch msg % 11 {
				case 3:
					return replica.ErrRetire
				case 5:
					panic("five")
				case 7:
					return errBroken
				}
				return nil
			}
			s := replica.New(q, handler, replica.Config[int]{
				Replicas: seed % 3, Lost: func(int, error) {},
				Supervise: supervise.Config{
					Backoff: supervise.Backoff{First: -1, Max: 1}, Intensity: supervise.Intensity{Max: 1 << 30},
				},
			})
			ctx, end := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- s.Serve(ctx) }()
			var others sync.WaitGroup
			others.Go(func() {
				for i := 0; q.Send(ctx, i) == nil; i++ {
				}
			})
			for i := range 3 {
				others.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						if s.Scale(ctx, (n+i)%5) != nil {
							return
						}
						_ = s.Retire(ctx)
						_, _, _ = s.Busy(), s.Counts(), s.Replicas()
					}
				})
			}
			for range 50 * seed {
				runtime.Gosched()
			}
			if seed%2 == 0 {
				if err := s.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				end()
			}
			end()
			err := <-served
			if seed%2 == 0 && err != nil || seed%2 == 1 && !errors.Is(err, context.Canceled) {
				t.Errorf("Serve returned %v", err)
			}
			inside.Wait()
			others.Wait()
			if s.Size() != 0 || s.Busy() != 0 {
				t.Errorf("%d replicas, %d busy after the end", s.Size(), s.Busy())
			}
		})
	}
	everything.Wait()
}
