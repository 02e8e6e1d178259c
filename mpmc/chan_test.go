package mpmc_test

import (
	"context"
	"errors"
	"slices"
	"testing"

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
