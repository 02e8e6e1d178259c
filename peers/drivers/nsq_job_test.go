package drivers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/peers/node"
	"github.com/millrace/millrace/worker"
)

// job is a map over a queue, with a worker that has a connection of its own.
type job struct {
	t      *testing.T
	url    string
	tasks  int
	resend time.Duration
	took   atomic.Int64 // tasks that were run
	at     map[int]func()
}

// run doubles the numbers from 0 on, and makes sure that each has exactly one answer, the
// right one.
func (j *job) run() {
	j.t.Helper()
	ctx, cancel := context.WithTimeout(j.t.Context(), time.Minute)
	defer cancel()
	const queue = "double"
	double := worker.HandlerFunc(func(_ context.Context, task *worker.Task) ([]byte, error) {
		n, err := strconv.Atoi(string(task.Payload))
		if err != nil {
			return nil, worker.Permanent(err)
		}
		j.took.Add(1)
		return strconv.AppendInt(nil, int64(2*n), 10), nil
	})
	serving := openNSQ(j.t, j.url)
	w, err := worker.New(serving, queue, double, worker.Config{Replicas: 4, Lease: 3 * time.Second})
	if err != nil {
		j.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		err := w.Serve(ctx)
		if served <- err; err != nil {
			cancel()
		}
	}()

	asking := openNSQ(j.t, j.url)
	client, err := gather.New(ctx, asking, queue, gather.Config{Window: 500, Resend: j.resend})
	if err != nil {
		j.t.Fatal(err)
	}
	inputs := func(yield func(int) bool) {
		for i := range j.tasks {
			if do := j.at[i]; do != nil {
				do()
			}
			if !yield(i) {
				return
			}
		}
	}
	seen := make([]bool, j.tasks)
	answers := 0
	for r, err := range gather.Map[int](ctx, client, inputs) {
		if err != nil {
			j.t.Fatalf("after %d answers: %v", answers, err)
		}
		if r.Value != 2*int(r.Index) || seen[r.Index] {
			j.t.Fatalf("answer %+v, seen before: %v", r, seen[r.Index])
		}
		seen[r.Index] = true
		answers++
	}
	if answers != j.tasks {
		j.t.Errorf("%d answers to %d tasks", answers, j.tasks)
	}
	j.t.Logf("%d tasks were run for %d; %+v", j.took.Load(), j.tasks, client.Stats())
	if err := client.Close(ctx); err != nil {
		j.t.Error(err)
	}
	if err := w.Drain(ctx); err != nil {
		j.t.Error(err)
	}
	if err := <-served; err != nil {
		j.t.Errorf("the worker ended with %v", err)
	}
	for _, b := range []millrace.Broker{asking, serving} {
		if err := b.Close(); err != nil {
			j.t.Error(err)
		}
	}
}

// left returns the topics of a node that a job should not have left there, or with something
// in them.
func left(t *testing.T, httpAddress string) (left []string) {
	t.Helper()
	resp, err := http.Get("http://" + httpAddress + "/stats?format=json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var told struct {
		Topics []struct {
			Name     string `json:"topic_name"`
			Depth    int    `json:"depth"`
			Channels []struct {
				Name     string `json:"channel_name"`
				Depth    int    `json:"depth"`
				InFlight int    `json:"in_flight_count"`
				Deferred int    `json:"deferred_count"`
			} `json:"channels"`
		} `json:"topics"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&told); err != nil {
		t.Fatal(err)
	}
	for _, topic := range told.Topics {
		held := topic.Depth
		for _, c := range topic.Channels {
			held += c.Depth + c.InFlight + c.Deferred
		}
		if held > 0 || strings.HasPrefix(topic.Name, "reply.") {
			left = append(left, fmt.Sprintf("%+v", topic))
		}
	}
	return left
}

func onEachNSQ(t *testing.T, test func(t *testing.T, start node.Start)) {
	t.Helper()
	t.Parallel()
	for name, start := range map[string]node.Start{"millrace": node.Millrace, "nsqd": node.NSQD} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start)
		})
	}
}

func TestAJobOverNSQHasOneAnswerForEachTaskAndLeavesNothing(t *testing.T) {
	onEachNSQ(t, func(t *testing.T, start node.Start) {
		n := startNSQ(t, start, nil)
		j := &job{t: t, url: nsqURL(n), tasks: 2000}
		j.run()
		if ran := j.took.Load(); ran != 2000 {
			t.Errorf("%d tasks were run", ran)
		}
		if left := left(t, n.HTTP); left != nil {
			t.Errorf("left on the node: %s", left)
		}
	})
}

func TestAJobOverNSQOutlivesTheRestartOfItsBroker(t *testing.T) {
	onEachNSQ(t, func(t *testing.T, start node.Start) {
		n := startNSQ(t, start, nil)
		restart := func() { n.down(); n.up() }
		j := &job{t: t, url: nsqURL(n), tasks: 2000, resend: 4 * time.Second, at: map[int]func(){700: restart, 1500: restart}}
		j.run()
	})
}

// What the node had is lost for the job, which publishes it again to the other one.
func TestAJobOverTwoNodesOutlivesOneOfThem(t *testing.T) {
	onEachNSQ(t, func(t *testing.T, start node.Start) {
		stays, goes := startNSQ(t, start, nil), startNSQ(t, start, nil)
		j := &job{t: t, url: nsqURL(stays, goes), tasks: 2000, resend: 2 * time.Second, at: map[int]func(){1000: goes.down}}
		j.run()
	})
}
