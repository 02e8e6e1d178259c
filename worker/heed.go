package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/control"
)

const (
	// maxOrders is how many orders wait to be obeyed at most. Who is not answered says
	// them again.
	maxOrders = 64
	// staleAfter is from which age on an order may be one whose asker is gone. It is only
	// a hint, because the clocks of two machines are compared.
	staleAfter = time.Second
	// answerWithin bounds the publishing of an answer. It is soon of no use to anybody.
	answerWithin = 2 * time.Second
)

// given is an order as it came.
type given struct {
	control.Order
	stale bool // its asker may be gone
}

// heed hears what is said on the control topic until ctx ends.
func (w *Worker) heed(ctx context.Context) error {
	buf := make([]millrace.Delivery, maxOrders)
	for {
		n, err := w.controls.Receive(ctx, buf)
		if err != nil {
			return fmt.Errorf("worker: receive from %s: %w", control.Topic(w.queue), err)
		}
		for i := range buf[:n] {
			w.hear(&buf[i])
		}
		if err := w.controls.Ack(ctx, buf[:n]...); err != nil && !errors.Is(err, millrace.ErrLeaseLost) {
			return fmt.Errorf("worker: ack on %s: %w", control.Topic(w.queue), err)
		}
		clear(buf[:n])
	}
}

// hear passes on what was said, if it concerns this worker. What is no order is from a
// later version, or from somewhere else.
func (w *Worker) hear(d *millrace.Delivery) {
	o, ok := control.ReadOrder(d.Body)
	switch {
	case !ok || o.To != "" && o.To != w.id:
	case o.Op == control.Cancel:
		w.cancel(o.Cancel)
	case o.Op == control.Attend:
		w.clients.came(o.ReplyTo, time.Now())
	default:
		age := time.Since(time.Unix(0, d.Published))
		select {
		case w.orders <- given{o, d.Published == 0 || age.Abs() > staleAfter}:
		default:
		}
	}
}

// follow obeys, one after the other, the orders that were heard, until ctx ends. Meanwhile
// it makes sure that a worker which is paused learns that it is no longer, also when it
// could not be told.
func (w *Worker) follow(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-w.orders:
			a := w.obey(ctx, o.Order)
			w.answer(ctx, o, a)
		case <-look.C:
			if w.pause.doubtful() {
				_ = w.lookWhetherPaused(ctx)
			}
		}
	}
}

// answer tells the asker what became of its order. Nobody waits for an answer that cannot
// be published: the order comes again.
func (w *Worker) answer(ctx context.Context, o given, a control.Answer) {
	if o.ReplyTo == "" {
		return
	}
	w.askers.note(o.ReplyTo)
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if o.stale && !w.listens(ctx, o.ReplyTo) {
		return
	}
	a.Worker = w.describe()
	_ = w.broker.Publish(ctx, o.ReplyTo, a.Encode())
}

// listens says whether an asker is still there. Publishing to the topic of one that is gone
// would make a topic that nobody reads.
func (w *Worker) listens(ctx context.Context, replyTo string) bool {
	_, err := w.broker.Depth(ctx, replyTo, control.AnswerChannel)
	return err == nil
}

// farewell tells those who asked lately that the worker has ended, so that they need not
// find out by its silence.
func (w *Worker) farewell() {
	ctx, cancel := context.WithTimeout(w.brokerCtx, answerWithin)
	defer cancel()
	a := control.Answer{Outcome: control.Ended, Worker: w.describe()}
	for _, replyTo := range w.askers.recent() {
		if w.listens(ctx, replyTo) {
			_ = w.broker.Publish(ctx, replyTo, a.Encode())
		}
	}
}

const (
	// askersKept is how many askers are remembered at most, and recently for how long after
	// they last asked.
	askersKept = 16
	recently   = 10 * time.Second
)

// askers are those who asked last. They belong to follow's goroutine, and to whoever has
// waited for that to end.
type askers struct {
	asked map[string]time.Time // by the topic to reply to
}

func (as *askers) note(replyTo string) {
	if as.asked == nil {
		as.asked = make(map[string]time.Time)
	}
	as.asked[replyTo] = time.Now()
	for len(as.asked) > askersKept {
		oldest := replyTo
		for topic, at := range as.asked {
			if at.Before(as.asked[oldest]) {
				oldest = topic
			}
		}
		delete(as.asked, oldest)
	}
}

func (as *askers) recent() (topics []string) {
	for topic, at := range as.asked {
		if time.Since(at) < recently {
			topics = append(topics, topic)
		}
	}
	return topics
}
