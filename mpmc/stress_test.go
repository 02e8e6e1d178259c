package mpmc_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/mpmc"
)

func TestLenIsBetweenNothingAndCap(t *testing.T) {
	c := mpmc.New[int](1)
	sender := spawn(1, func() {
		for c.Send(background, 1) == nil {
			continue
		}
	})
	receiver := spawn(1, func() {
		for range c.All(background) {
			continue
		}
	})
	for look := range 400_000 {
		if n := c.Len(); n < 0 || n > 1 {
			t.Errorf("Len() = %d in a channel of capacity 1", n)
			break
		}
		if look%1000 == 0 {
			runtime.Gosched() // there may be only one processor
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
		n := 1
		var err error
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
		n := 1
		var err error
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
