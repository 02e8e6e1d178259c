package supervise_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/supervise"
)

// deaf ignores its context until it is released.
func deaf(release <-chan struct{}) supervise.Func {
	return func(ctx context.Context, p *supervise.Pulse) error {
		turnADeafEar(release)
		return supervise.Emit(ctx, p, "late", func(context.Context, string) error {
			panic("a value of an abandoned generation was delivered")
		})
	}
}

func turnADeafEar(release <-chan struct{}) { <-release }

func TestAWorkerThatIgnoresItsContextIsCountedAndShownUntilItReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		release := make(chan struct{})
		stuck := deaf(release)
		work := func(ctx context.Context, p *supervise.Pulse) error {
			if p.Generation() == 1 {
				return stuck(ctx, p)
			}
			p.Idle()
			<-ctx.Done()
			return nil
		}
		s := supervise.New(work, supervise.Config{
			TTL: time.Second, Grace: 3 * time.Second, Backoff: supervise.Backoff{First: -1}, OnEvent: l.add,
		})
		stop := serve(s)
		time.Sleep(4*time.Second + 1)
		synctest.Wait()
		want := "1:started 1:silent 1:abandoned 2:restarting 2:started"
		if l.String() != want {
			t.Fatalf("events %v\nwant   %v", &l, want)
		}
		st := s.Status()
		if len(st.Abandoned) != 1 || st.Abandoned[0].Generation != 1 {
			t.Fatalf("abandoned: %+v", st.Abandoned)
		}
		if stack := string(st.Abandoned[0].Stack); !strings.Contains(stack, "turnADeafEar") {
			t.Errorf("the stack does not show where it is:\n%s", stack)
		}
		close(release)
		synctest.Wait()
		if n := len(s.Status().Abandoned); n != 0 {
			t.Errorf("it has returned and still %d are counted", n)
		}
		if want += " 1:returned"; l.String() != want {
			t.Errorf("events %v\nwant   %v", &l, want)
		}
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Serve returned %v", err)
		}
	})
}

func TestAGenerationThatIsGivenUpIsAbandonedAtOnceAndReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		release := make(chan struct{})
		first := make(chan *supervise.Pulse, 1)
		stuck := deaf(release)
		s := supervise.New(func(ctx context.Context, p *supervise.Pulse) error {
			if p.Generation() == 1 {
				first <- p
				return stuck(ctx, p)
			}
			p.Idle()
			if p.GiveUp(errors.New("idle")) {
				t.Error("an idle worker was given up")
			}
			<-ctx.Done()
			return nil
		}, supervise.Config{Grace: time.Hour, Backoff: supervise.Backoff{First: -1}, OnEvent: l.add})
		stop := serve(s)
		p, enough := <-first, errors.New("enough")
		if !p.GiveUp(enough) || p.GiveUp(enough) {
			t.Error("it can be given up exactly once")
		}
		synctest.Wait()
		if want := "1:started 1:abandoned 2:restarting 2:started"; l.String() != want {
			t.Errorf("events %v\nwant   %v", &l, want)
		}
		if st := s.Status(); len(st.Abandoned) != 1 || !errors.Is(st.Err, enough) {
			t.Errorf("status %+v", st)
		}
		close(release)
		_ = stop()
		if (*supervise.Pulse)(nil).GiveUp(enough) {
			t.Error("nobody was given up")
		}
	})
}

func TestTooManyAbandonedEndServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := supervise.New(deaf(release), supervise.Config{
			Name: "w", TTL: time.Second, Grace: time.Second, MaxAbandoned: 2,
			Backoff: supervise.Backoff{First: -1}, Intensity: supervise.Intensity{Max: 100},
		})
		start := time.Now()
		err := s.Serve(t.Context())
		var tooMany *supervise.AbandonedError
		if !errors.As(err, &tooMany) || len(tooMany.Stuck) != 3 || !errors.Is(err, supervise.ErrSilent) {
			t.Fatalf("Serve returned %v", err)
		}
		if took := time.Since(start); took != 6*time.Second {
			t.Errorf("it took %v, want three times TTL and grace", took)
		}
		if !strings.Contains(err.Error(), "3 abandoned") || !strings.Contains(err.Error(), "turnADeafEar") {
			t.Errorf("it does not say enough: %v", err)
		}
		close(release) // they return without anybody to tell
		synctest.Wait()
		if n := len(s.Status().Abandoned); n != 0 {
			t.Errorf("all have returned and still %d are counted", n)
		}
	})
}

func TestAWorkerThatIsLeftBehindAtTheEndIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := supervise.New(deaf(release), supervise.Config{Grace: time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Serve(ctx)
		var left *supervise.AbandonedError
		if !errors.As(err, &left) || len(left.Stuck) != 1 || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Serve returned %v", err)
		}
		if st := s.Status(); st.State != supervise.Stopped || len(st.Abandoned) != 1 {
			t.Errorf("status %+v", st)
		}
		close(release)
	})
}

// The end of an emission, whenever it comes, must not let a value out after the
// fence: one that was begun before is the only one that can still arrive.
func TestAnAbandonedEmissionIsTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		delivered := 0
		sink := func(context.Context, int) error { <-release; delivered++; return nil } // deaf too
		work := func(ctx context.Context, p *supervise.Pulse) error {
			for {
				if err := supervise.Emit(ctx, p, 1, sink); err != nil {
					return err
				}
			}
		}
		s := supervise.New(work, supervise.Config{TTL: time.Second, Grace: time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var left *supervise.AbandonedError
		if err := s.Serve(ctx); !errors.As(err, &left) {
			t.Fatalf("Serve returned %v", err)
		}
		close(release)
		synctest.Wait()
		if delivered != 1 {
			t.Errorf("%d values were delivered, want the one under way", delivered)
		}
	})
}
