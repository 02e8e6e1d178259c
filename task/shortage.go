package task

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/millrace/millrace/worker"
)

// How long a replica waits before it tries once more to start a command for which the
// system had not enough of something.
const (
	shortageMinDelay = 10 * time.Millisecond
	shortageMaxDelay = time.Second
)

// isShortage says that the system had not enough processes, files or memory to start a
// command, which says nothing about the command.
func isShortage(err error) bool {
	for _, short := range []error{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, short) {
			return true
		}
	}
	return false
}

// launch starts the command. When that takes more than the system has left, it waits as
// long as other commands of this handler run: what they hold comes free. So more
// replicas than the system has room for do not fail tasks, they take turns.
func (c *Command) launch(ctx context.Context, path string, argv []string, payload []byte) (*process, error) {
	for delay := shortageMinDelay; ; delay = min(2*delay, shortageMaxDelay) {
		p, err := c.start(path, argv, payload)
		if err == nil {
			c.running.Add(1)
			return p, nil
		}
		if !isShortage(err) || c.running.Load() == 0 {
			return nil, c.startError(path, argv, err)
		}
		worker.Beat(ctx)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, worker.ErrTimeout) {
				return nil, cause
			}
			return nil, c.startError(path, argv, err) // no time was spent on the task
		}
	}
}
