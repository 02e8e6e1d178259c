package mpmc_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/millrace/millrace/mpmc"
)

func TestWhatWasReceivedIsCollected(t *testing.T) {
	const items = 1000 // several blocks of the bounded channel, part of one of the other
	for name, c := range map[string]*mpmc.Chan[*[64]byte]{
		"unbounded": mpmc.NewUnbounded[*[64]byte](),
		"bounded":   mpmc.New[*[64]byte](100),
	} {
		collected := make(chan struct{}, items)
		for i := range items {
			v := new([64]byte)
			runtime.AddCleanup(v, func(int) { collected <- struct{}{} }, 0)
			_ = c.Send(background, v)
			if i%2 == 0 {
				_, _ = c.Recv(background)
			} else {
				_, _ = c.RecvBatch(background, make([]*[64]byte, 1))
			}
		}
		for range 100 {
			if runtime.GC(); len(collected) == items {
				break
			}
			<-time.After(10 * time.Millisecond) // cleanups run beside us
		}
		if n := len(collected); n != items {
			t.Errorf("%s: %d of %d items were not collected", name, items-n, items)
		}
		runtime.KeepAlive(c)
	}
}

func TestAnEmptiedChannelGivesItsMemoryBack(t *testing.T) {
	c := mpmc.NewUnbounded[int]()
	const items = 4_000_000 // 32 MB
	vs := make([]int, 1000)
	for range items / len(vs) {
		_, _ = c.SendAll(background, vs)
	}
	for n := 0; n < items; {
		k, _ := c.RecvBatch(background, vs)
		n += k
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 8<<20 {
		t.Errorf("%d MB are in use after the last item was received", m.HeapAlloc>>20)
	}
	runtime.KeepAlive(c)
}

func TestSteadyUseDoesNotAllocate(t *testing.T) {
	forEachKind(t, func(t *testing.T, c *mpmc.Chan[int]) {
		round := func() {
			for range 5000 {
				_ = c.Send(background, 1)
				_, _ = c.Recv(background)
			}
		}
		if allocs := testing.AllocsPerRun(5, round); allocs > 0 {
			t.Errorf("%v allocations in 5000 items", allocs)
		}
	})
}

// Two goroutines that wait for each other at every item.
func TestWaitingDoesNotAllocate(t *testing.T) {
	there, back := mpmc.New[int](1), mpmc.New[int](1)
	done := spawn(1, func() {
		for v := range there.All(background) {
			_ = back.Send(background, v)
		}
	})
	round := func() {
		for range 1000 {
			_ = there.Send(background, 1)
			_, _ = back.Recv(background)
		}
	}
	if allocs := testing.AllocsPerRun(5, round); allocs > 20 {
		t.Errorf("%v allocations in 1000 round trips", allocs)
	}
	there.Close()
	done()
}
