package worker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/supervise"
)

// maxErrorText bounds the text of an error in a message: what is longer loses its
// middle.
const maxErrorText = 16 << 10

// failure is an attempt that has no value.
type failure struct {
	err   error
	cause error // of the end of the attempt's context; nil when it had not ended

	// What the publisher makes of it.
	verdict
	retried   bool
	leaseLost bool // nothing was sent, and the task is not acked
}

// dropped says whether nobody wants an answer: the task is just acked.
func (f *failure) dropped() bool { return errors.Is(f.cause, ErrCancelled) }

// noFault says whether the failure says nothing about the task: it is, or will be,
// somebody else's.
func (f *failure) noFault(ctx context.Context, it *item) bool {
	var redeliver *redeliverError
	return it.leaseLost.Load() || ctx.Err() != nil || errors.As(f.err, &redeliver) && !f.dropped()
}

// refusal is why a task is answered without having been run.
type refusal struct {
	kind string
	text string
}

func (e *refusal) Error() string { return e.text }

func foreign(format string, args ...any) *refusal {
	return &refusal{KindForeign, fmt.Sprintf(format, args...)}
}

// verdict is how a failure is judged.
type verdict struct {
	kind    string
	text    string
	code    string // exit code; "" when there is none
	ran     int    // how often the task was run
	final   bool   // no use to try again
	delay   time.Duration
	delayed bool // the error says which delay it wants
}

// judge reads from an error what is to be done. cause is that of the end of the
// attempt's context.
func judge(err, cause error) verdict {
	v := verdict{kind: KindFailed, text: err.Error()}
	var (
		refused   *refusal
		panicked  *supervise.PanicError
		permanent *permanentError
		after     *retryAfterError
		exit      interface{ ExitCode() int }
	)
	switch {
	case errors.As(err, &refused):
		v.kind, v.final = refused.kind, true
	case errors.As(err, &panicked):
		v.kind, v.text = KindPanic, fmt.Sprintf("panic: %v\n\n%s", panicked.Value, panicked.Stack)
	case errors.Is(cause, ErrTimeout) || errors.Is(err, ErrTimeout):
		v.kind = KindTimeout
	}
	if errors.As(err, &exit) {
		v.code = strconv.Itoa(exit.ExitCode())
	}
	if errors.As(err, &after) {
		v.delay, v.delayed = after.delay, true
	}
	if errors.As(err, &permanent) {
		v.final = true
	}
	if over := len(v.text) - maxErrorText; over > 0 {
		half := maxErrorText / 2
		v.text = fmt.Sprintf("%s\n[%d bytes left out]\n%s", v.text[:half], over, v.text[half+over:])
	}
	return v
}

// judgeFailed posts what becomes of the failures: a copy of the task for another
// attempt, or an error result and a dead letter. First it makes sure that the tasks
// are still this worker's: an error may not compete with what another one makes of
// the task after the lease had ended.
func (p *publisher) judgeFailed() error {
	if len(p.failed) == 0 {
		return nil
	}
	failed := p.failed
	p.failed = nil
	held := failed[:0]
	items := make([]*item, 0, len(failed))
	for _, o := range failed {
		if o.failed.leaseLost = o.item.leaseLost.Load(); !o.failed.leaseLost {
			held = append(held, o)
			items = append(items, o.item)
		}
	}
	lost, err := p.confirm(items)
	if err != nil {
		return err
	}
	for _, it := range lost {
		p.leaseLost(it)
	}
	for _, o := range held {
		if o.failed.leaseLost = o.item.leaseLost.Load(); o.failed.leaseLost {
			continue
		}
		if err := p.postFailure(o); err != nil {
			return err
		}
	}
	return nil
}

// confirm extends the leases of the items, and returns those that had ended.
func (p *publisher) confirm(items []*item) (lost []*item, err error) {
	err = p.insist(func() (err error) {
		lost, err = p.extend(p.brokerCtx, items)
		return err
	})
	return lost, err
}

// postFailure posts what becomes of one failure.
func (p *publisher) postFailure(o *outcome) error {
	it, f := o.item, o.failed
	f.verdict = judge(f.err, f.cause)
	f.ran = it.attempt()
	switch f.kind {
	case KindForeign:
		f.ran = 0
	case KindKilled:
		f.ran--
	}
	retries := it.retries
	if retries < 0 {
		retries = p.cfg.Retries
	}
	if f.retried = !f.final && it.failures < retries; f.retried {
		if !f.delayed {
			f.delay = p.cfg.backoff(it.failures + 1)
		}
		p.postRetry(o)
		return nil
	}
	return p.postFinal(o)
}

// postRetry posts a copy of the task, which is delivered after the delay.
func (p *publisher) postRetry(o *outcome) {
	d := &o.item.delivery
	p.posts.add(p.queue, post{o, retryCopy}, millrace.Message{
		Headers: d.Headers.Without(millrace.HeaderFailures).
			Append(millrace.HeaderFailures, strconv.Itoa(o.item.failures+1)),
		Body:  d.Body,
		Delay: o.failed.delay,
	})
}

// postFinal posts an error result, if somebody waits for one, and a dead letter.
func (p *publisher) postFinal(o *outcome) error {
	it, f := o.item, o.failed
	if it.replyTo != "" {
		var h millrace.Headers
		if it.id != "" {
			h = h.Append(millrace.HeaderID, it.id)
		}
		p.posts.add(it.replyTo, post{o, errorResult}, millrace.Message{Headers: append(f.describe(h), o.reply...)})
	}
	if !p.deadDeclared {
		// A letter that is published before its channel is there might reach none.
		err := p.insist(func() error {
			return p.broker.Declare(p.brokerCtx, p.queue+millrace.DeadSuffix, millrace.DeadChannel)
		})
		if err != nil {
			return err
		}
		p.deadDeclared = true
	}
	p.postDeadLetter(o, it.delivery.Body)
	return nil
}

// postDeadLetter posts the task with its reason, which stands before the task's own headers.
func (p *publisher) postDeadLetter(o *outcome, body []byte) {
	d := &o.item.delivery
	own := d.Headers.Without(millrace.HeaderFailures, millrace.HeaderError, millrace.HeaderErrorKind,
		millrace.HeaderExitCode, millrace.HeaderAttempts, millrace.HeaderQueue)
	h := o.failed.describe(nil).
		Append(millrace.HeaderQueue, p.queue).
		Append(millrace.HeaderChannel, millrace.WorkChannel)
	if d.Seq != 0 {
		h = h.Append(millrace.HeaderSequence, strconv.FormatUint(d.Seq, 10))
	}
	if d.Published != 0 {
		h = h.Append(millrace.HeaderPublished, time.Unix(0, d.Published).UTC().Format(time.RFC3339Nano))
	}
	p.posts.add(p.queue+millrace.DeadSuffix, post{o, deadLetter}, millrace.Message{Headers: append(h, own...), Body: body})
}

// describe appends the headers that tell of the failure.
func (f *failure) describe(h millrace.Headers) millrace.Headers {
	h = h.Append(millrace.HeaderError, f.text).
		Append(millrace.HeaderErrorKind, f.kind).
		Append(millrace.HeaderAttempts, strconv.Itoa(f.ran))
	if f.code != "" {
		h = h.Append(millrace.HeaderExitCode, f.code)
	}
	return h
}

// replace posts something smaller in place of a message that is too large for the
// broker.
func (p *publisher) replace(t tooLarge) {
	o := t.outcome
	switch t.kind {
	case value:
		o.failed = &failure{err: &refusal{KindTooLarge, fmt.Sprintf("the result of %d bytes is too large: %v", len(o.value), t.err)}}
		o.value, o.reply = nil, nil
		p.failed = append(p.failed, o)
	case retryCopy: // it got longer by a header
		o.failed = &failure{err: &refusal{KindTooLarge, fmt.Sprintf("it cannot be tried again, the task is too large: %v; it failed: %s", t.err, o.failed.text)}}
		p.failed = append(p.failed, o)
	case errorResult:
		o.reply = nil
		o.failed.text = "the error is too large for the broker"
		h := millrace.Headers(nil).Append(millrace.HeaderID, o.item.id)
		p.posts.add(o.item.replyTo, post{o, smallest}, millrace.Message{Headers: o.failed.describe(h)})
	case deadLetter:
		o.failed.text += fmt.Sprintf(" [the payload of %d bytes is left out here: with these headers it is too large]", len(o.item.delivery.Body))
		h := o.failed.describe(nil).Append(millrace.HeaderQueue, p.queue).Append(millrace.HeaderID, o.item.id)
		p.posts.add(p.queue+millrace.DeadSuffix, post{o, smallest}, millrace.Message{Headers: h})
	case smallest:
		// A broker that does not take this takes nothing.
	}
}

// report counts the outcomes, which are settled, and tells what is worth telling.
func (p *publisher) report(outcomes []outcome) {
	done := int64(0)
	for i := range outcomes {
		o := &outcomes[i]
		if o.failed == nil {
			done++
			continue
		}
		e := Event{Task: o.item.id, Attempt: o.item.attempt(), Err: o.failed.err}
		switch f := o.failed; {
		case f.dropped():
			p.count.cancelled.Add(1)
			e.Kind = TaskCancelled
		case f.leaseLost:
			continue // told when it was found
		case f.retried:
			p.count.retried.Add(1)
			e.Kind, e.Delay = TaskRetried, f.delay
		default:
			p.count.failed.Add(1)
			e.Kind = TaskDead
		}
		p.tell(e)
	}
	p.count.done.Add(done)
}
