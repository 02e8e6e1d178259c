package jobs_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// againQueue is there for some seconds before it is used: nsqd looks only every five seconds
// which new channels have leases that could end.
const againQueue = "again"

// againTTL is that of the workers here. RabbitMQ hears nothing from one that hangs for two to
// three of its heartbeats, which are a third of the TTL apart, but at least a second.
const againTTL = 3 * time.Second

// soonAgain is how soon a task of a worker that was killed runs again where the broker sees
// connections break; where it does not, and for a worker that hangs, the task's lease
// has to end first.
const soonAgain = time.Second

// runAgain: the tasks of a worker that is killed, or stopped, run again elsewhere in time.
func runAgain(t *testing.T, on *system) {
	for _, one := range []struct {
		what   string
		signal syscall.Signal
		within time.Duration
	}{
		{"killed", syscall.SIGKILL, soonAgain},
		{"stopped", syscall.SIGSTOP, againTTL + soonAgain},
	} {
		if on.slow {
			one.within = againTTL + soonAgain
		}
		// The machine may have been busy with something else.
		for try := 1; ; try++ {
			took := untilRunAgain(t, on, one.signal)
			t.Logf("%s: %s: again after %v", on.kind, one.what, took.Round(time.Millisecond))
			if took <= one.within {
				break
			}
			if try == 3 {
				t.Errorf("the task of a worker that was %s ran again after %v, want at most %v", one.what, took, one.within)
				break
			}
		}
	}
}

// untilRunAgain does to a worker that runs a task what the signal does, and returns how long
// it takes until another one runs the task.
func untilRunAgain(t *testing.T, on *system, signal syscall.Signal) time.Duration {
	t.Helper()
	first := goWorker(t, on.url, againQueue, againTTL)
	j := newJob(t, on, againQueue, 1)
	release := filepath.Join(t.TempDir(), "release")
	input := "until " + release + " 1"
	j.asker.give(input)
	first.saysWithin(patience, "took 1")
	other := goWorker(t, on.url, againQueue, againTTL)
	other.saysWithin(patience, "ready")
	began := time.Now()
	first.signal(signal)
	other.saysWithin(patience, "took 1")
	took := time.Since(began)
	if signal == syscall.SIGSTOP {
		first.signal(syscall.SIGCONT)
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = j.asker.stdin.Close()
	if line := <-j.asker.lines; line != input+"\t1" {
		t.Errorf("the result is %q", line)
	}
	if err := j.asker.wait(); err != nil {
		t.Errorf("map: %v\n%s", err, j.asker.stderr())
	}
	left := []*process{other}
	if signal == syscall.SIGSTOP {
		left = append(left, first) // it answers as well, and removes the topic if that has made one
	}
	for _, p := range left {
		p.signal(syscall.SIGTERM)
		if err := p.wait(); err != nil {
			t.Errorf("%s: %v\n%s", p.name, err, p.stderr())
		}
	}
	on.wantNothingLeft(t, againQueue)
	return took
}
