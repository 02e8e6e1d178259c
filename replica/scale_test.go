package replica_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/mpmc"
	"github.com/millrace/millrace/replica"
	"github.com/millrace/millrace/supervise"
)

func TestScaleDownLetsIdleReplicasLeaveFirstAndWaitsForBusyOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got record
		handler := func(ctx context.Context, msg int) error {
			time.Sleep(time.Duration(msg) * time.Second)
			if ctx.Err() != nil {
				t.Errorf("%d was told to stop", msg)
			}
			return got.handle(ctx, msg)
		}
		f := newFixture(t, handler, replica.Config[int]{Replicas: 5})
		f.send(10, 13) // three of the five are busy
		f.want(5, 3, 0)
		start := time.Now()
		if err := f.Scale(t.Context(), 3); err != nil || time.Since(start) != 0 {
			t.Errorf("the idle ones left after %v, %v", time.Since(start), err)
		}
		f.want(3, 3, 0)
		f.send(100, 101)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Scale(short, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Scale within a second returned %v", err)
		}
		f.want(1, 3, 1)
		if err := f.Scale(t.Context(), 0); err != nil {
			t.Error(err)
		}
		f.want(0, 0, 1)
		if got := got.String(); got != "[10 11 12]" || time.Since(start) != 12*time.Second {
			t.Errorf("handled %v after %v", got, time.Since(start))
		}
		if err := f.Scale(t.Context(), -1); err == nil {
			t.Error("scaled to -1")
		}
		_ = f.shutdown()
	})
}

func TestReplicasHaveTheLowestFreeNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var got record
		handler := func(ctx context.Context, msg int) error {
			<-release
			return got.handle(ctx, msg)
		}
		f := newFixture(t, handler, replica.Config[int]{Replicas: 3, Supervise: supervise.Config{Name: "mill"}})
		f.send(0, 2) // two are busy, so the third is not
		busy := time.Now()
		time.Sleep(time.Minute)
		idle := 0
		for i, st := range f.Replicas() {
			if st.Number != i+1 || st.Name != fmt.Sprint("mill#", i+1) || st.Generation != 1 {
				t.Errorf("replica %d: %+v", i, st)
			}
			if st.State == supervise.Idle {
				idle = st.Number
			}
			if st.Busy == (st.Number == idle) || st.Busy && !st.Since.Equal(busy) {
				t.Errorf("replica %d: busy %v since %v", st.Number, st.Busy, st.Since)
			}
		}
		_ = f.Retire(t.Context())
		_ = f.Scale(t.Context(), 4)
		numbers := []int{}
		for _, st := range f.Replicas() {
			numbers = append(numbers, st.Number)
			if (st.State == supervise.Idle) != (st.Number == idle || st.Number == 4) {
				t.Errorf("%d is %v", st.Number, st.State)
			}
		}
		if !slices.Equal(numbers, []int{1, 2, 3, 4}) {
			t.Errorf("numbers %v", numbers)
		}
		close(release)
		synctest.Wait()
		if slices.Contains(got.by, 0) || slices.Contains(got.by, idle) {
			t.Errorf("handled by %v, %d was idle", got.by, idle)
		}
		_ = f.shutdown()
		if n := replica.Number(t.Context()); n != 0 {
			t.Errorf("the test is replica %d", n)
		}
	})
}

func TestTheNumberOfAReplicaThatLeftIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		handler := func(ctx context.Context, _ int) error {
			if replica.Number(ctx) == 1 {
				return replica.ErrRetire
			}
			<-release
			return nil
		}
		f := newFixture(t, handler, replica.Config[int]{Replicas: 3})
		f.send(0, 3)
		f.want(2, 2, 0)
		_ = f.Scale(t.Context(), 4)
		var numbers []int
		for _, st := range f.Replicas() {
			numbers = append(numbers, st.Number)
		}
		if !slices.Equal(numbers, []int{1, 2, 3, 4}) {
			t.Errorf("numbers %v", numbers)
		}
		close(release)
		_ = f.shutdown()
	})
}

func TestScaleWaitsForServeAndFailsAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got record
		s := replica.New(mpmc.NewUnbounded[int](), got.handle, replica.Config[int]{})
		scaled := make(chan error, 1)
		go func() { scaled <- s.Scale(t.Context(), 2) }()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Retire(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before Serve, Retire returned %v", err)
		}
		ctx, end := context.WithCancelCause(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx) }()
		if err := <-scaled; err != nil || s.Size() != 2 {
			t.Errorf("%d replicas, %v", s.Size(), err)
		}
		if err := s.Serve(ctx); !errors.Is(err, replica.ErrServed) {
			t.Errorf("a second Serve returned %v", err)
		}
		end(errBroken)
		if err := <-served; !errors.Is(err, errBroken) {
			t.Errorf("Serve returned %v", err)
		}
		if err := s.Scale(t.Context(), 1); !errors.Is(err, replica.ErrStopped) {
			t.Errorf("after Serve, Scale returned %v", err)
		}
		if err := s.Retire(t.Context()); !errors.Is(err, replica.ErrStopped) {
			t.Errorf("after Serve, Retire returned %v", err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("after Serve, Shutdown returned %v", err)
		}
	})
}
