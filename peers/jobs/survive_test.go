package jobs_test

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ttl is the workers' in all jobs: the shortest that nsqd knows.
const ttl = time.Second

// job is a millrace map over a queue, whose inputs are the numbers after base.
type job struct {
	t       *testing.T
	on      *system
	queue   string
	base    int
	size    int
	asker   *process
	answers map[int]bool
}

func newJob(t *testing.T, on *system, queue string, size int) *job {
	t.Helper()
	return &job{t: t, on: on, queue: queue, size: size, asker: mapping(t, on.url, queue), answers: map[int]bool{}}
}

// give writes the inputs with those numbers.
func (j *job) give(from, to int) {
	for n := from; n <= to; n++ {
		j.asker.give(strconv.Itoa(j.base + n))
	}
}

// until takes results until there are n.
func (j *job) until(n int) {
	j.t.Helper()
	deadline := time.After(patience)
	for len(j.answers) < n {
		select {
		case line, open := <-j.asker.lines:
			if !open {
				j.t.Fatalf("map ended after %d results: %v\n%s", len(j.answers), j.asker.wait(), j.asker.stderr())
			}
			j.take(line)
		case <-deadline:
			j.t.Fatalf("%d results came of %d; map said:\n%s", len(j.answers), n, j.asker.stderr())
		}
	}
}

func (j *job) take(line string) {
	j.t.Helper()
	input, output, _ := strings.Cut(line, "\t")
	n, err := strconv.Atoi(input)
	if err != nil || n <= j.base || n > j.base+j.size || output != strconv.Itoa(n*n) {
		j.t.Fatalf("a wrong result: %q", line)
	}
	if j.answers[n] {
		j.t.Fatalf("a second result: %q", line)
	}
	j.answers[n] = true
}

// finish takes the rest of the results and the end of the map.
func (j *job) finish() {
	j.t.Helper()
	_ = j.asker.stdin.Close()
	j.until(j.size)
	if err := j.asker.wait(); err != nil {
		j.t.Fatalf("map: %v\n%s", err, j.asker.stderr())
	}
	for line := range j.asker.lines {
		j.t.Fatalf("a result too many: %q", line)
	}
}

// workersComeAndGo has a job done by three workers, of which one is killed, one is stopped
// for longer than its TTL, and one is drained, while others start. meanwhile is called in
// the middle.
func workersComeAndGo(t *testing.T, on *system, queue string, size int, meanwhile func(*job)) {
	t.Helper()
	dies := goWorker(t, on.url, queue, ttl)
	hangs := goWorker(t, on.url, queue, ttl)
	leaves := commandWorker(t, on.url, queue, ttl, "expr", "{}", "*", "{}")
	j := newJob(t, on, queue, size)
	held := size * 4 / 5
	go j.give(1, held)

	j.until(size * 1 / 10)
	dies.killGroup()
	later := []*process{goWorker(t, on.url, queue, ttl)}

	j.until(size * 2 / 10)
	hangs.signal(syscall.SIGSTOP)
	hangsSince := time.Now()

	j.until(size * 3 / 10)
	leaves.signal(syscall.SIGTERM)
	later = append(later, commandWorker(t, on.url, queue, ttl, "expr", "{}", "*", "{}"))
	if err := leaves.wait(); err != nil {
		t.Errorf("the worker that was to drain: %v\n%s", err, leaves.stderr())
	}
	if meanwhile != nil {
		j.until(size * 5 / 10)
		meanwhile(j)
	}
	j.until(held)
	time.Sleep(time.Until(hangsSince.Add(ttl + ttl/2)))
	hangs.signal(syscall.SIGCONT)
	j.give(held+1, size)
	j.finish()
	on.wantEmpty(t, queue) // also of what was delivered or asked for twice
	for _, p := range append(later, hangs) {
		p.signal(syscall.SIGTERM)
	}
	for _, p := range append(later, hangs) {
		if err := p.wait(); err != nil {
			t.Errorf("%s: %v\n%s", p.name, err, p.stderr())
		}
	}
	on.wantNothingLeft(t, queue)
}

func survivesWorkers(t *testing.T, on *system) { workersComeAndGo(t, on, "workers", *tasks, nil) }

func survivesBroker(t *testing.T, on *system) {
	workersComeAndGo(t, on, "broker", *tasks, func(*job) {
		if on.kind == "rabbitmq" {
			// RabbitMQ 3.10 that is killed within a second or so after a quorum queue was made
			// can leave it without a leader for good; the queue of the replies is that young.
			time.Sleep(3 * time.Second)
		}
		if err := on.kill(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(ttl / 2)
		if err := on.again(); err != nil {
			t.Fatal(err)
		}
	})
}
