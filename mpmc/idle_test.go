//go:build unix

package mpmc_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/mpmc"
)

func TestIdleReceiversCostNoProcessorTime(t *testing.T) {
	c := mpmc.NewUnbounded[int]()
	done := spawn(50, func() { _, _ = c.Recv(background) })
	for c.Len() == 0 && cpuDuring(20*time.Millisecond) > 5*time.Millisecond {
		continue // they are still starting, or the collector is at work
	}
	if used := cpuDuring(100 * time.Millisecond); used > 20*time.Millisecond {
		t.Errorf("50 waiting receivers used %v of processor time in 100ms", used)
	}
	c.Close()
	done()
}

// cpuDuring returns the processor time that this process uses in d of real time:
// it is the real clock that an idle process must let go by.
func cpuDuring(d time.Duration) time.Duration {
	used := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	<-time.After(d)
	return used() - before
}
