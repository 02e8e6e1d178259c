package gather_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

// scenario is what goes wrong in one run.
type scenario struct {
	seed           uint64
	inputs, window int
	ordered        bool
	forget, double float64
	mix            bool
	replicas       int
	crashes        []time.Duration // when the worker dies and another one starts
	bad            map[int]bool    // inputs that fail for good
	flaky          map[int]bool    // inputs that fail once
}

func drawScenario(t *rapid.T) scenario {
	s := scenario{
		seed:     rapid.Uint64().Draw(t, "seed"),
		inputs:   rapid.IntRange(0, 150).Draw(t, "inputs"),
		window:   rapid.IntRange(1, 100).Draw(t, "window"),
		ordered:  rapid.Bool().Draw(t, "ordered"),
		forget:   rapid.SampledFrom([]float64{0, 0.05, 0.4}).Draw(t, "forget"),
		double:   rapid.SampledFrom([]float64{0, 0.1, 0.5}).Draw(t, "double"),
		mix:      rapid.Bool().Draw(t, "mix"),
		replicas: rapid.IntRange(1, 5).Draw(t, "replicas"),
		bad:      map[int]bool{}, flaky: map[int]bool{},
	}
	for range rapid.IntRange(0, 3).Draw(t, "crashes") {
		s.crashes = append(s.crashes, time.Duration(rapid.IntRange(1, 2000).Draw(t, "crash after ms"))*time.Millisecond)
	}
	if s.inputs > 0 {
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, s.inputs-1), 0, 10).Draw(t, "bad") {
			s.bad[i] = true
		}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, s.inputs-1), 0, 10).Draw(t, "flaky") {
			s.flaky[i] = true
		}
	}
	return s
}

func TestExactlyOneResultForEachInputWhateverGoesWrong(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScenario(rt)
		var trouble error
		synctest.Test(t, func(t *testing.T) { trouble = s.run(t) })
		if trouble != nil {
			rt.Fatal(trouble)
		}
	})
}

// run maps the inputs, and returns what is wrong with the results.
func (s *scenario) run(t *testing.T) error {
	b := newFaulty(t)
	b.random = rand.New(rand.NewPCG(s.seed, 0))
	b.forget, b.double, b.mix = s.forget, s.double, s.mix
	c := newClient(t, b, gather.Config{Window: s.window})

	crashed, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(crashed)
		for _, after := range s.crashes {
			stop := serve(t, b, s.handler(), s.config())
			time.Sleep(after)
			stop()
		}
		stop := serve(t, b, s.handler(), s.config())
		<-over
		stop()
	}()
	err := s.check(t.Context(), c)
	close(over)
	<-crashed
	b.set(func(b *faulty) { b.forget = 0 })
	return errors.Join(err, c.Close(t.Context()), b.Close())
}

func (s *scenario) config() worker.Config {
	return worker.Config{Replicas: s.replicas, Retries: 2, Lease: time.Second}
}

func (s *scenario) handler() worker.Handler {
	return worker.HandlerFunc(func(ctx context.Context, t *worker.Task) ([]byte, error) {
		var i int
		if _, err := fmt.Sscanf(string(t.Payload), "%d", &i); err != nil {
			return nil, worker.Permanent(err)
		}
		select {
		case <-time.After(time.Duration(i%10) * 10 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if s.bad[i] || s.flaky[i] && t.Attempt == 1 {
			return nil, errors.New("no luck")
		}
		return fmt.Appendf(nil, "%d", i*i), nil
	})
}

func (s *scenario) check(ctx context.Context, c *gather.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 24*time.Hour)
	defer cancel()
	loop := gather.Map[string, string]
	if s.ordered {
		loop = gather.MapOrdered[string, string]
	}
	seen := make([]bool, s.inputs)
	last := int64(-1)
	for r, err := range loop(ctx, c, func(yield func(string) bool) {
		for i := range s.inputs {
			if !yield(fmt.Sprint(i)) {
				return
			}
		}
	}) {
		var failed *gather.TaskError
		if err != nil && !errors.As(err, &failed) {
			return fmt.Errorf("the loop ended after %d results: %w; %+v", last, err, c.Stats())
		}
		switch i := int(r.Index); {
		case seen[i]:
			return fmt.Errorf("a second result for input %d", i)
		case s.ordered && r.Index != last+1:
			return fmt.Errorf("result %d after result %d", i, last)
		case (failed != nil) != s.bad[i]:
			return fmt.Errorf("input %d: %w", i, err)
		case failed == nil && r.Value != fmt.Sprint(i*i):
			return fmt.Errorf("input %d: %q", i, r.Value)
		default:
			seen[i], last = true, r.Index
		}
	}
	for i, ok := range seen {
		if !ok {
			return fmt.Errorf("no result for input %d", i)
		}
	}
	return nil
}

var _ millrace.Broker = (*faulty)(nil)
