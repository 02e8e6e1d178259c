package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace"
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

// Inputs that were meant for another command must never run with this one, and whoever
// asked for them is dead. They are dropped, in words, and leave nothing in the broker.
func TestWhatACrashedJobLeftIsDropped(t *testing.T) {
	for _, queue := range [][]string{nil, {"jobs"}} {
		name := strings.Join(queue, "")
		if queue == nil {
			name = localQueue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker := crash(t, queue...)
			args := slices.Concat([]string{"map"}, queue, []string{"--broker", broker, "-j1", "--", "sh", "-c", "touch ran.$1; echo $1", "sh", "{}", sep, "x"})
			r := startMillrace(t, args...)
			if code := r.exit(); code != 0 || r.stdout.String() != "x\n" {
				t.Errorf("exit status %d, stdout %q", code, r.stdout.String())
			}
			want := "millrace: dropped 3 unfinished tasks of an earlier run that was killed, from the queue " + name + " in " + broker + "\n"
			if r.stderr.String() != want {
				t.Errorf("stderr %q, want %q", r.stderr.String(), want)
			}
			if ran := r.await("ran.", 1); len(ran) != 1 || filepath.Ext(ran[0]) != ".x" {
				t.Errorf("ran %q", ran)
			}
			left, _ := filepath.Glob(filepath.Join(strings.TrimPrefix(broker, "file://"), "topics", "*"))
			left = slices.DeleteFunc(left, func(path string) bool {
				return queue != nil && strings.HasPrefix(filepath.Base(path), name+".") // a named queue stays, empty
			})
			if len(left) > 0 {
				t.Errorf("left in the broker: %q", left)
			}
		})
	}
}

// A task without an address for its answer was put there to be run.
func TestWhatNobodyWaitsForIsRunAndNotDropped(t *testing.T) {
	t.Parallel()
	url := "file://" + filepath.Join(t.TempDir(), "data")
	b, err := millrace.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(b.Declare(t.Context(), "jobs", millrace.WorkChannel),
		b.Publish(t.Context(), "jobs", millrace.Message{Body: []byte("published")}), b.Close())
	if err != nil {
		t.Fatal(err)
	}
	r := startMillrace(t, "map", "jobs", "--broker", url, "-j1", "--", "sh", "-c", "touch ran.$1; until [ -e ran.published ]; do sleep 0.01; done", "sh", "{}", sep, "x")
	if code := r.exit(); code != 0 || r.stderr.Len() > 0 {
		t.Errorf("exit status %d, stderr %q", code, r.stderr.String())
	}
	r.await("ran.", 2)
}

// What an interrupt leaves is cancelled, as it says: the next run finds nothing.
func TestWhatAnInterruptLeavesIsCancelled(t *testing.T) {
	t.Parallel()
	broker := "file://" + filepath.Join(t.TempDir(), "data")
	r := startMillrace(t, "map", "jobs", "--broker", broker, "-j1", "--", "sh", "-c", "touch begun.$1; sleep 1000", "sh", "{}", sep, "1", "2", "3")
	r.await("begun.", 1)
	_ = r.Process.Signal(os.Interrupt)
	r.stderr.await(t, onceMore)
	_ = r.Process.Signal(os.Interrupt)
	if code := r.exit(); code != exitOther || !strings.HasSuffix(r.stderr.String(), "0 done, 0 of them failed, 3 not finished and cancelled\n") {
		t.Errorf("exit status %d, stderr %q", code, r.stderr.String())
	}
	r = startMillrace(t, "map", "jobs", "--broker", broker, "--", "echo", sep, "x")
	if code := r.exit(); code != 0 || r.stdout.String() != "x\n" || r.stderr.Len() > 0 {
		t.Errorf("exit status %d, stdout %q, stderr %q", code, r.stdout.String(), r.stderr.String())
	}
}
