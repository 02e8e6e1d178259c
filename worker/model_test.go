package worker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/worker"
)

// conduct is how a task behaves.
type conduct int

const (
	fine       conduct = iota
	failsTwice         // then it has a value
	alwaysFails
	permanent
	panics
	silentOnce // gives no sign of life the first time
	redeliver  // its process dies, twice
	conducts
)

// trouble is one run of a few workers, one after the other, at a broker that loses
// acks and leases and refuses to publish.
type trouble struct {
	seed     uint64
	tasks    []conduct
	replicas int
	prefetch int
	dropAcks int
	refusals int
	loses    float64         // how likely an Extend finds a lease lost
	crashes  []time.Duration // after which a worker stops at once
}

func drawTrouble(t *rapid.T) trouble {
	tr := trouble{
		seed:     rapid.Uint64().Draw(t, "seed"),
		replicas: rapid.IntRange(1, 5).Draw(t, "replicas"),
		prefetch: rapid.SampledFrom([]int{worker.NoPrefetch, 0, 1, 20}).Draw(t, "prefetch"),
		dropAcks: rapid.IntRange(0, 10).Draw(t, "dropped acks"),
		refusals: rapid.IntRange(0, 10).Draw(t, "refusals"),
		loses:    rapid.SampledFrom([]float64{0, 0.2}).Draw(t, "lost leases"),
	}
	for range rapid.IntRange(0, 40).Draw(t, "tasks") {
		tr.tasks = append(tr.tasks, conduct(rapid.IntRange(0, int(conducts)-1).Draw(t, "conduct")))
	}
	for range rapid.IntRange(0, 3).Draw(t, "crashes") {
		tr.crashes = append(tr.crashes, time.Duration(rapid.IntRange(1, 5000).Draw(t, "crash after ms"))*time.Millisecond)
	}
	return tr
}

func TestNoTaskIsEverWithoutItsAnswer(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tr := drawTrouble(rt)
		var wrong error
		synctest.Test(t, func(t *testing.T) { wrong = tr.run(t) })
		if wrong != nil {
			rt.Fatal(wrong)
		}
	})
}

func (tr *trouble) run(t *testing.T) error {
	r := newRig(t)
	tr.spoil(r.broker)
	cfg := worker.Config{
		Replicas: tr.replicas, Prefetch: tr.prefetch, TTL: time.Second, Grace: 5 * time.Second, Retries: 2,
		MaxRetryDelay: time.Second,
	}
	for i := range tr.tasks {
		r.publish(queue, fmt.Sprint(i), "id", fmt.Sprintf("job-%d", i), "reply-to", replyTo)
	}
	for _, after := range tr.crashes {
		r.serve(tr.handler(), cfg)
		time.Sleep(after)
		r.stop()
		if err := <-r.served; !errors.Is(err, context.Canceled) {
			return fmt.Errorf("a stopped worker returned %w", err)
		}
	}
	r.serve(tr.handler(), cfg)
	answers := r.take(r.replies, 5*time.Minute)
	depth := r.depth()
	letters := r.deadLetters()
	r.end()
	if depth != (millrace.Depth{}) {
		return fmt.Errorf("left in the queue: %+v", depth)
	}
	return tr.check(answers, letters)
}

func (tr *trouble) spoil(b *tapped) {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(tr.seed, 0))
	refusals := tr.refusals
	b.dropAcks = tr.dropAcks
	b.refuse = func(call string) error {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(call, "publish") && refusals > 0 && random.Float64() < 0.3 {
			refusals--
			return millrace.ErrNoSpace
		}
		return nil
	}
	b.loses = func(d millrace.Delivery) bool {
		// A lease that is lost stays lost.
		return rand.New(rand.NewPCG(d.Seq, tr.seed+uint64(d.Attempt))).Float64() < tr.loses
	}
}

func (tr *trouble) handler() worker.Handler {
	return worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
		var i int
		if _, err := fmt.Sscan(string(t.Payload), &i); err != nil {
			return nil, err
		}
		for range i % 5 {
			time.Sleep(700 * time.Millisecond)
			if ctx.Err() != nil {
				return nil, ctx.Err() // else it hangs, and a task that does so five times fails
			}
			worker.Beat(ctx)
		}
		failed := len(t.Headers.Text(millrace.HeaderFailures)) > 0
		switch tr.tasks[i] {
		case failsTwice:
			if t.Headers.Text(millrace.HeaderFailures) != "2" {
				return nil, errors.New("no luck yet")
			}
		case alwaysFails:
			return nil, errors.New("no luck")
		case permanent:
			return nil, worker.Permanent(errors.New("never"))
		case panics:
			panic("boom")
		case silentOnce:
			if t.Attempt == 1 && !failed {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		case redeliver:
			if t.Attempt <= 2 {
				return nil, worker.Redeliver(errors.New("killed"))
			}
		}
		return t.Payload, nil
	})
}

// check says what is wrong with the answers. There may be several to one task, since
// it may have run several times, but all of them must be right.
func (tr *trouble) check(answers, letters []millrace.Delivery) error {
	values, failures, dead := map[string]int{}, map[string]int{}, map[string]int{}
	for _, d := range answers {
		if _, isError := d.Headers.Get(millrace.HeaderError); isError {
			failures[d.Headers.Text(millrace.HeaderID)]++
		} else {
			values[d.Headers.Text(millrace.HeaderID)]++
		}
	}
	for _, d := range letters {
		dead[d.Headers.Text(millrace.HeaderID)]++
	}
	for i, how := range tr.tasks {
		id := fmt.Sprintf("job-%d", i)
		fails := how == alwaysFails || how == permanent || how == panics
		switch {
		case fails && (values[id] > 0 || failures[id] == 0 || dead[id] == 0):
			return fmt.Errorf("%s fails, but has %d values, %d errors and %d dead letters", id, values[id], failures[id], dead[id])
		case !fails && (values[id] == 0 || failures[id] > 0 || dead[id] > 0):
			return fmt.Errorf("%s (%d) succeeds, but has %d values, %d errors and %d dead letters", id, how, values[id], failures[id], dead[id])
		}
	}
	return nil
}
