package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// together is how long signals that come are one request with the first one. A process can
// be asked once and get several: timeout sends its signal to the process and to its group,
// and a parent passes on the Ctrl-C that the terminal has sent to both. Nobody asks twice by
// hand in so short a time, and a program that means it waits for the answer to the first.
const together = 100 * time.Millisecond

// signals are those that ask this process to stop.
type signals struct {
	stop     <-chan os.Signal // requests
	raw      chan os.Signal
	pipe     chan os.Signal
	over     chan struct{}
	requests sync.WaitGroup
}

// catchSignals keeps signals from ending the process, which would leave commands
// behind. What the process was told to ignore, as by nohup, it goes on to ignore.
func catchSignals() *signals {
	s := &signals{raw: make(chan os.Signal, 4), pipe: make(chan os.Signal, 1), over: make(chan struct{})}
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(sig) {
			signal.Notify(s.raw, sig)
		}
	}
	stop := make(chan os.Signal, cap(s.raw))
	s.stop = stop
	s.requests.Go(func() { forwardRequests(s.raw, stop, s.over) })
	// Caught but not ignored: commands would inherit that. Writing then returns EPIPE.
	signal.Notify(s.pipe, syscall.SIGPIPE)
	// Commands do inherit this, and are meant to: one that asks the terminal, as for a
	// password, fails at once. It would be stopped, being in the background there, and
	// nobody would know why nothing happens.
	signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU)
	return s
}

func (s *signals) release() {
	signal.Stop(s.raw)
	close(s.over)
	s.requests.Wait()
	signal.Stop(s.pipe)
	signal.Reset(syscall.SIGTTIN, syscall.SIGTTOU)
}

// context returns a context that ends with errInterrupted when this process is asked to
// stop. end releases it.
func (s *signals) context(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-s.stop:
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel(nil)
		watching.Wait()
	}
}

// forwardRequests passes signals on until over is closed: the first one, with those that come
// together with it, as one request, when it is known that no more do; later ones at once.
// SIGHUP counts more than others: then nobody is there any more to ask again.
func forwardRequests(raw <-chan os.Signal, requests chan<- os.Signal, over <-chan struct{}) {
	var first os.Signal
	var settled <-chan time.Time
	asked := false
	request := func(sig os.Signal) {
		select {
		case requests <- sig:
		default: // there are enough of them
		}
	}
	for {
		select {
		case sig := <-raw:
			switch {
			case asked:
				request(sig)
			case first == nil:
				first, settled = sig, time.After(together)
			case sig == syscall.SIGHUP:
				first = sig
			}
		case <-settled:
			settled, asked = nil, true
			request(first)
		case <-over:
			return
		}
	}
}
