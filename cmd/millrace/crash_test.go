package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// crash runs a job in a durable queue, kills millrace itself in the middle, and
// returns the URL of the broker.
func crash(t *testing.T, queue ...string) (broker string) {
	t.Helper()
	broker = "file://" + filepath.Join(t.TempDir(), "data")
	args := slices.Concat([]string{"map"}, queue, []string{"--broker", broker, "-j1", "--", "sh", "-c", "touch begun.$1; exec sleep 1000", "sh", "{}", sep, "1", "2", "3"})
	r := startMillrace(t, args...)
	r.await("begun.", 1)
	_ = r.Process.Kill()
	<-r.ended
	r.nothingRuns() // the kernel has seen to that
	return broker
}

// Inputs that were meant for another command must never run with this one.
func TestWhatACrashedJobLeftDoesNotRunInTheNextOne(t *testing.T) {
	t.Parallel()
	r := startMillrace(t, "map", "--broker", crash(t), "-j1", "--", "sh", "-c", "touch ran.$1; echo $1", "sh", "{}", sep, "x")
	if code := r.exit(); code != 0 || r.stdout.String() != "x\n" || r.stderr.Len() > 0 {
		t.Errorf("exit status %d, stdout %q, stderr %q", code, r.stdout.String(), r.stderr.String())
	}
	if ran := r.await("ran.", 1); len(ran) > 1 {
		t.Errorf("ran %q", ran)
	}
}

// Unless the queue has a name: then it is one queue, today and tomorrow.
func TestWhatACrashedJobLeftInANamedQueueRuns(t *testing.T) {
	t.Parallel()
	broker := crash(t, "jobs")
	r := startMillrace(t, "map", "jobs", "--broker", broker, "-j1", "--", "sh", "-c", "touch ran.$1; echo $1", "sh", "{}", sep, "x")
	if code := r.exit(); code != 0 || r.stdout.String() != "x\n" {
		t.Errorf("exit status %d, stdout %q", code, r.stdout.String())
	}
	if want := "millrace: queue jobs holds 3 tasks of earlier jobs: they run too, and their results are not shown\n"; r.stderr.String() != want {
		t.Errorf("stderr %q", r.stderr.String())
	}
	var ran []string
	for _, mark := range r.await("ran.", 4) {
		ran = append(ran, filepath.Ext(mark))
	}
	if got := strings.Join(ran, " "); got != ".1 .2 .3 .x" {
		t.Errorf("ran %s", got)
	}
}
