package worker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/fanin"
)

const (
	// settleBatch is how many outcomes are settled together at the most.
	settleBatch = 4096
	// While the broker refuses, the delay before the next try doubles from one to
	// the other.
	refusedDelay, refusedMaxDelay = 50 * time.Millisecond, 5 * time.Second
)

// publisher settles outcomes: it publishes what is to be published, waits until that
// is safe, and acks the tasks. It is one goroutine's.
type publisher struct {
	*Worker
	outcomes []outcome
	failed   []*outcome // that are not judged yet
	posts    posts
	acks     []*item
	tags     []millrace.Delivery

	deadDeclared bool // the topic of dead letters, and its channel
}

// publish settles what the replicas emit until there is no more, or the broker is
// gone. While one batch is under way the next one gathers: batches are as large as
// the broker is slow.
func (w *Worker) publish() error {
	p := &publisher{Worker: w, outcomes: make([]outcome, settleBatch)}
	for {
		n, err := w.merger.RecvBatch(w.brokerCtx, p.outcomes)
		if errors.Is(err, fanin.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.settle(p.outcomes[:n]); err != nil {
			return fmt.Errorf("worker: publish results: %w", err)
		}
		clear(p.outcomes[:n]) // what was answered is not kept alive
	}
}

// settle returns when all of the outcomes are safe and their tasks acked, and an
// error only when the broker is gone or the worker may wait for it no longer.
func (p *publisher) settle(outcomes []outcome) error {
	bytes := 0
	for i := range outcomes {
		bytes += len(outcomes[i].value)
		switch o := &outcomes[i]; {
		case o.failed == nil:
			p.postValue(o)
		case !o.failed.dropped():
			p.failed = append(p.failed, o)
		}
	}
	// A message that is too large is replaced by another: a result by an error.
	for len(p.failed) > 0 || !p.posts.empty() {
		if err := p.judgeFailed(); err != nil {
			return err
		}
		if err := p.deliver(); err != nil {
			return err
		}
		for _, one := range p.posts.takeTooLarge() {
			p.replace(one)
		}
	}
	p.posts.reset()
	p.flow.settled(len(outcomes), bytes) // before the ack, or the broker could fill what that makes free
	if err := p.ack(outcomes); err != nil {
		return err
	}
	p.report(outcomes)
	return nil
}

// postValue posts the result of a task that has somebody to reply to.
func (p *publisher) postValue(o *outcome) {
	it := o.item
	if it.replyTo == "" {
		return
	}
	start := p.posts.begin()
	if it.id != "" {
		p.posts.header(millrace.HeaderID, it.id)
	}
	if n := it.attempt(); n != 1 { // without it, it is 1
		p.posts.header(millrace.HeaderAttempts, strconv.Itoa(n))
	}
	p.posts.headers = append(p.posts.headers, o.reply...)
	p.posts.add(it.replyTo, post{outcome: o, kind: value}, millrace.Message{
		Headers: p.posts.since(start), Body: o.value,
	})
}

// deliver publishes what is posted, and tries again what the broker refuses.
func (p *publisher) deliver() error {
	for i := range p.posts.topics[:p.posts.used] {
		if t := &p.posts.topics[i]; len(t.posts) > 0 && !p.isWanted(p.brokerCtx, t.topic) {
			t.drop(len(t.posts))
		}
	}
	begun := time.Now()
	err := p.insist(func() error { return p.posts.publish(p.brokerCtx, p.broker) })
	if err == nil && time.Since(begun) > longPublish {
		for i := range p.posts.topics[:p.posts.used] {
			p.removeUnwanted(p.brokerCtx, p.posts.topics[i].topic)
		}
	}
	return err
}

// insist calls f until it succeeds. Meanwhile the worker takes no new task, and keeps
// the leases of those it has. It returns an error when the broker was closed, or the
// worker may wait no longer.
func (p *publisher) insist(f func() error) error {
	err := f()
	if err == nil {
		return nil
	}
	p.flow.change(func(f *flow) { f.refused = true })
	for delay := refusedDelay; err != nil; delay = min(2*delay, refusedMaxDelay) {
		if p.brokerCtx.Err() != nil || errors.Is(err, millrace.ErrClosed) {
			return err
		}
		p.refusing.Store(&err)
		p.tell(Event{Kind: BrokerRefuses, Err: err, Delay: delay})
		pause(p.brokerCtx, delay)
		err = f()
	}
	p.refusing.Store(nil)
	p.flow.change(func(f *flow) { f.refused = false })
	p.tell(Event{Kind: BrokerAccepts})
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// ack acks the tasks of the outcomes, but for those whose lease had ended.
func (p *publisher) ack(outcomes []outcome) error {
	for i := range outcomes {
		if o := &outcomes[i]; o.failed == nil || !o.failed.leaseLost {
			p.acks = append(p.acks, o.item)
		}
	}
	if len(p.acks) == 0 {
		return nil
	}
	p.tags = deliveries(p.tags[:0], p.acks)
	p.holdings.release(p.acks...) // before, or extending could find leases that an ack has ended
	err := p.insist(func() error {
		err := p.tasks.Ack(p.brokerCtx, p.tags...)
		if errors.Is(err, millrace.ErrLeaseLost) {
			err = nil // it runs again, and its second answer is dropped
		}
		return err
	})
	clear(p.acks)
	clear(p.tags)
	p.acks = p.acks[:0]
	return err
}
