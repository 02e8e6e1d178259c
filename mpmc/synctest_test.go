package mpmc_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/mpmc"
)

// bubble runs a test in virtual time. Every goroutine that waits in a Chan there
// must be durably blocked, else synctest.Wait and time.Sleep would never return.
func bubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

type result struct {
	v   int
	n   int
	err error
	at  time.Duration // since the start of the bubble's test
}

// start runs op in a goroutine and returns where its result will be.
func start(op func() (v, n int, err error)) <-chan result {
	begin := time.Now()
	done := make(chan result, 1)
	go func() {
		v, n, err := op()
		done <- result{v, n, err, time.Since(begin)}
	}()
	synctest.Wait()
	return done
}

func waiting(done <-chan result) bool {
	synctest.Wait()
	return len(done) == 0
}

func recv(ctx context.Context, c *mpmc.Chan[int]) func() (int, int, error) {
	return func() (int, int, error) { v, err := c.Recv(ctx); return v, 0, err }
}

func send(ctx context.Context, c *mpmc.Chan[int], v int) func() (int, int, error) {
	return func() (int, int, error) { return 0, 0, c.Send(ctx, v) }
}

func TestReceiversWait(t *testing.T) {
	bubble(t, "for an item", func(t *testing.T) {
		c := mpmc.NewUnbounded[int]()
		done := start(recv(background, c))
		time.Sleep(time.Hour)
		if !waiting(done) {
			t.Fatal("Recv on an empty channel returned")
		}
		_ = c.TrySend(7)
		if r := <-done; r.v != 7 || r.err != nil || r.at != time.Hour {
			t.Errorf("got %+v", r)
		}
	})
	bubble(t, "until the channel is closed", func(t *testing.T) {
		c := mpmc.New[int](1)
		one, two := start(recv(background, c)), start(recv(background, c))
		batch := start(func() (int, int, error) {
			n, err := c.RecvBatch(background, make([]int, 3))
			return 0, n, err
		})
		c.Close()
		for _, done := range []<-chan result{one, two, batch} {
			if r := <-done; r.err != mpmc.ErrClosed {
				t.Errorf("got %+v, want ErrClosed", r)
			}
		}
	})
	bubble(t, "until their context ends", func(t *testing.T) {
		c := mpmc.NewUnbounded[int]()
		why := errors.New("why")
		ctx, cancel := context.WithTimeoutCause(background, time.Minute, why)
		defer cancel()
		if r := <-start(recv(ctx, c)); r.err != why || r.at != time.Minute {
			t.Errorf("got %+v, want the context's cause after a minute", r)
		}
		if _ = c.TrySend(1); c.Len() != 1 {
			t.Error("the receiver that left took an item")
		}
	})
	bubble(t, "for one item only, whatever their buffer", func(t *testing.T) {
		c := mpmc.NewUnbounded[int]()
		buf := make([]int, 8)
		done := start(func() (int, int, error) {
			n, err := c.RecvBatch(background, buf)
			return 0, n, err
		})
		_ = c.TrySend(5)
		if r := <-done; r.n != 1 || buf[0] != 5 || r.err != nil {
			t.Errorf("got %+v, %v", r, buf)
		}
	})
}

func TestSendersWait(t *testing.T) {
	bubble(t, "for room", func(t *testing.T) {
		c := mpmc.New[int](1)
		_ = c.TrySend(1)
		done := start(send(background, c, 2))
		time.Sleep(time.Hour)
		if !waiting(done) {
			t.Fatal("Send on a full channel returned")
		}
		for want := 1; want <= 2; want++ {
			if v, err := c.Recv(background); v != want || err != nil {
				t.Errorf("Recv = %d, %v; want %d", v, err, want)
			}
		}
		if r := <-done; r.err != nil || r.at != time.Hour {
			t.Errorf("got %+v", r)
		}
	})
	bubble(t, "until the channel is closed", func(t *testing.T) {
		c := mpmc.New[int](2)
		_ = c.TrySend(1)
		all := start(func() (int, int, error) {
			n, err := c.SendAll(background, []int{2, 3, 4})
			return 0, n, err
		})
		one := start(send(background, c, 5))
		c.Close()
		if r := <-all; r.n != 1 || r.err != mpmc.ErrClosed {
			t.Errorf("SendAll: got %+v, want 1 sent and ErrClosed", r)
		}
		if r := <-one; r.err != mpmc.ErrClosed {
			t.Errorf("Send: got %+v, want ErrClosed", r)
		}
		if got := slices.Collect(c.All(background)); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("left in the channel: %v, want what was sent before Close", got)
		}
	})
	bubble(t, "until their context ends", func(t *testing.T) {
		c := mpmc.New[int](2)
		why := errors.New("why")
		ctx, cancel := context.WithCancelCause(background)
		all := start(func() (int, int, error) {
			n, err := c.SendAll(ctx, []int{1, 2, 3, 4, 5})
			return 0, n, err
		})
		_, _ = c.TryRecv()
		if !waiting(all) {
			t.Fatal("SendAll returned before everything was sent")
		}
		cancel(why)
		if r := <-all; r.n != 3 || r.err != why {
			t.Errorf("got %+v, want 3 sent and the cause", r)
		}
		c.Close()
		if got := slices.Collect(c.All(background)); !slices.Equal(got, []int{2, 3}) {
			t.Errorf("left in the channel: %v, want the rest of the three that were sent", got)
		}
	})
}

// Whoever waits is served when there is enough for all, however it came in.
func TestOneWakeUpReachesAllWhoCanGoAhead(t *testing.T) {
	const waiters = 9
	bubble(t, "receivers", func(t *testing.T) {
		c := mpmc.NewUnbounded[int]()
		var all []<-chan result
		for range waiters {
			all = append(all, start(recv(background, c)))
		}
		_, _ = c.SendAll(background, make([]int, waiters))
		for _, done := range all {
			if r := <-done; r.err != nil {
				t.Errorf("got %+v", r)
			}
		}
	})
	bubble(t, "senders", func(t *testing.T) {
		c := mpmc.New[int](waiters)
		_, _ = c.SendAll(background, make([]int, waiters))
		var all []<-chan result
		for range waiters {
			all = append(all, start(send(background, c, 1)))
		}
		if n, _ := c.RecvBatch(background, make([]int, waiters)); n != waiters {
			t.Fatalf("RecvBatch took %d", n)
		}
		for _, done := range all {
			if r := <-done; r.err != nil {
				t.Errorf("got %+v", r)
			}
		}
	})
}

// A waiter whose context ends at the moment at which it is woken either takes
// what woke it or leaves it to the next. Were the wake-up lost, the second waiter
// would wait for ever, and the bubble would report a deadlock.
func TestAWakeUpIsNotLostWithAContext(t *testing.T) {
	orders := map[string]func(cancel, wake func()){
		"cancel, then wake": func(cancel, wake func()) { cancel(); wake() },
		"wake, then cancel": func(cancel, wake func()) { wake(); cancel() },
		"both at once":      func(cancel, wake func()) { go cancel(); wake() },
	}
	for name, do := range orders {
		bubble(t, "receivers: "+name, func(t *testing.T) {
			for range 100 {
				c := mpmc.New[int](1)
				ctx, cancel := context.WithCancel(background)
				first, second := start(recv(ctx, c)), start(recv(background, c))
				do(cancel, func() { _ = c.TrySend(1) })
				if r := <-first; r.err == nil {
					_ = c.TrySend(2)
				}
				if r := <-second; r.err != nil {
					t.Errorf("second receiver: %+v", r)
				}
			}
		})
		bubble(t, "senders: "+name, func(t *testing.T) {
			for range 100 {
				c := mpmc.New[int](1)
				_ = c.TrySend(0)
				ctx, cancel := context.WithCancel(background)
				first, second := start(send(ctx, c, 1)), start(send(background, c, 2))
				do(cancel, func() { _, _ = c.TryRecv() })
				if r := <-first; r.err == nil {
					_, _ = c.TryRecv()
				}
				if r := <-second; r.err != nil {
					t.Errorf("second sender: %+v", r)
				}
			}
		})
	}
}

func TestWaitersAreServedInTheOrderInWhichTheyCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := mpmc.NewUnbounded[int]()
		var all []<-chan result
		for range 5 {
			all = append(all, start(recv(background, c)))
		}
		for i, done := range all {
			_ = c.TrySend(i)
			synctest.Wait()
			if r := <-done; r.v != i {
				t.Errorf("receiver %d got item %d", i, r.v)
			}
		}
	})
}

func TestAWaiterThatWasRobbedKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 100 {
			c := mpmc.NewUnbounded[int]()
			first, second := start(recv(background, c)), start(recv(background, c))
			_ = c.TrySend(1)
			if _, err := c.TryRecv(); err == nil { // else the first was faster
				synctest.Wait()
				_ = c.TrySend(2)
				synctest.Wait()
				if len(first) == 0 {
					t.Error("the second receiver was served before the first")
				}
			}
			c.Close()
			<-first
			<-second
		}
	})
}

func TestReadyTakesPartInASelect(t *testing.T) {
	bubble(t, "an item", func(t *testing.T) {
		c := mpmc.NewUnbounded[int]()
		select {
		case <-c.Ready():
			t.Fatal("Ready fired on an empty channel")
		case <-time.After(time.Second):
		}
		time.AfterFunc(time.Second, func() { _ = c.TrySend(3) })
		select {
		case <-c.Ready():
			if v, err := c.TryRecv(); v != 3 || err != nil {
				t.Errorf("TryRecv = %d, %v", v, err)
			}
		case <-time.After(time.Minute):
			t.Error("Ready did not fire for an item")
		}
	})
	bubble(t, "items that were there first", func(t *testing.T) {
		c := mpmc.NewUnbounded[int]()
		_, _ = c.SendAll(background, []int{0, 1, 2})
		for want := range 3 {
			<-c.Ready()
			if v, err := c.TryRecv(); v != want || err != nil {
				t.Errorf("TryRecv = %d, %v; want %d", v, err, want)
			}
		}
	})
	bubble(t, "closing, for all who select", func(t *testing.T) {
		c := mpmc.NewUnbounded[int]()
		selecting := func() (int, int, error) {
			for {
				<-c.Ready()
				if v, err := c.TryRecv(); err != mpmc.ErrEmpty {
					return v, 0, err
				}
			}
		}
		one, two, three := start(selecting), start(selecting), start(selecting)
		_ = c.TrySend(1)
		c.Close()
		closed := 0
		for _, done := range []<-chan result{one, two, three} {
			if r := <-done; r.err == mpmc.ErrClosed {
				closed++
			}
		}
		if closed != 2 {
			t.Errorf("%d saw the channel closed, want 2, and one its item", closed)
		}
	})
	bubble(t, "the rest of a batch, for the others", func(t *testing.T) {
		c := mpmc.NewUnbounded[int]()
		selecting := func() (int, int, error) {
			<-c.Ready()
			v, err := c.TryRecv()
			return v, 0, err
		}
		one, two := start(selecting), start(selecting)
		_, _ = c.SendAll(background, []int{1, 2})
		if a, b := <-one, <-two; a.err != nil || b.err != nil {
			t.Errorf("got %+v, %+v; want an item each", a, b)
		}
	})
}
