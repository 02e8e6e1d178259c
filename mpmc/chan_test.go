package mpmc_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/mpmc"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var background = context.Background()

// kinds are the channels on which every claim must hold: unbounded ones, and
// bounded ones with less than a block, just a block, and several.
var kinds = []struct {
	name string
	make func() *mpmc.Chan[int]
}{
	{"unbounded", mpmc.NewUnbounded[int]},
	{"cap=1", func() *mpmc.Chan[int] { return mpmc.New[int](1) }},
	{"cap=3", func() *mpmc.Chan[int] { return mpmc.New[int](3) }},
	{"cap=512", func() *mpmc.Chan[int] { return mpmc.New[int](512) }},
	{"cap=5000", func() *mpmc.Chan[int] { return mpmc.New[int](5000) }},
}

func forEachKind(t *testing.T, test func(t *testing.T, c *mpmc.Chan[int])) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { test(t, k.make()) })
	}
}

func TestNewRefusesCapacityBelowOne(t *testing.T) {
	for _, capacity := range []int{0, -1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("New(%d) did not panic", capacity)
				}
			}()
			mpmc.New[int](capacity)
		}()
	}
}

func TestCapIsWhatWasAskedFor(t *testing.T) {
	if got := mpmc.New[string](7).Cap(); got != 7 {
		t.Errorf("Cap() = %d, want 7", got)
	}
	if got := mpmc.NewUnbounded[string]().Cap(); got != 0 {
		t.Errorf("Cap() of an unbounded channel = %d, want 0", got)
	}
}

func TestItemsComeOutInTheOrderTheyWentIn(t *testing.T) {
	forEachKind(t, func(t *testing.T, c *mpmc.Chan[int]) {
		var sent, received int
		buf := make([]int, 100)
		for received < 20_000 {
			for range 700 { // fewer where it is full
				if c.TrySend(sent) != nil {
					break
				}
				sent++
			}
			for range 150 {
				v, err := c.TryRecv()
				if err != nil {
					break
				}
				if v != received {
					t.Fatalf("received %d, want %d", v, received)
				}
				received++
			}
			if c.Len() != sent-received {
				t.Fatalf("Len() = %d, want %d", c.Len(), sent-received)
			}
			if sent == received {
				continue
			}
			n, err := c.RecvBatch(background, buf)
			if want := min(len(buf), sent-received); n != want || err != nil {
				t.Fatalf("RecvBatch = %d, %v; want all that is there: %d", n, err, want)
			}
			for _, v := range buf[:n] {
				if v != received {
					t.Fatalf("received %d in a batch, want %d", v, received)
				}
				received++
			}
		}
	})
}

func TestFullChannelRefusesTrySend(t *testing.T) {
	for _, capacity := range []int{1, 3, 512, 5000} {
		c := mpmc.New[int](capacity)
		for range 3 {
			for i := range capacity {
				if err := c.TrySend(i); err != nil {
					t.Fatalf("cap %d: item %d: %v", capacity, i, err)
				}
			}
			if err := c.TrySend(0); err != mpmc.ErrFull {
				t.Fatalf("cap %d: TrySend on a full channel = %v, want ErrFull", capacity, err)
			}
			for range capacity {
				if _, err := c.TryRecv(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := c.TryRecv(); err != mpmc.ErrEmpty {
				t.Fatalf("cap %d: TryRecv on an empty channel = %v, want ErrEmpty", capacity, err)
			}
		}
	}
}

func TestClosedChannelIsDrainedAndThenClosed(t *testing.T) {
	for _, drain := range []struct {
		name string
		next func(c *mpmc.Chan[int]) (int, error)
	}{
		{"TryRecv", func(c *mpmc.Chan[int]) (int, error) { return c.TryRecv() }},
		{"Recv", func(c *mpmc.Chan[int]) (int, error) { return c.Recv(background) }},
		{"RecvBatch", func(c *mpmc.Chan[int]) (int, error) {
			buf := make([]int, 1)
			_, err := c.RecvBatch(background, buf)
			return buf[0], err
		}},
	} {
		t.Run(drain.name, func(t *testing.T) {
			c := mpmc.New[int](10)
			for i := range 7 {
				if err := c.Send(background, i); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
			c.Close()
			if err := c.Send(background, 8); err != mpmc.ErrClosed {
				t.Errorf("Send = %v, want ErrClosed", err)
			}
			if err := c.TrySend(8); err != mpmc.ErrClosed {
				t.Errorf("TrySend = %v, want ErrClosed", err)
			}
			if n, err := c.SendAll(background, []int{8}); n != 0 || err != mpmc.ErrClosed {
				t.Errorf("SendAll = %d, %v; want 0, ErrClosed", n, err)
			}
			for i := range 7 {
				if v, err := drain.next(c); v != i || err != nil {
					t.Fatalf("item %d after Close: got %d, %v", i, v, err)
				}
			}
			for range 2 {
				if _, err := drain.next(c); err != mpmc.ErrClosed {
					t.Fatalf("drained: %v, want ErrClosed", err)
				}
			}
		})
	}
}

func TestClosedWinsOverFull(t *testing.T) {
	c := mpmc.New[int](1)
	_ = c.TrySend(1)
	c.Close()
	if err := c.TrySend(2); err != mpmc.ErrClosed {
		t.Errorf("TrySend = %v, want ErrClosed", err)
	}
}

func TestAnEndedContextCountsOnlyForWaiting(t *testing.T) {
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(background)
	cancel(why)
	c := mpmc.New[int](2)
	if err := c.Send(ctx, 1); err != nil {
		t.Errorf("Send with room: %v", err)
	}
	if n, err := c.SendAll(ctx, []int{2, 3, 4}); n != 1 || err != why {
		t.Errorf("SendAll with room for one = %d, %v; want 1 and the cause", n, err)
	}
	if err := c.Send(ctx, 5); err != why {
		t.Errorf("Send on a full channel: %v, want the cause", err)
	}
	if v, err := c.Recv(ctx); v != 1 || err != nil {
		t.Errorf("Recv with an item there = %d, %v", v, err)
	}
	buf := make([]int, 3)
	if n, err := c.RecvBatch(ctx, buf); n != 1 || buf[0] != 2 || err != nil {
		t.Errorf("RecvBatch with an item there = %d, %v, %v", n, buf, err)
	}
	if _, err := c.Recv(ctx); err != why {
		t.Errorf("Recv on an empty channel: %v, want the cause", err)
	}
	if n, err := c.RecvBatch(ctx, buf); n != 0 || err != why {
		t.Errorf("RecvBatch on an empty channel = %d, %v; want 0 and the cause", n, err)
	}
}

func TestEmptyBatchesReturnAtOnce(t *testing.T) {
	c := mpmc.New[int](1)
	if n, err := c.RecvBatch(background, nil); n != 0 || err != nil {
		t.Errorf("RecvBatch(nil) = %d, %v", n, err)
	}
	if n, err := c.SendAll(background, nil); n != 0 || err != nil {
		t.Errorf("SendAll(nil) = %d, %v", n, err)
	}
}

func TestAllStopsWhenDrainedWhenToldAndWhenItsContextEnds(t *testing.T) {
	c := mpmc.NewUnbounded[int]()
	vs := []int{0, 1, 2, 3, 4, 5, 6, 7}
	_, _ = c.SendAll(background, vs)

	ctx, cancel := context.WithCancel(background)
	defer cancel()
	var got []int
	for v := range c.All(ctx) {
		if got = append(got, v); v == 2 {
			cancel() // items are there, but it stops
		}
	}
	for v := range c.All(background) {
		if got = append(got, v); v == 4 {
			break
		}
	}
	c.Close()
	got = slices.AppendSeq(got, c.All(background))
	if !slices.Equal(got, vs) {
		t.Errorf("got %v, want %v", got, vs)
	}
}

func TestLenIsBetweenNothingAndCap(t *testing.T) {
	c := mpmc.New[int](1)
	sender := spawn(1, func() {
		for c.Send(background, 1) == nil {
			continue
		}
	})
	var received atomic.Int64
	receiver := spawn(1, func() {
		for range c.All(background) {
			received.Add(1)
		}
	})
	for received.Load() < 100_000 {
		if n := c.Len(); n < 0 || n > 1 {
			t.Errorf("Len() = %d in a channel of capacity 1", n)
			break
		}
	}
	c.Close()
	sender()
	receiver()
}

// Each item is (sender, number); the receivers check that numbers of one sender
// only ever rise, and in the end that every item came exactly once.
func TestManySendersAndReceiversLoseAndDoubleNothing(t *testing.T) {
	const senders, receivers, each = 6, 6, 5_000
	forEachKind(t, func(t *testing.T, c *mpmc.Chan[int]) {
		var counts [senders * each]atomic.Int32
		done := spawn(receivers, func() { receiveInOrder(t, c, senders, each, &counts) })
		var id atomic.Int32
		spawn(senders, func() {
			base := (int(id.Add(1)) - 1) * each
			sendMixed(t, c, base, each)
		})()
		c.Close()
		done()
		for i := range counts {
			if n := counts[i].Load(); n != 1 {
				t.Fatalf("item %d came %d times", i, n)
			}
		}
	})
}

// sendMixed sends base, base+1, … in all the ways there are.
func sendMixed(t *testing.T, c *mpmc.Chan[int], base, each int) {
	vs := make([]int, each)
	for i := range vs {
		vs[i] = base + i
	}
	for turn := 0; len(vs) > 0; turn++ {
		n, err := 1, error(nil)
		switch turn % 3 {
		case 0:
			err = c.Send(background, vs[0])
		case 1:
			if err = c.TrySend(vs[0]); err == mpmc.ErrFull {
				n, err = 0, nil
				runtime.Gosched()
			}
		default:
			n, err = c.SendAll(background, vs[:min(len(vs), turn%50)])
		}
		if err != nil {
			t.Errorf("sending: %v", err)
			return
		}
		vs = vs[n:]
	}
}

// receiveInOrder receives in all the ways there are until c is drained.
func receiveInOrder(t *testing.T, c *mpmc.Chan[int], senders, each int, counts *[30_000]atomic.Int32) {
	last := make([]int, senders)
	for i := range last {
		last[i] = -1
	}
	buf := make([]int, 17)
	for turn := 0; ; turn++ {
		n, err := 1, error(nil)
		switch turn % 4 {
		case 0:
			buf[0], err = c.Recv(background)
		case 1:
			if buf[0], err = c.TryRecv(); err == mpmc.ErrEmpty {
				n, err = 0, nil
				runtime.Gosched()
			}
		case 2:
			<-c.Ready()
			if buf[0], err = c.TryRecv(); err == mpmc.ErrEmpty {
				n, err = 0, nil
			}
		default:
			n, err = c.RecvBatch(background, buf[:1+turn%len(buf)])
		}
		if err != nil {
			if err != mpmc.ErrClosed {
				t.Errorf("receiving: %v", err)
			}
			return
		}
		for _, v := range buf[:n] {
			counts[v].Add(1)
			if sender := v / each; v <= last[sender] {
				t.Errorf("received %d after %d", v, last[sender])
			} else {
				last[sender] = v
			}
		}
	}
}

// Senders and receivers give up all the time; what was said to be sent must be
// exactly what was received.
func TestGivingUpLosesNothing(t *testing.T) {
	for _, capacity := range []int{0, 1, 4} {
		t.Run(fmt.Sprint("cap=", capacity), func(t *testing.T) {
			c := mpmc.NewUnbounded[int]()
			if capacity > 0 {
				c = mpmc.New[int](capacity)
			}
			var sent, received sync.Map
			var number atomic.Int64
			done := spawn(4, func() {
				for {
					ctx, cancel := context.WithTimeout(background, time.Microsecond)
					v, err := c.Recv(ctx)
					cancel()
					switch {
					case err == mpmc.ErrClosed:
						return
					case err == nil:
						if _, twice := received.LoadOrStore(v, true); twice {
							t.Errorf("%d came twice", v)
						}
					}
				}
			})
			spawn(4, func() {
				for range 1500 {
					v := int(number.Add(1))
					ctx, cancel := context.WithTimeout(background, time.Microsecond)
					if c.Send(ctx, v) == nil {
						sent.Store(v, true)
					}
					cancel()
				}
			})()
			c.Close()
			done()
			sent.Range(func(v, _ any) bool {
				if _, ok := received.LoadAndDelete(v); !ok {
					t.Errorf("%v was sent and lost", v)
				}
				return true
			})
			received.Range(func(v, _ any) bool {
				t.Errorf("%v was received, though its sender was told that it failed", v)
				return true
			})
		})
	}
}
