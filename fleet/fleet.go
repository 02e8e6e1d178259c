package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/control"
)

// Fleet is the workers of one queue, seen from one place. Its methods may be called by any
// goroutine. It has a topic of its own for the answers, and two goroutines.
type Fleet struct {
	broker  millrace.Broker
	queue   string
	replyTo string

	answers  millrace.Subscription
	controls millrace.Subscription
	ctx      context.Context // of the goroutines
	stop     context.CancelCauseFunc
	routines sync.WaitGroup

	mu      sync.Mutex // protects all below; never held while waiting or calling
	members map[string]*member
	asks    map[*ask]struct{}
	err     error // why nothing is heard any more
	last    totals
}

// member is a worker that was heard.
type member struct {
	control.Worker
	heard  time.Time
	silent bool // it did not answer the last roll call
	ended  bool // it has said so: what is heard of it later was said before
}

// forgetAfter is how long one that is silent or has ended is remembered.
const forgetAfter = 10 * time.Minute

// Open begins to listen for the workers of the queue. Close ends it, and so does the
// broker, but not ctx, which only bounds Open. Returns ErrNoQueue when there is no such
// queue, an error that wraps millrace.ErrBadName for a bad name of one, or what the broker
// says.
func Open(ctx context.Context, broker millrace.Broker, queue string) (*Fleet, error) {
	if err := millrace.CheckQueue(queue); err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	// Or a slip of the finger would leave a control topic behind. What else is wrong with
	// the depth keeps nobody from steering workers.
	if _, err := broker.Depth(ctx, queue, millrace.WorkChannel); errors.Is(err, millrace.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrNoQueue, queue)
	}
	id := newID()
	f := &Fleet{
		broker: broker, queue: queue, replyTo: control.AnswerTopic(id),
		members: make(map[string]*member), asks: make(map[*ask]struct{}),
	}
	var err error
	if f.answers, err = broker.Subscribe(ctx, f.replyTo, control.AnswerChannel, millrace.SubscribeOptions{}); err != nil {
		return nil, fmt.Errorf("fleet: subscribe to %s: %w", f.replyTo, err)
	}
	f.controls, err = broker.Subscribe(ctx, control.Topic(queue), control.AskerChannel(id), millrace.SubscribeOptions{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fleet: subscribe to %s: %w", control.Topic(queue), err), f.answers.Close())
	}
	f.ctx, f.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	f.routines.Go(func() { f.listen(f.answers, f.hear) })
	f.routines.Go(func() { f.listen(f.controls, func(*millrace.Delivery) {}) }) // see control.AskerChannel
	return f, nil
}

// newID makes up an id that is used once.
func newID() string { return strings.ToLower(rand.Text()[:16]) }

// Close ends what waits with ErrClosed, and leaves nothing behind in the broker. It
// returns when every goroutine of f has ended, with an error when the broker could not be
// told.
func (f *Fleet) Close(ctx context.Context) error {
	f.fail(ErrClosed)
	f.routines.Wait()
	var err error
	for _, sub := range []millrace.Subscription{f.controls, f.answers} {
		if e := sub.Close(); e != nil && !errors.Is(e, millrace.ErrClosed) {
			err = errors.Join(err, fmt.Errorf("fleet: close: %w", e))
		}
	}
	if e := f.broker.Delete(ctx, f.replyTo, ""); e != nil && !errors.Is(e, millrace.ErrClosed) {
		err = errors.Join(err, fmt.Errorf("fleet: delete topic %s: %w", f.replyTo, e))
	}
	return err
}

// fail says that nothing is heard any more. The first reason counts.
func (f *Fleet) fail(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = why
	}
	f.stop(f.err)
	for a := range f.asks {
		a.wake()
	}
}

// listen passes on what comes until there is no more.
func (f *Fleet) listen(sub millrace.Subscription, hear func(*millrace.Delivery)) {
	buf := make([]millrace.Delivery, 64)
	for {
		n, err := sub.Receive(f.ctx, buf)
		if err != nil {
			f.fail(fmt.Errorf("fleet: receive: %w", err))
			return
		}
		for i := range buf[:n] {
			hear(&buf[i])
		}
		if err := sub.Ack(f.ctx, buf[:n]...); err != nil && !errors.Is(err, millrace.ErrLeaseLost) {
			f.fail(fmt.Errorf("fleet: ack: %w", err))
			return
		}
		clear(buf[:n])
	}
}

// hear takes in what a worker says. What is no answer is from a later version, or from
// somewhere else.
func (f *Fleet) hear(d *millrace.Delivery) {
	a, ok := control.ReadAnswer(d.Body)
	if !ok {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.members[a.Worker.ID]
	if m == nil {
		m = &member{}
		f.members[a.Worker.ID] = m
	}
	if m.ended {
		return
	}
	m.ended = a.Outcome == control.Ended
	if a.Worker.Age >= m.Age { // answers can overtake each other
		m.Worker, m.heard, m.silent = a.Worker, time.Now(), false
	}
	for one := range f.asks {
		one.hear(a)
	}
}

// alive are the workers from which something is expected. The caller holds mu.
func (f *Fleet) alive() (ids []string) {
	for id, m := range f.members {
		if !m.silent && !m.ended {
			ids = append(ids, id)
		}
	}
	return ids
}

// forget lets go of those that nobody asks about any more. The caller holds mu.
func (f *Fleet) forget() {
	for id, m := range f.members {
		if (m.silent || m.ended) && time.Since(m.heard) > forgetAfter {
			delete(f.members, id)
		}
	}
}
