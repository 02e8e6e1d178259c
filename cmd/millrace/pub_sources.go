package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/fanin"
	"github.com/millrace/millrace/supervise"
)

// lineLimit is the most bytes of one line: what a broker can be made to take.
const lineLimit = maxMessage

// newSources returns what the lines come from. Nothing runs yet.
func (p *publishing) newSources() ([]fanin.Source[batch], error) {
	if len(p.command) == 0 {
		return []fanin.Source[batch]{p.readStdin}, nil
	}
	path, err := exec.LookPath(p.command[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %s", p.command[0], sentence(err))
	}
	var sources []fanin.Source[batch]
	for number := range p.sources {
		sources = append(sources, p.supervised(number+1, path))
	}
	return sources, nil
}

func (p *publishing) delimiter() byte {
	if p.null {
		return 0
	}
	return '\n'
}

// readStdin emits the lines of standard input.
func (p *publishing) readStdin(ctx context.Context, emit fanin.Emit[batch]) error {
	// What was read is emitted, also when pub is asked to end meanwhile.
	emitAll := func(lines batch) error { return emit(context.WithoutCancel(ctx), lines) }
	last, err := eachBatch(newStoppable(os.Stdin, p.stop), p.delimiter(), lineLimit, emitAll)
	switch {
	case errors.Is(err, errStopped):
		return nil
	case err != nil:
		return fmt.Errorf("standard input: %w", err)
	case len(last) > 0:
		return emitAll(batch{last})
	}
	return nil
}

// supervised is a source that runs the command, and starts it again when it fails or is
// silent.
func (p *publishing) supervised(number int, path string) fanin.Source[batch] {
	args := make([]string, len(p.command))
	for i, arg := range p.command {
		args[i] = strings.ReplaceAll(arg, "{%}", strconv.Itoa(number))
	}
	name := p.sourceName(number - 1)
	return func(ctx context.Context, emit fanin.Emit[batch]) error {
		work := func(ctx context.Context, pulse *supervise.Pulse) error {
			s := &sourceProcess{path: path, args: args, delimiter: p.delimiter()}
			return s.run(ctx, func(lines batch) error {
				return supervise.Emit(context.WithoutCancel(ctx), pulse, lines, emit)
			})
		}
		return supervise.New(work, supervise.Config{
			Name:    name,
			TTL:     p.ttl,
			Grace:   3 * sourceGrace, // the process is killed well before
			Restart: supervise.Transient,
			// The waits between restarts grow: that is limit enough.
			Backoff:   supervise.Backoff{Max: 5 * time.Second},
			Intensity: supervise.Intensity{Max: math.MaxInt},
			OnEvent:   func(e supervise.Event) { p.tell(name, e) },
		}).Serve(ctx)
	}
}

// tell tells the user what becomes of a source.
func (p *publishing) tell(name string, e supervise.Event) {
	switch e.Kind {
	case supervise.Silent:
		p.say("%s wrote no line for %v: it is killed", name, p.ttl)
	case supervise.Exited:
		if e.Err == nil || errors.Is(e.Err, supervise.ErrSilent) || errors.Is(e.Err, fanin.ErrStopped) || errors.Is(e.Err, errInterrupted) {
			return // nothing, or nothing new
		}
		p.say("%s: %s", name, explain(e.Err))
	case supervise.Restarting:
		p.say("%s is started again in %v", name, e.Delay.Round(time.Millisecond))
	case supervise.Abandoned:
		p.say("%s cannot be killed, and is left alone", name)
	}
}
