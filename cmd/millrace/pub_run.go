package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/fanin"
)

const (
	// batchBytes and batchCount are about how much is published together: what nsqd
	// takes at once, with room to spare.
	batchBytes = 1 << 20
	batchCount = 8192
	// How long pub waits before it tries again to publish what could not be, at first
	// and at most.
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
	// tellAfter is how long the broker may be away without a word to the user.
	tellAfter = time.Second
	// waitingBatches keep the publisher busy, and bound what is held of long lines.
	waitingBatches = 4
	// lastPublish is how long pub, asked to end, waits for the broker and the sources.
	lastPublish = 10 * time.Second
)

// batch is some lines of one source.
type batch = [][]byte

// publishing is one run of pub: sources, a merger of their lines, and the one that
// publishes what comes out of it.
type publishing struct {
	pubOptions
	to     publisher
	merger *fanin.Merger[batch]
	stop   chan struct{} // closed when nothing more is to be read

	done   int        // messages that were published
	unread int        // lines that were read but not published
	failed chan error // why a source ended; has room for the first
}

func newPublishing(o pubOptions) *publishing {
	p := &publishing{pubOptions: o, stop: make(chan struct{}), failed: make(chan error, 1)}
	p.merger = fanin.New(fanin.Config[batch]{
		Buffer: waitingBatches,
		Grace:  lastPublish,
		Undelivered: func(rest []batch) {
			for _, lines := range rest {
				p.unread += len(lines)
			}
		},
		OnEnd: func(_ string, err error) {
			var source *fanin.SourceError
			if !errors.As(err, &source) {
				return
			}
			select {
			case p.failed <- source.Err:
			default:
			}
		},
	})
	return p
}

// conduct runs the sources, and publishes until they have ended. Asked to stop once, it
// publishes what was read; asked twice it ends at once.
func (p *publishing) conduct(ctx context.Context, sources []fanin.Source[batch], asked <-chan os.Signal) error {
	ctx, kill := context.WithCancelCause(ctx)
	defer kill(nil)
	for i, source := range sources {
		if _, err := p.merger.Add(p.sourceName(i), source); err != nil {
			return err
		}
	}
	p.merger.Close()
	served, published := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(served)
		_ = p.merger.Serve(ctx) // OnEnd and Undelivered tell more
	}()
	go func() { published <- p.publishAll(ctx) }()
	stopped := false
	for {
		select {
		case <-asked:
			if stopped {
				kill(errInterrupted)
			}
			if !stopped {
				stopped = true
				close(p.stop)
				p.merger.Stop()
			}
		case err := <-published:
			kill(err) // no source has anybody left to read it
			<-served
			return p.verdict(err, stopped)
		}
	}
}

// verdict says why pub ended, unless all went well.
func (p *publishing) verdict(err error, stopped bool) error {
	if err == nil {
		select {
		case err = <-p.failed:
		default:
		}
	}
	switch {
	case stopped && (err == nil || errors.Is(err, errInterrupted)):
		rest := "all that was read"
		if p.unread > 0 || err != nil {
			rest = fmt.Sprintf("not all that was read: at least %d lines are missing", p.unread)
		}
		p.say("interrupted: %d messages published, which is %s", p.done, rest)
		return status(exitOther)
	case err != nil:
		return fmt.Errorf("%w (%d messages published)", err, p.done)
	}
	return nil
}

// publishAll publishes what comes until the sources have ended.
func (p *publishing) publishAll(ctx context.Context) error {
	var batches [8]batch
	var bodies [][]byte
	for {
		n, err := p.merger.RecvBatch(ctx, batches[:])
		switch {
		case errors.Is(err, fanin.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		bodies = bodies[:0]
		size := 0
		for _, body := range slices.Concat(batches[:n]...) {
			if len(bodies) > 0 && (size+len(body) > batchBytes || len(bodies) == batchCount) {
				if err := p.publish(ctx, bodies); err != nil {
					return err
				}
				bodies, size = bodies[:0], 0
			}
			bodies, size = append(bodies, body), size+len(body)
		}
		clear(batches[:])
		if err := p.publish(ctx, bodies); err != nil {
			return err
		}
	}
}

// publish publishes messages, however often it must try.
func (p *publishing) publish(ctx context.Context, bodies [][]byte) error {
	msgs := make([]millrace.Message, len(bodies))
	for i, body := range bodies {
		msgs[i].Body = body
	}
	began, told := time.Now(), false
	for wait := retryFirst; ; {
		err := p.to.Publish(ctx, p.topic, msgs...)
		switch refused := refusalIn(err); {
		case err == nil:
			if told {
				p.say("the broker takes messages again")
			}
			p.done += len(msgs)
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case refused != nil && refused.message && len(bodies) > 1:
			return p.publishSingly(ctx, bodies) // it does not say which one
		case refused != nil && refused.message && len(p.command) > 0:
			p.say("a line of %d bytes is not published: %s", len(bodies[0]), refused.reason)
			return nil
		case refused != nil && refused.message:
			return fmt.Errorf("a line of %d bytes cannot be published: %s", len(bodies[0]), refused.reason)
		case refused != nil:
			return fmt.Errorf("the broker refuses it: %s", refused.reason)
		}
		// A broker that is started anew is back soon.
		if time.Since(began) > tellAfter && !told {
			told = true
			p.say("the broker does not take messages: %s; trying again until it does", explain(err))
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, retryMost)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (p *publishing) publishSingly(ctx context.Context, bodies [][]byte) error {
	for _, body := range bodies {
		if err := p.publish(ctx, [][]byte{body}); err != nil {
			return err
		}
	}
	return nil
}

func (p *publishing) sourceName(i int) string {
	if len(p.command) == 0 {
		return "standard input"
	}
	return fmt.Sprintf("source %d", i+1)
}
