package supervise

import (
	"bytes"
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// generation is one incarnation of the worker.
type generation struct {
	*Pulse
	ctx    context.Context
	cancel context.CancelCauseFunc

	done      chan error  // the exit; has room for it
	goroutine chan []byte // "goroutine N ", which finds its stack in a dump; has room for it

	// Protected by Supervisor.mu. Both are set at most once, and only ended
	// after abandoned counts as a return.
	abandoned, ended bool
}

func newGeneration(ctx context.Context, number uint64, ttl time.Duration) *generation {
	g := &generation{
		Pulse:     newPulse(number, ttl),
		done:      make(chan error, 1),
		goroutine: make(chan []byte, 1),
	}
	g.ctx, g.cancel = context.WithCancelCause(context.WithValue(ctx, pulseKey{}, g.Pulse))
	return g
}

// call calls the worker and turns a panic into an error. A runtime.Goexit
// unwinds past it: the caller's deferred functions run, nothing else does.
func call(ctx context.Context, p *Pulse, work Func) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return work(ctx, p)
}

// goroutineHeader returns the beginning of this goroutine's header in a dump of
// all stacks, such as "goroutine 7 ".
func goroutineHeader() []byte {
	buf := make([]byte, 64)
	buf = buf[:runtime.Stack(buf, false)]
	if i := bytes.IndexByte(buf, '['); i > 0 {
		return buf[:i]
	}
	return buf
}

// stack returns where the generation's goroutine is now. It stops the world, so
// it is for the rare event of abandoning.
func (g *generation) stack() []byte {
	header := <-g.goroutine
	dump := make([]byte, 64<<10)
	for {
		n := runtime.Stack(dump, true)
		if n < len(dump) || n >= maxStackDump {
			dump = dump[:n]
			break
		}
		dump = make([]byte, 2*len(dump))
	}
	for one := range bytes.SplitSeq(dump, []byte("\n\n")) {
		if bytes.HasPrefix(one, header) {
			return bytes.Clone(one[:min(len(one), maxStackKept)])
		}
	}
	return []byte(abandonedGoroutineStack)
}
