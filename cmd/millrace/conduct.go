package main

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/millrace/millrace/worker"
)

const (
	// lastWord is how long results that are there may take to be written when
	// everything else has ended.
	lastWord = time.Second
	// quiet is how long no result must have come for there to be no more.
	quiet = 500 * time.Millisecond
)

// conduct runs the job to its end and returns why it ended early, nil when it did
// not. No command runs any more when it returns.
//
// Asked to stop once, it reads no more inputs, lets the running tasks finish and shows
// their results. Asked twice, or when something breaks, it ends everything at once.
func (m *mapping) conduct(ctx context.Context, signals *signals) (why error) {
	ctx, kill := context.WithCancelCause(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer kill(nil)
	var (
		serving  = m.serve(ctx)
		results  = make(chan error, 1)
		drained  = make(chan error, 1)
		settled  = make(chan struct{})
		tooLate  <-chan time.Time
		stopping bool
	)
	go func() { results <- m.showResults(ctx) }()
	if m.worker == nil {
		helpers.Go(func() { m.explainSilence(ctx) })
	}
	stop := func(reason error) {
		if stopping {
			return
		}
		stopping, why = true, reason
		m.in.end()
		if m.worker != nil {
			helpers.Go(func() { drained <- m.worker.Drain(ctx) })
		}
	}
	for results != nil || serving != nil {
		select {
		case s := <-signals.stop:
			again := stopping
			stop(errInterrupted)
			// Of workers elsewhere it is not known what runs and what waits: all is cancelled.
			if again || m.worker == nil || s == syscall.SIGHUP {
				kill(errInterrupted)
			} else {
				m.say("no more inputs are read, and the running tasks finish; once more kills them")
			}
		case <-m.halted:
			stop(errHalted)
		case err := <-drained:
			if errors.Is(err, worker.ErrNotServing) && serving != nil {
				kill(why) // it had not even begun
			}
		case err := <-serving:
			serving = nil
			switch {
			case ctx.Err() != nil:
				tooLate = time.After(lastWord)
			case err == nil:
				helpers.Go(func() { m.settle(ctx); close(settled) })
			default:
				why = err
				kill(err)
			}
		case <-settled:
			settled = nil
			kill(errSettled)
			tooLate = time.After(lastWord)
		case err := <-results:
			results = nil
			switch {
			case err == nil && !m.in.cut.Load():
				why = nil // whatever was asked for: it had all been done
			case why == nil:
				why = err
			}
			kill(why)
		case <-tooLate:
			return why // somebody does not read our standard output
		}
	}
	return why
}

// serve runs the worker; nil when the workers are elsewhere.
func (m *mapping) serve(ctx context.Context) chan error {
	if m.worker == nil {
		return nil
	}
	serving := make(chan error, 1)
	go func() { serving <- m.worker.Serve(ctx) }()
	return serving
}

// settle waits until the results that the worker, which has ended, published are
// shown. In order, one that comes after a task that was not finished never is: then it
// waits until nothing more is shown.
func (m *mapping) settle(ctx context.Context) {
	const step = 20 * time.Millisecond
	counts := m.worker.Status().Counts
	last := int64(-1)
	for still := time.Duration(0); still < quiet; still += step {
		shown := m.succeeded.Load() + m.failed.Load()
		if shown >= counts.Done+counts.Failed && !m.showing.Load() {
			return
		}
		if shown != last || m.showing.Load() {
			last, still = shown, 0
		}
		select {
		case <-time.After(step):
		case <-ctx.Done():
			return
		}
	}
}
