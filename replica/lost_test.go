package replica_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/replica"
	"github.com/millrace/millrace/supervise"
)

func TestAMessageThatKillsItsReplicaIsHandedOnAheadOfTheQueue(t *testing.T) {
	for name, die := range map[string]func(context.Context){
		"panic":   func(context.Context) { panic(errBroken) },
		"goexit":  func(context.Context) { runtime.Goexit() },
		"silence": func(ctx context.Context) { <-ctx.Done() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got record
				var deaths atomic.Int32
				handler := func(ctx context.Context, msg int) error {
					if msg == 1 && deaths.Add(1) < 3 {
						die(ctx)
						return nil // too late to count
					}
					return got.handle(ctx, msg)
				}
				f := newFixture(t, handler, replica.Config[int]{Replicas: 1, Supervise: supervise.Config{TTL: time.Second}})
				f.send(0, 4)
				time.Sleep(time.Minute)
				f.want(1, 0, 0)
				if got.String() != "[0 1 2 3]" {
					t.Errorf("handled %v", &got)
				}
				if st := f.Replicas()[0]; st.Generation != 3 || st.Restarts != 2 || st.Lost != 2 || st.Handled != 4 {
					t.Errorf("status %+v", st)
				}
				if err := f.shutdown(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestALostMessageGoesToAnIdleReplicaAtOnce(t *testing.T) {
	for name, closed := range map[string]bool{"from an open queue": false, "from a closed one": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got record
				var died atomic.Bool
				handler := func(ctx context.Context, msg int) error {
					if died.CompareAndSwap(false, true) {
						time.Sleep(time.Second)
						panic(errBroken)
					}
					return got.handle(ctx, msg)
				}
				f := newFixture(t, handler, replica.Config[int]{
					Replicas: 3, Supervise: supervise.Config{Backoff: supervise.Backoff{First: time.Hour, Max: time.Hour}},
				})
				f.send(0, 1)
				wait := time.Second
				if closed {
					f.queue.Close() // the idle ones leave, the one that died comes back for it
					wait += time.Hour
				}
				time.Sleep(wait)
				synctest.Wait()
				if got.String() != "[0]" {
					t.Errorf("handled %v", &got)
				}
				_ = f.shutdown()
			})
		})
	}
}

func TestAnErrorOfTheHandlerIsNoFaultOfTheReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed, lost record
		handler := func(_ context.Context, msg int) error {
			if msg%2 == 0 {
				return errBroken
			}
			return nil
		}
		f := newFixture(t, handler, replica.Config[int]{Replicas: 1, Failed: failed.fail, Lost: lost.fail})
		f.send(0, 5)
		if failed.String() != "[0 2 4]" || !errors.Is(failed.errs[0], errBroken) || len(lost.msgs) != 0 {
			t.Errorf("failed %v, lost %v", &failed, &lost)
		}
		if st := f.Replicas()[0]; st.Generation != 1 || st.Counts != (replica.Counts{Handled: 2, Failed: 3}) {
			t.Errorf("status %+v", st)
		}
		_ = f.shutdown()
	})
}

func TestLostIsToldWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost record
		handler := func(ctx context.Context, msg int) error {
			switch msg {
			case 0:
				panic(errBroken)
			case 1:
				runtime.Goexit()
			case 2:
				<-ctx.Done()
				return nil
			case 3:
				return replica.Emit(ctx, msg, func(context.Context, int) error { return errBroken })
			case 4:
				func() {
					defer func() { _ = recover() }()
					_ = replica.Emit(ctx, msg, func(context.Context, int) error { panic("in the sink") })
				}()
			}
			return nil
		}
		f := newFixture(t, handler, replica.Config[int]{
			Replicas: 1, Lost: lost.fail, Supervise: supervise.Config{TTL: time.Second},
		})
		f.send(0, 6)
		time.Sleep(time.Minute)
		synctest.Wait()
		if lost.String() != "[0 1 2 3 4]" {
			t.Fatalf("lost %v", &lost)
		}
		for i, want := range []error{errBroken, supervise.ErrGoexit, supervise.ErrSilent, errBroken, nil} {
			if want != nil && !errors.Is(lost.errs[i], want) || lost.errs[i] == nil {
				t.Errorf("%d was lost by %v, want %v", i, lost.errs[i], want)
			}
		}
		var p *supervise.PanicError
		if !errors.As(lost.errs[0], &p) {
			t.Errorf("0 was lost by %v", lost.errs[0])
		}
		if c := f.Counts(); c != (replica.Counts{Handled: 1, Lost: 5}) {
			t.Errorf("counts %+v", c)
		}
		_ = f.shutdown()
	})
}

func TestWaitingForAMessageIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got record
		handler := func(ctx context.Context, msg int) error {
			for range 10 {
				time.Sleep(time.Second - 1)
				supervise.Beat(ctx)
			}
			time.Sleep(time.Second - 1)
			return got.handle(ctx, msg)
		}
		f := newFixture(t, handler, replica.Config[int]{Replicas: 2, Supervise: supervise.Config{TTL: time.Second}})
		for i := range 3 {
			time.Sleep(100 * time.Hour)
			f.send(i, i+1)
		}
		time.Sleep(time.Minute)
		for _, st := range f.Replicas() {
			if st.Generation != 1 || st.State != supervise.Idle {
				t.Errorf("status %+v", st)
			}
		}
		if len(got.msgs) != 3 {
			t.Errorf("handled %v", &got)
		}
		_ = f.shutdown()
	})
}

func TestASlowConsumerOrCallbackIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(context.Context, int) error { time.Sleep(time.Hour); return nil }
		handler := func(ctx context.Context, msg int) error {
			if msg == 0 {
				return replica.Emit(ctx, msg, slow)
			}
			return errBroken
		}
		f := newFixture(t, handler, replica.Config[int]{
			Replicas: 1, Supervise: supervise.Config{TTL: time.Second},
			Failed: func(int, error) { time.Sleep(time.Hour) },
		})
		f.send(0, 2)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if st := f.Replicas()[0]; st.Generation != 1 || st.Counts != (replica.Counts{Handled: 1, Failed: 1}) {
			t.Errorf("status %+v", st)
		}
		_ = f.shutdown()
	})
}

// The fence may fall before a replica takes its next message and be noticed only
// after. The message has been received, so it must have an end.
func TestAMessageThatAFencedReplicaReceivesIsLostAndNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got, lost record
		handler := func(ctx context.Context, msg int) error {
			err := replica.Emit(ctx, msg, got.handle)
			if msg == 0 {
				time.Sleep(2 * time.Second) // silent, with its value delivered
			}
			return err
		}
		f := newFixture(t, handler, replica.Config[int]{
			Replicas: 1, Lost: lost.fail,
			Supervise: supervise.Config{TTL: time.Second, OnEvent: func(e supervise.Event) {
				if e.Kind == supervise.Silent {
					time.Sleep(time.Minute) // it is fenced, and its context goes on
				}
			}},
		})
		f.send(0, 3)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got.String() != "[0 2]" || lost.String() != "[1]" || !errors.Is(lost.errs[0], supervise.ErrFenced) {
			t.Errorf("handled %v, lost %v: %v", &got, &lost, lost.errs)
		}
		_ = f.shutdown()
	})
}

// A replica that is to leave and dies on its message has left; the message has not.
func TestALeavingReplicaThatDiesIsNotReplaced(t *testing.T) {
	for name, deaf := range map[string]bool{"panics": false, "is silent and deaf": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got record
				var died atomic.Bool
				release := make(chan struct{})
				handler := func(ctx context.Context, msg int) error {
					if died.CompareAndSwap(false, true) {
						if deaf {
							<-release
							return nil
						}
						time.Sleep(time.Second)
						panic(errBroken)
					}
					return got.handle(ctx, msg)
				}
				f := newFixture(t, handler, replica.Config[int]{
					Replicas: 1, Supervise: supervise.Config{TTL: 2 * time.Second, Grace: time.Second},
				})
				f.send(0, 2)
				if err := f.Retire(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				f.want(0, 0, 1)
				if err := f.Scale(t.Context(), 1); err != nil {
					t.Fatal(err)
				}
				f.want(1, 0, 0)
				if got.String() != "[0 1]" {
					t.Errorf("handled %v", &got)
				}
				if n := len(f.Abandoned()); (n == 1) != deaf {
					t.Errorf("%d abandoned", n)
				}
				close(release)
				synctest.Wait()
				if n := len(f.Abandoned()); n != 0 {
					t.Errorf("%d abandoned after it has returned", n)
				}
				if err := f.shutdown(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestAReplicaThatWaitsForItsBackoffRetiresAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost record
		f := newFixture(t, func(context.Context, int) error { panic(errBroken) }, replica.Config[int]{
			Replicas: 1, Lost: lost.fail,
			Supervise: supervise.Config{Backoff: supervise.Backoff{First: time.Hour, Max: time.Hour}},
		})
		f.send(0, 1)
		start := time.Now()
		if err := f.Retire(t.Context()); err != nil || time.Since(start) != 0 {
			t.Errorf("it left after %v, %v", time.Since(start), err)
		}
		f.want(0, 0, 0)
		_ = f.shutdown()
	})
}

func TestAMessageThatKillsEveryReplicaEndsTheSetAndIsHandedBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got record
		handler := func(ctx context.Context, msg int) error {
			if msg == 1 {
				panic(errBroken)
			}
			time.Sleep(time.Hour)
			if ctx.Err() == nil {
				return got.handle(ctx, msg)
			}
			return nil
		}
		f := newFixture(t, handler, replica.Config[int]{
			Replicas: 2, Supervise: supervise.Config{Grace: 2 * time.Hour, Intensity: supervise.Intensity{Max: 3}},
		})
		f.send(0, 2)
		err := <-f.serve
		var tooMany *supervise.IntensityError
		var unhandled *replica.UnhandledError[int]
		if !errors.As(err, &tooMany) || !errors.Is(err, errBroken) || !errors.As(err, &unhandled) {
			t.Fatalf("Serve returned %v", err)
		}
		if len(unhandled.Messages) != 1 || unhandled.Messages[0] != 1 {
			t.Errorf("unhandled %v", unhandled.Messages)
		}
		if err := f.Scale(t.Context(), 1); !errors.Is(err, replica.ErrStopped) {
			t.Errorf("Scale returned %v", err)
		}
	})
}

func stuckHere(release <-chan struct{}) { <-release }

func TestTheSetCountsWhatAllReplicasAbandon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost record
		release := make(chan struct{})
		handler := func(context.Context, int) error { stuckHere(release); return nil }
		f := newFixture(t, handler, replica.Config[int]{
			Replicas: 2, Lost: lost.fail,
			Supervise: supervise.Config{TTL: time.Second, Grace: time.Second, MaxAbandoned: 3},
		})
		f.send(0, 3)
		time.Sleep(10 * time.Second)
		f.want(2, 0, 0)
		if all := f.Abandoned(); len(all) != 3 || !strings.Contains(string(all[0].Stack), "stuckHere") {
			t.Fatalf("abandoned %+v", all)
		}
		f.send(3, 4)
		err := <-f.serve
		var tooMany *supervise.AbandonedError
		if !errors.As(err, &tooMany) || len(tooMany.Stuck) != 4 || !errors.Is(err, supervise.ErrSilent) {
			t.Errorf("Serve returned %v", err)
		}
		if len(lost.msgs) != 4 {
			t.Errorf("lost %v", &lost)
		}
		close(release)
		synctest.Wait()
		if n := len(f.Abandoned()); n != 0 {
			t.Errorf("all have returned and still %d are counted", n)
		}
	})
}
