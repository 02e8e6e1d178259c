package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/gather"
)

// keepsEarlyRequests: nobody has ever worked on the queue when it is asked.
func keepsEarlyRequests(t *testing.T, on *system) {
	const size = 50
	j := newJob(t, on, "early", size)
	go j.give(1, size)
	time.Sleep(500 * time.Millisecond)
	goWorker(t, on.url, j.queue, ttl)
	j.finish()
	on.wantNothingLeft(t, j.queue)
}

// gatherTheirOwn: several ask at the same time.
func gatherTheirOwn(t *testing.T, on *system) {
	const clients, size = 3, 200
	goWorker(t, on.url, "own", ttl)
	var all sync.WaitGroup
	for i := range clients {
		j := newJob(t, on, "own", size)
		j.base = i * 1000
		all.Go(func() {
			j.give(1, size)
			_ = j.asker.stdin.Close()
		})
		defer j.finish()
	}
	all.Wait()
}

// leaversCancel: what was asked for by a client that leaves, or whose time is up, runs no
// longer.
func leaversCancel(t *testing.T, on *system) {
	w := goWorker(t, on.url, "left", ttl)
	w.saysWithin(patience, "ready")
	for name, leave := range map[string]func(){
		"a map that is interrupted": func() {
			p := mapping(t, on.url, "left")
			for n := range 3 * replicas {
				p.give(fmt.Sprint("sleep 10m ", 1000+n))
			}
			w.saysWithin(patience, "took 1000")
			p.signal(syscall.SIGINT)
			p.saysWithin(patience, "not finished and cancelled")
			if err := p.wait(); err == nil {
				t.Error("it was interrupted, and says that all is well")
			}
		},
		"a client whose deadline passes": func() {
			client, err := gather.New(t.Context(), on.open(t), "left", gather.Config{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			inputs := slices.Values(slices.Repeat([]string{"sleep 10m 1"}, 3*replicas))
			for _, err = range gather.Map[string](ctx, client, inputs) {
				// only the last error counts
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("it ended with %v", err)
			}
			if err := client.Close(t.Context()); err != nil {
				t.Error(err)
			}
		},
	} {
		leave()
		if t.Failed() {
			t.Fatal(name)
		}
		on.wantNothingLeft(t, "left")
	}
}

// diesUnseen kills a client in the middle of its job. What is left of it has to go by itself.
func diesUnseen(t *testing.T, on *system) {
	before := on.replyTopics(t)
	goWorker(on.t, on.url, "abandoned", ttl).saysWithin(patience, "ready")
	j := newJob(t, on, "abandoned", 10*replicas)
	j.give(1, 10*replicas)
	j.until(1)
	on.abandoned = slices.DeleteFunc(on.replyTopics(t), func(name string) bool { return slices.Contains(before, name) })
	if len(on.abandoned) == 0 {
		t.Fatal("it has no reply topic")
	}
	j.asker.killGroup()
}

// diedUnseen makes sure that it did.
func diedUnseen(t *testing.T, on *system) {
	abandoned := on.abandoned
	on.abandoned = nil
	for until := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		left := slices.DeleteFunc(on.replyTopics(t), func(name string) bool { return !slices.Contains(abandoned, name) })
		if len(left) == 0 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("left of a client that was killed: %q", left)
		}
	}
	on.wantNothingLeft(t, "abandoned")
}
