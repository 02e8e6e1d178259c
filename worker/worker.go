package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/fanin"
	"github.com/millrace/millrace/internal/control"
	"github.com/millrace/millrace/mpmc"
	"github.com/millrace/millrace/replica"
	"github.com/millrace/millrace/supervise"
)

const (
	// replicaBackoffMax bounds the wait before a silent replica is started again.
	replicaBackoffMax = 5 * time.Second
)

// Worker answers the tasks of one queue. Its methods may be called by any goroutine.
type Worker struct {
	broker  millrace.Broker
	queue   string
	handler Handler // with the middleware around it
	cfg     Config

	tasks    millrace.Subscription
	controls millrace.Subscription
	ready    *mpmc.Chan[*item] // tasks that wait for a replica
	replicas *replica.Set[*item]
	merger   *fanin.Merger[outcome]

	id     string // unique among the workers of the queue that there ever are
	born   time.Time
	orders chan given // that were heard and are not obeyed yet
	obeyed obeyed
	askers askers
	pause  pausing
	ending atomic.Bool // nothing is received any more

	holdings  holdings
	runners   runners
	cancelled cancelledIDs
	clients   clients
	troubles  troubles
	flow      flow
	count     counters
	refusing  atomic.Pointer[error] // why the broker refuses results, while it does

	// brokerCtx is for what is said to the broker. It ends a grace after the worker
	// must stop at once.
	brokerCtx   context.Context
	leaveBroker context.CancelCauseFunc

	hurried context.Context // ends when Drain may wait no longer
	hurry   context.CancelCauseFunc

	mu       sync.Mutex // protects all below; never held while waiting or calling
	serving  bool
	draining bool
	drain    chan struct{} // closed when draining begins
	begun    chan struct{} // closed when Serve takes tasks
	done     chan struct{} // closed when Serve has returned, and result is set
	result   error
}

// New returns a worker that answers the tasks of the queue with h. Nothing runs until
// Serve is called. Returns an error that wraps millrace.ErrBadName for a bad name of
// a queue, and one for a nil handler.
func New(broker millrace.Broker, queue string, h Handler, cfg Config) (*Worker, error) {
	if err := millrace.CheckQueue(queue); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	if h == nil {
		return nil, errors.New("worker: no handler")
	}
	if p, ok := h.(interface{ Prefetch() bool }); ok && !p.Prefetch() && cfg.Prefetch == 0 {
		cfg.Prefetch = NoPrefetch
	}
	for _, m := range slices.Backward(cfg.Middleware) {
		h = m(h)
	}
	w := &Worker{
		broker: broker, queue: queue, handler: h, cfg: cfg.withDefaults(),
		ready: mpmc.NewUnbounded[*item](),
		id:    strings.ToLower(rand.Text()[:16]), born: time.Now(), orders: make(chan given, maxOrders),
		drain: make(chan struct{}), begun: make(chan struct{}), done: make(chan struct{}),
	}
	w.hurried, w.hurry = context.WithCancelCause(context.Background())
	w.merger = fanin.New(fanin.Config[outcome]{Buffer: settleBatch})
	w.replicas = replica.New(w.ready, w.handle, replica.Config[*item]{
		Replicas: w.cfg.Replicas,
		Lost:     w.taskLost,
		Failed:   w.failed,
		Supervise: supervise.Config{
			Name: queue, TTL: w.cfg.TTL, Grace: w.cfg.Grace, MaxAbandoned: w.cfg.MaxAbandoned,
			Backoff: supervise.Backoff{Max: replicaBackoffMax},
			// What keeps hanging replicas is a task; Config.MaxDeliveries ends that.
			Intensity: supervise.Intensity{Max: math.MaxInt},
			OnEvent:   w.replicaEvent,
		},
	})
	return w, nil
}

// Serve answers tasks until ctx ends or Drain is called. It may be called once; then
// it returns ErrServing.
//
// When ctx ends the worker stops at once: handlers' contexts end with ErrStopped, results
// that are there are published within the grace, and the other tasks are given back.
// Serve returns when all of that is done and every goroutine has ended but for those
// of handlers that ignore their context: then a *supervise.AbandonedError is in the
// error.
//
// It returns nil after Drain, the cause of ctx, the error of the broker when it is
// lost, or a *supervise.AbandonedError when too many handlers ignore their context. A
// client in the same process does not learn of it: watch what Serve returns.
func (w *Worker) Serve(ctx context.Context) error {
	w.mu.Lock()
	if w.serving {
		w.mu.Unlock()
		return ErrServing
	}
	w.serving = true
	w.mu.Unlock()
	defer close(w.done)

	w.brokerCtx, w.leaveBroker = context.WithCancelCause(context.WithoutCancel(ctx))
	defer w.leaveBroker(nil)
	err := w.subscribe(ctx)
	if err == nil {
		close(w.begun)
		err = w.serve(ctx)
	}
	w.result = errors.Join(err, w.unsubscribe())
	return w.result
}

// subscribe makes sure that the topics exist and starts to receive, from the control topic
// first: a task may be cancelled as soon as it is received.
func (w *Worker) subscribe(ctx context.Context) (err error) {
	if err := w.broker.Declare(ctx, w.queue, millrace.WorkChannel); err != nil {
		return fmt.Errorf("worker: declare queue %s: %w", w.queue, err)
	}
	topic := control.Topic(w.queue)
	w.controls, err = w.broker.Subscribe(ctx, topic, control.WorkerChannel(w.id), millrace.SubscribeOptions{})
	if err != nil {
		return fmt.Errorf("worker: subscribe to %s: %w", topic, err)
	}
	// After that, or a pause that begins in between would be neither seen nor heard. What
	// cannot be seen keeps no worker from beginning: it looks again.
	_ = w.lookWhetherPaused(ctx)
	w.flow.prefetch, w.flow.replicas = w.cfg.Prefetch, w.cfg.Replicas
	first := max(1, w.flow.wanted())
	w.tasks, err = w.broker.Subscribe(ctx, w.queue, millrace.WorkChannel,
		millrace.SubscribeOptions{Prefetch: first, Lease: w.cfg.Lease})
	if err != nil {
		return fmt.Errorf("worker: subscribe to queue %s: %w", w.queue, err)
	}
	w.flow.start(first, w.tasks.SetPrefetch)
	return nil
}

// unsubscribe gives back whatever the worker still holds.
func (w *Worker) unsubscribe() (err error) {
	for _, sub := range []millrace.Subscription{w.tasks, w.controls} {
		if sub == nil {
			continue
		}
		if e := sub.Close(); e != nil && !errors.Is(e, millrace.ErrClosed) {
			err = errors.Join(err, fmt.Errorf("worker: close the subscription: %w", e))
		}
	}
	return err
}
