package worker

import (
	"testing"
	"testing/synctest"
	"time"
)

// run lets a flow see a worker that settles so many tasks of a size a second, and
// returns how many it may hold in the end.
func (f *flow) run(perSecond, size int, d time.Duration) int {
	const step = 10 * time.Millisecond
	for range d / step {
		time.Sleep(step)
		n := perSecond * int(step) / int(time.Second)
		f.received(n, n*size/2)
		for range n {
			f.finished()
		}
		f.settled(n, n*size/2)
	}
	return f.limit
}

func TestAWorkerHoldsATenthOfASecondsWork(t *testing.T) {
	for _, c := range []struct {
		name               string
		prefetch           int
		perSecond, size    int
		atLeast, atTheMost int
	}{
		{"quick tasks", 0, 20_000, 100, 1900, 2100},
		{"very quick tasks: bounded in number", 0, 2_000_000, 100, maxAhead, maxAhead + 4},
		{"large tasks: bounded in bytes", 0, 20_000, 1 << 20, 60, 70},
		{"slow tasks", 0, 0, 100, 4, 4},
		{"as asked for", 50, 20_000, 100, 54, 54},
		{"nothing ahead", NoPrefetch, 20_000, 100, 4, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(*testing.T) {
				f := &flow{prefetch: c.prefetch, replicas: 4}
				f.start(0, func(int) {})
				if got := f.run(c.perSecond, c.size, time.Second); got < c.atLeast || got > c.atTheMost {
					t.Errorf("it holds %d, want %d to %d", got, c.atLeast, c.atTheMost)
				}
			})
		})
	}
}

func TestTheFlowIsUpToSpeedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &flow{replicas: 2}
		f.start(0, func(int) {})
		if got := f.run(100_000, 10, 100*time.Millisecond); got < 9_000 {
			t.Errorf("after 100ms it holds %d, want 10000", got)
		}
		if got := f.run(100, 10, 200*time.Millisecond); got > 200 {
			t.Errorf("200ms after the tasks became slow it holds %d", got)
		}
	})
}

func TestNothingIsHeldWithoutAReplicaOrWhileTheBrokerRefuses(t *testing.T) {
	for name, how := range map[string]func(*flow){
		"no replica": func(f *flow) { f.replicas = 0 },
		"refused":    func(f *flow) { f.refused = true },
		"over":       func(f *flow) { f.over = true },
	} {
		f := &flow{replicas: 2, prefetch: 10}
		told := -1
		f.start(0, func(n int) { told = n })
		if told != 12 {
			t.Errorf("%s: before, %d are held", name, told)
		}
		if f.change(how); told != 0 {
			t.Errorf("%s: %d are held", name, told)
		}
	}
}
