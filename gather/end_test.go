package gather_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

// endless yields inputs for as long as anybody wants them; after forty they
// are slow.
func endless(yielded *atomic.Int64) func(func(string) bool) {
	return func(yield func(string) bool) {
		for {
			n := yielded.Add(1)
			input := fmt.Sprint("input ", n)
			if n > 40 {
				input = "slow " + input
			}
			if !yield(input) {
				return
			}
		}
	}
}

func TestLeavingTheLoopCancelsWhatHasNoResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		tap := tapControl(t, b)
		release := make(chan struct{})
		stop := serve(t, b, staller(release), worker.Config{Replicas: 2})
		c := newClient(t, b, gather.Config{Window: 5})
		for r, err := range gather.Map[string](t.Context(), c, slices.Values([]string{"a", "slow", "slow", "slow"})) {
			must(t, err)
			if r.Value != "A" {
				t.Error(r)
			}
			break
		}
		synctest.Wait()
		ids := canceled(t, b, tap)
		if len(ids) != 1 || len(ids[0]) != 16 {
			t.Fatalf("cancelled: %q", ids)
		}
		// The worker, whose tasks would last forever, has nothing to do any more.
		d, err := b.Depth(t.Context(), queue, millrace.WorkChannel)
		must(t, err)
		if d != (millrace.Depth{}) {
			t.Errorf("%+v", d)
		}
		closeAll(t, c, b, stop)
	})
}

func TestALoopThatIsDoneCancelsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		tap := tapControl(t, b)
		stop := serve(t, b, upper, worker.Config{})
		c := newClient(t, b, gather.Config{})
		for _, err := range gather.Map[string](t.Context(), c, slices.Values(texts(10))) {
			must(t, err)
		}
		if _, err := gather.Call[string](t.Context(), c, "a"); err != nil {
			t.Error(err)
		}
		must(t, c.Close(t.Context()))
		if ids := canceled(t, b, tap); len(ids) != 0 {
			t.Errorf("cancelled: %q", ids)
		}
		stop()
		must(t, b.Close())
	})
}

func TestTheEndOfTheContextEndsTheLoopWithItsCause(t *testing.T) {
	why := errors.New("enough")
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newFaulty(t)
			tap := tapControl(t, b)
			stop := serve(t, b, staller(nil), worker.Config{Replicas: 3})
			c := newClient(t, b, gather.Config{Window: 105})
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			var yielded atomic.Int64
			loop := gather.Map[string, string]
			if ordered {
				loop = gather.MapOrdered[string, string]
			}
			n, ends := 0, 0
			for r, err := range loop(ctx, c, endless(&yielded)) {
				if err != nil {
					ends++
					if !errors.Is(err, why) || r.Index != -1 {
						t.Errorf("%+v, %v", r, err)
					}
					continue
				}
				n++
				synctest.Wait() // more are there than have been yielded
				if n == 20 {
					cancel(why)
				}
			}
			if n != 20 || ends != 1 {
				t.Errorf("%d results and %d ends", n, ends)
			}
			synctest.Wait()
			if ids := canceled(t, b, tap); len(ids) != 1 {
				t.Errorf("cancelled: %q", ids)
			}
			closeAll(t, c, b, stop)
		})
	}
}

func TestTheLoopDoesNotWaitForAnIteratorThatIsBlocked(t *testing.T) {
	for _, how := range []string{"left", "context"} {
		synctest.Test(t, func(t *testing.T) {
			b := newFaulty(t)
			stop := serve(t, b, upper, worker.Config{})
			c := newClient(t, b, gather.Config{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			line := make(chan string)
			told := make(chan bool, 1)
			inputs := func(yield func(string) bool) {
				yield("first")
				told <- yield(<-line) // as a terminal on which nobody types
			}
			for _, err := range gather.Map[string](ctx, c, inputs) {
				if err != nil {
					break
				}
				if how == "left" {
					break
				}
				cancel()
			}
			line <- "too late"
			if <-told {
				t.Error("the iterator was told to go on")
			}
			closeAll(t, c, b, stop)
		})
	}
}

func TestAResultDoesNotWaitForTheNextInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		stop := serve(t, b, upper, worker.Config{})
		c := newClient(t, b, gather.Config{})
		start := time.Now()
		inputs := func(yield func(string) bool) {
			for i := range 5 {
				if !yield(fmt.Sprint(i)) {
					return
				}
				time.Sleep(time.Hour)
			}
		}
		n := 0
		for _, err := range gather.Map[string](t.Context(), c, inputs) {
			must(t, err)
			if late := time.Since(start) - time.Duration(n)*time.Hour; late > time.Second {
				t.Errorf("result %d came %v after its input", n, late)
			}
			n++
		}
		if n != 5 {
			t.Errorf("%d results", n)
		}
		closeAll(t, c, b, stop)
	})
}

func TestAnIteratorThatHasTroubleEndsTheInputs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		stop := serve(t, b, upper, worker.Config{})
		c := newClient(t, b, gather.Config{})
		var trouble error
		n := 0
		for _, err := range gather.Map[string](t.Context(), c, func(yield func(string) bool) {
			for i := range 10 {
				yield(fmt.Sprint(i))
			}
			trouble = errors.New("the disk is gone")
		}) {
			must(t, err)
			n++
		}
		if trouble == nil || n != 10 {
			t.Errorf("%d results, %v", n, trouble)
		}
		closeAll(t, c, b, stop)
	})
}

func TestAPanicOfTheIteratorIsRaisedInTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		stop := serve(t, b, upper, worker.Config{})
		c := newClient(t, b, gather.Config{})
		n := 0
		func() {
			defer func() {
				if v := recover(); v != "boom" {
					t.Errorf("recovered %v", v)
				}
			}()
			for _, err := range gather.Map[string](t.Context(), c, func(yield func(string) bool) {
				yield("a")
				panic("boom")
			}) {
				must(t, err)
				n++
			}
		}()
		if n != 1 {
			t.Errorf("%d results", n)
		}
		closeAll(t, c, b, stop)
	})
}

func TestAPanicInTheLoopLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		stop := serve(t, b, upper, worker.Config{})
		c := newClient(t, b, gather.Config{})
		var yielded atomic.Int64
		func() {
			defer func() { _ = recover() }()
			for _, err := range gather.Map[string](t.Context(), c, endless(&yielded)) {
				must(t, err)
				panic("boom")
			}
		}()
		closeAll(t, c, b, stop)
	})
}

func TestALostBrokerIsAnErrorNotAHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		c := newClient(t, b, gather.Config{})
		p, err := gather.Submit[string](t.Context(), c, "a")
		must(t, err)
		start := time.Now()
		time.AfterFunc(time.Hour, func() { b.Close() })
		var last error
		for _, err := range gather.Map[string](t.Context(), c, slices.Values(texts(3))) {
			last = err
		}
		if !errors.Is(last, millrace.ErrClosed) || time.Since(start) > time.Hour {
			t.Errorf("the loop ended with %v, %v after it had begun", last, time.Since(start))
		}
		if _, err := p.Wait(t.Context()); !errors.Is(err, millrace.ErrClosed) {
			t.Errorf("the call ended with %v", err)
		}
		for _, err := range gather.Map[string](t.Context(), c, slices.Values(texts(3))) {
			if !errors.Is(err, millrace.ErrClosed) {
				t.Error(err)
			}
		}
		if _, err := gather.Call[string](t.Context(), c, "a"); !errors.Is(err, millrace.ErrClosed) {
			t.Error(err)
		}
		must(t, c.Close(t.Context()))
	})
}

func TestABrokerThatRefusesRequestsIsAnErrorOfTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		stop := serve(t, b, upper, worker.Config{})
		c := newClient(t, b, gather.Config{Window: 2})
		n := 0
		var last error
		for _, err := range gather.Map[string](t.Context(), c, slices.Values(texts(10))) {
			if last = err; err != nil {
				continue
			}
			if n++; n == 2 {
				b.set(func(b *faulty) { b.fail = fmt.Errorf("write: %w", millrace.ErrNoSpace) })
			}
		}
		if !errors.Is(last, millrace.ErrNoSpace) || !strings.Contains(last.Error(), "publish requests to q") {
			t.Errorf("the loop ended with %v", last)
		}
		b.set(func(b *faulty) { b.fail = nil })
		if out, err := gather.Call[string](t.Context(), c, "a"); out != "A" || err != nil {
			t.Error("the client did not outlive it:", out, err)
		}
		closeAll(t, c, b, stop)
	})
}

func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		tap := tapControl(t, b)
		c := newClient(t, b, gather.Config{})
		p, err := gather.Submit[string](t.Context(), c, "a")
		must(t, err)
		ended := make(chan error, 1)
		go func() {
			for _, err := range gather.Map[string](t.Context(), c, slices.Values(texts(3))) {
				ended <- err
			}
		}()
		synctest.Wait()
		must(t, c.Close(t.Context()))
		if err := <-ended; !errors.Is(err, gather.ErrClosed) {
			t.Errorf("the loop ended with %v", err)
		}
		if _, err := p.Wait(t.Context()); !errors.Is(err, gather.ErrClosed) {
			t.Errorf("the call ended with %v", err)
		}
		synctest.Wait()
		if ids := canceled(t, b, tap); len(ids) != 2 {
			t.Errorf("cancelled: %q", ids)
		}
		must(t, c.Close(t.Context()))
		must(t, b.Close())
	})
}

func TestTheReplyTopicGoesWithTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFaulty(t)
		var replyTo atomic.Value
		h := worker.HandlerFunc(func(_ context.Context, t *worker.Task) ([]byte, error) {
			replyTo.Store(t.Headers.Text(millrace.HeaderReplyTo))
			return t.Payload, nil
		})
		stop := serve(t, b, h, worker.Config{})
		c := newClient(t, b, gather.Config{})
		_, err := gather.Call[string](t.Context(), c, "a")
		must(t, err)
		must(t, c.Close(t.Context()))
		if _, err := b.Depth(t.Context(), replyTo.Load().(string), "replies"); !errors.Is(err, millrace.ErrNotFound) {
			t.Errorf("it is still there: %v", err)
		}
		stop()
		must(t, b.Close())
	})
}

func TestABadQueueIsRefused(t *testing.T) {
	if _, err := gather.New(t.Context(), nil, "a b", gather.Config{}); !errors.Is(err, millrace.ErrBadName) {
		t.Error(err)
	}
}
