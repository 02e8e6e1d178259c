// Command heartbeats shows supervised sources fanned in to one stream. Three thermometers
// report; each report is a heartbeat. One hangs and one dies: both are noticed within the
// TTL and replaced, and the stream goes on. What the one that hung says when it wakes up,
// long after it was replaced, never arrives. All goroutines end with the context.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/millrace/millrace/fanin"
	"github.com/millrace/millrace/supervise"
)

const (
	every = 100 * time.Millisecond // a source reports this often
	ttl   = 500 * time.Millisecond // and is replaced when it has been silent for so long
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	err := run(ctx, os.Stdout)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "heartbeats:", err)
		os.Exit(1)
	}
}

// reading is one value of the stream.
type reading struct {
	source     string
	generation uint64 // which incarnation of the source says so
	number     int
}

// source is a thermometer. After three readings its first generation does what fails
// says.
type source struct {
	name  string
	fails func() error
}

func run(ctx context.Context, out io.Writer) error {
	log := &printer{out: out, start: time.Now()}
	merger := fanin.New(fanin.Config[reading]{
		Grace:       -1, // the reader below stops with the context, and wants no more
		Undelivered: func([]reading) {},
	})
	for _, s := range []source{
		{"steady", func() error { return nil }},
		{"hangs", func() error {
			time.Sleep(3 * ttl) // it does not look at its context: nothing can stop it
			log.printf("hangs wakes up and reports, although it was replaced")
			return nil
		}},
		{"dies", func() error { panic("out of mercury") }},
	} {
		if err := s.join(ctx, merger, log); err != nil {
			return err
		}
	}
	served := make(chan error, 1)
	go func() { served <- merger.Serve(ctx) }()
	for r := range merger.All(ctx) {
		log.printf("%s, generation %d: reading %d", r.source, r.generation, r.number)
	}
	err := <-served
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = nil // how this program is meant to end
	}
	log.printf("the stream has ended, and with it all sources")
	return err
}

// join adds the source to the merger: a supervisor that runs its generations, one after
// the other, and lets through what the living one says.
func (s source) join(ctx context.Context, merger *fanin.Merger[reading], log *printer) error {
	supervisor := supervise.New(
		func(ctx context.Context, pulse *supervise.Pulse) error {
			for n := 1; ; n++ {
				select {
				case <-time.After(every):
				case <-ctx.Done():
					return context.Cause(ctx)
				}
				if pulse.Generation() == 1 && n == 4 {
					if err := s.fails(); err != nil {
						return err
					}
				}
				r := reading{s.name, pulse.Generation(), n}
				if err := supervise.Emit(ctx, pulse, r, merger.Emit); err != nil {
					return err
				}
			}
		},
		supervise.Config{
			Name: s.name, TTL: ttl, Grace: 2 * every,
			Backoff: supervise.Backoff{First: every},
			OnEvent: func(e supervise.Event) {
				if e.Err != nil && ctx.Err() == nil {
					log.printf("%s, generation %d: %v: %v", e.Name, e.Generation, e.Kind, e.Err)
				}
			},
		})
	_, err := merger.Add(s.name, func(ctx context.Context, _ fanin.Emit[reading]) error {
		return supervisor.Serve(ctx)
	})
	return err
}

// printer writes lines with the time since the start.
type printer struct {
	mu    sync.Mutex // guards out
	out   io.Writer
	start time.Time
}

func (p *printer) printf(format string, args ...any) {
	at := time.Since(p.start).Round(time.Millisecond)
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.out, "%6s  %s\n", at, fmt.Sprintf(format, args...))
}
