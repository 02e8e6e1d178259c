package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
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
	// waitingBatches keep the publisher busy, and bound what is held of long lines.
	waitingBatches = 4
	// lastPublish is how long pub, asked to end, waits for the broker and the sources: less
	// than those wait who kill it then.
	lastPublish = 5 * time.Second
)

// batch is some lines of one source.
type batch = [][]byte

// publishing is one run of pub: sources, a merger of their lines, and the one that
// publishes what comes out of it.
type publishing struct {
	pubOptions
	to      millrace.Broker
	merger  *fanin.Merger[batch]
	trouble trouble
	stop    chan struct{} // closed when nothing more is to be read

	read   atomic.Int64 // lines that the sources have emitted
	done   int          // of them, messages that were published
	left   int          // and those that were left out, with a word to the user
	failed chan error   // why a source ended; has room for the first
}

func newPublishing(o pubOptions) *publishing {
	p := &publishing{pubOptions: o, stop: make(chan struct{}), failed: make(chan error, 1)}
	p.trouble.say = p.say
	p.merger = fanin.New(fanin.Config[batch]{
		Buffer: waitingBatches,
		Grace:  lastPublish,
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

// counted is the source, with what it emits counted.
func (p *publishing) counted(source fanin.Source[batch]) fanin.Source[batch] {
	return func(ctx context.Context, emit fanin.Emit[batch]) error {
		return source(ctx, func(ctx context.Context, lines batch) error {
			p.read.Add(int64(len(lines)))
			return emit(ctx, lines)
		})
	}
}

// conduct runs the sources, and publishes until they have ended. Asked to stop once, it
// publishes what was read, if the broker takes it in time; asked twice it ends at once.
func (p *publishing) conduct(ctx context.Context, sources []fanin.Source[batch], asked <-chan os.Signal) error {
	ctx, kill := context.WithCancelCause(ctx)
	defer kill(nil)
	for i, source := range sources {
		if _, err := p.merger.Add(p.sourceName(i), p.counted(source)); err != nil {
			return err
		}
	}
	p.merger.Close()
	served, published := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(served)
		_ = p.merger.Serve(ctx) // OnEnd tells more
	}()
	go func() { published <- p.publishAll(ctx) }()
	var late <-chan time.Time
	stopped := false
	for {
		select {
		case <-asked:
			if stopped {
				kill(errInterrupted)
			}
			if !stopped {
				stopped = true
				late = time.After(lastPublish)
				close(p.stop)
				p.merger.Stop()
			}
		case <-late:
			kill(errInterrupted)
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
		p.say("interrupted: %s", p.account())
		return status(exitOther)
	case err != nil:
		return fmt.Errorf("%w (%s)", err, p.account())
	}
	return nil
}

// account says what became of what was read.
func (p *publishing) account() string {
	done := count(p.done, "message published", "messages published")
	if missing := int(p.read.Load()) - p.done - p.left; missing > 0 {
		return done + "; " + count(missing, "line was", "lines were") + " read but not published"
	}
	return done + ", which is all that was read"
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

func (p *publishing) sourceName(i int) string {
	if len(p.command) == 0 {
		return "standard input"
	}
	return fmt.Sprintf("source %d", i+1)
}
