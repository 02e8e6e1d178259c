package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/driver/embedded"
	"github.com/millrace/millrace/fleet"
	"github.com/millrace/millrace/internal/control"
	"github.com/millrace/millrace/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const queue = "q"

// line is somebody's connection to the broker that all share, and which can be bad.
type line struct {
	millrace.Broker
	// copies says how often what is published to a topic arrives, 1 when it is nil.
	copies atomic.Pointer[func(topic string, body []byte) int]
	cut    atomic.Bool            // nothing is published at all
	lags   atomic.Int64           // so often more a channel is not seen that is there
	gone   atomic.Pointer[string] // the topic that was deleted last
}

func (l *line) Depth(ctx context.Context, topic, channel string) (millrace.Depth, error) {
	if l.lags.Add(-1) >= 0 {
		return millrace.Depth{}, millrace.ErrNotFound
	}
	return l.Broker.Depth(ctx, topic, channel)
}

func (l *line) Delete(ctx context.Context, topic, channel string) error {
	l.gone.Store(&topic)
	return l.Broker.Delete(ctx, topic, channel)
}

func (l *line) Publish(ctx context.Context, topic string, msgs ...millrace.Message) error {
	if l.cut.Load() {
		return nil
	}
	for _, m := range msgs {
		n := 1
		if copies := l.copies.Load(); copies != nil {
			n = (*copies)(topic, m.Body)
		}
		for range n {
			if err := l.Broker.Publish(ctx, topic, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// arrives sets how often what is published arrives.
func (l *line) arrives(copies func(topic string, body []byte) int) { l.copies.Store(&copies) }

// depot is a broker in memory with workers, in virtual time, whose tasks run until they are
// released.
type depot struct {
	*testing.T
	raw     *broker.Broker
	broker  millrace.Broker
	line    *line // ours
	fleet   *fleet.Fleet
	workers []*hand
	release chan struct{} // closed when the tasks may end
	began   atomic.Int64  // tasks
	asked   int           // tasks
}

// hand is a worker.
type hand struct {
	*worker.Worker
	line   *line
	stop   context.CancelFunc
	served chan error
}

// inBubble runs f with workers that have so many replicas.
func inBubble(t *testing.T, replicas []int, f func(d *depot)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		raw, b := open(t)
		d := &depot{T: t, raw: raw, broker: b, line: &line{Broker: b}, release: make(chan struct{})}
		must(t, b.Declare(t.Context(), queue, millrace.WorkChannel))
		for _, n := range replicas {
			d.hire(n)
		}
		var err error
		d.fleet, err = fleet.Open(t.Context(), d.line, queue)
		must(t, err)
		f(d)
		must(t, d.fleet.Close(context.Background()))
		for _, h := range d.workers {
			h.stop()
			if err := <-h.served; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("Serve returned %v", err)
			}
		}
		must(t, b.Close())
	})
}

// open returns a broker in memory, as it is and behind the interface of all.
func open(t testing.TB) (*broker.Broker, millrace.Broker) {
	t.Helper()
	opts, err := embedded.Options("mem:")
	must(t, err)
	raw, err := broker.Open(opts)
	must(t, err)
	return raw, embedded.New(raw)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hire starts a worker.
func (d *depot) hire(replicas int) *hand {
	d.Helper()
	if replicas == 0 {
		replicas = -1
	}
	h := &hand{line: &line{Broker: d.broker}, served: make(chan error, 1)}
	var err error
	h.Worker, err = worker.New(h.line, queue, worker.HandlerFunc(d.handle), worker.Config{Replicas: replicas, Prefetch: worker.NoPrefetch})
	must(d, err)
	var ctx context.Context
	ctx, h.stop = context.WithCancel(context.Background())
	go func() { h.served <- h.Serve(ctx) }()
	synctest.Wait()
	d.workers = append(d.workers, h)
	return h
}

// die ends a worker as SIGKILL would: nobody hears of it.
func (h *hand) die() {
	h.line.cut.Store(true)
	h.stop()
}

// handle is busy until the tasks are released.
func (d *depot) handle(ctx context.Context, t *worker.Task) ([]byte, error) {
	d.began.Add(1)
	select {
	case <-d.release:
		return t.Payload, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ask publishes so many tasks, and waits until all that can have begun.
func (d *depot) ask(n int) {
	d.Helper()
	for range n {
		m := millrace.Message{Headers: millrace.Headers(nil).Append("id", fmt.Sprintf("job-%d", d.asked)), Body: []byte("x")}
		must(d, d.broker.Publish(d.Context(), queue, m))
		d.asked++
	}
	synctest.Wait()
}

func (d *depot) report() fleet.Report {
	d.Helper()
	r, err := d.fleet.Report(d.Context())
	must(d, err)
	return r
}

// sizes returns the number of replicas of each worker, in the order in which they were
// hired, without those that are leaving.
func (d *depot) sizes() (all []int) {
	synctest.Wait()
	for _, h := range d.workers {
		n := 0
		for _, r := range h.Status().Replicas {
			if !r.Leaving {
				n++
			}
		}
		all = append(all, n)
	}
	return all
}

func (d *depot) depth() millrace.Depth {
	d.Helper()
	depth, err := d.broker.Depth(d.Context(), queue, millrace.WorkChannel)
	must(d, err)
	return depth
}

// twoAtOnce has two steer the workers at the same time, each as one who does not know the other.
func (d *depot) twoAtOnce(steer func(*fleet.Fleet) error) {
	d.Helper()
	var both sync.WaitGroup
	for range 2 {
		f, err := fleet.Open(d.Context(), d.broker, queue)
		must(d.T, err)
		defer func() { must(d.T, f.Close(context.Background())) }()
		both.Go(func() {
			if err := steer(f); err != nil {
				d.Error(err)
			}
		})
	}
	both.Wait()
}

func (d *depot) equal(what string, got, want any) {
	d.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		d.Errorf("%s: %s, want %s", what, g, w)
	}
}

// fails wants an error that is one of these and says that.
func (d *depot) fails(what string, err, is error, says string) {
	d.Helper()
	if !errors.Is(err, is) || !strings.Contains(fmt.Sprint(err), says) {
		d.Errorf("%s: %v, want %v that says %q", what, err, is, says)
	}
}

// unconfirmed wants an *fleet.UnconfirmedError about these workers.
func (d *depot) unconfirmed(what string, err error, ids ...string) {
	d.Helper()
	var e *fleet.UnconfirmedError
	if !errors.As(err, &e) {
		d.Fatalf("%s: %v", what, err)
	}
	var got []string
	for _, w := range e.Workers {
		got = append(got, w.ID)
	}
	d.equal(what, got, ids)
}

// id is the worker's.
func (h *hand) id() string { return h.Status().ID }

// orderTo reads an order, and to whom it is.
func orderTo(body []byte) (op control.Op, to string) {
	o, _ := control.ReadOrder(body)
	return o.Op, o.To
}
