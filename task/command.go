package task

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/millrace/millrace/worker"
)

const (
	// HeaderStderr is in a result: the end of what the command wrote on standard
	// error, at most 64 KiB. It is absent when the command wrote nothing.
	HeaderStderr = "stderr"
	// HeaderStdout is in a result that is an error: what the command wrote on standard
	// output before it failed. It is absent when that was nothing, or too much.
	HeaderStdout = "stdout"
)

// The defaults of Config, and what is kept of standard error.
const (
	// DefaultGrace is that of Config.Grace.
	DefaultGrace = 2 * time.Second
	// DefaultMaxOutput is that of Config.MaxOutput: what brokers take as a message
	// by default, less room for headers.
	DefaultMaxOutput = 63 << 20

	maxStderr      = 64 << 10 // in HeaderStderr
	maxErrorStderr = 4 << 10  // in an ExitError
)

// Config is how a command is run. The zero value is usable.
type Config struct {
	// Stdin passes the payload on the command's standard input, which else is
	// /dev/null. Replacement strings still work.
	Stdin bool
	// Sources is how many sources of inputs a task combines; its payload then holds
	// one input of each, with NUL bytes between them. 0 means 1: the payload is the
	// input.
	Sources int
	// Grace is how long a command's process group has between SIGTERM and SIGKILL,
	// and how long what it leaves behind may hold its output. 0 means DefaultGrace.
	Grace time.Duration
	// MaxOutput is the most bytes of standard output that are a result. 0 means
	// DefaultMaxOutput.
	MaxOutput int
	// Env is the environment, as in exec.Cmd. nil means this process's, as it is
	// when New is called.
	Env []string
}

// Command is a worker's handler that runs a command for each task.
type Command struct {
	template *Template
	cfg      Config
	null     *os.File // /dev/null, the standard input when Config.Stdin is not set
	nullFD   int
	path     atomic.Pointer[string] // where the command was found; nil: not yet
	running  atomic.Int64           // how many processes there are
}

var _ worker.Handler = (*Command)(nil)

// New returns a handler that runs the command line argv, in which replacement
// strings stand for the input: see Template. When there is none and Config.Stdin is
// not set, the input is appended as the last argument. Returns ErrNoCommand when argv
// is empty. Whether the command exists is seen by Check, and by each task.
func New(argv []string, cfg Config) (*Command, error) {
	template, err := Parse(argv, cfg.Sources)
	if err != nil {
		return nil, err
	}
	if !template.Replaces() && !cfg.Stdin {
		template.appendInput()
	}
	if cfg.Grace <= 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.MaxOutput <= 0 {
		cfg.MaxOutput = DefaultMaxOutput
	}
	if cfg.Env == nil {
		cfg.Env = os.Environ()
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("task: %w", err)
	}
	return &Command{template: template, cfg: cfg, null: null, nullFD: int(null.Fd())}, nil
}

// Prefetch tells the worker to receive a task only when a replica is free to run it.
func (c *Command) Prefetch() bool { return false }

// Check returns a *StartError when the command cannot be found or is not executable.
// It returns nil when that depends on the input.
func (c *Command) Check() error {
	name, fixed := c.template.name()
	if !fixed {
		return nil
	}
	_, err := c.lookup(name)
	return err
}

// Expand returns the command line that Handle would run.
func (c *Command) Expand(in Input) ([]string, error) { return c.template.Expand(in) }

// Handle runs the command for one task and returns what it wrote on standard output.
//
// Returns the context's cause when the context ended, an *ExitError when the command
// failed, a *StartError, ErrNUL, or an error that wraps ErrSources, ErrOutputTooLarge
// or ErrLeftBehind. Those that would come again are permanent. That somebody else
// killed the command with SIGKILL, and that the system had not enough processes, files
// or memory to start it, says nothing about the task: it is given back, and burns no
// retry. While other commands of c run, it waits for what these hold.
func (c *Command) Handle(ctx context.Context, t *worker.Task) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	argv, err := c.template.Expand(Input{Payload: t.Payload, Number: taskNumber(t.ID), Slot: t.Replica})
	if err != nil {
		return nil, worker.Permanent(err)
	}
	path, err := c.lookup(argv[0])
	if err != nil {
		return nil, worker.Permanent(err)
	}
	p, err := c.launch(ctx, path, argv, t.Payload)
	if err != nil {
		return nil, err
	}
	defer c.running.Add(-1)
	defer p.release()
	status, err := p.wait(ctx)
	if stderr := p.stderr.text(); stderr != "" {
		t.Reply = t.Reply.Append(HeaderStderr, stderr)
	}
	if err == nil && status == 0 {
		return p.stdout.take(), nil
	}
	if !p.stdout.over && len(p.stdout.buf) > 0 {
		t.Reply = t.Reply.Append(HeaderStdout, string(p.stdout.buf))
	}
	switch {
	case err != nil:
		return nil, err
	case status.Signal() == syscall.SIGKILL:
		return nil, worker.Redeliver(p.exitError(status))
	default:
		return nil, p.exitError(status)
	}
}

// exitError is what became of a command that failed and was not stopped by us.
func (p *process) exitError(status syscall.WaitStatus) error {
	e := &ExitError{Code: status.ExitStatus(), Stderr: append([]byte(nil), p.stderr.last(maxErrorStderr)...)}
	if status.Signaled() {
		e.Signal = status.Signal()
		e.Code = 128 + int(e.Signal)
	}
	return e
}

// lookup finds the command as a shell does. Where it was found is remembered as long
// as it cannot depend on the input.
func (c *Command) lookup(name string) (string, error) {
	if path := c.path.Load(); path != nil {
		return *path, nil
	}
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
	case errors.Is(err, exec.ErrDot):
		return "", &StartError{name, 127, "command found only in the current directory; write ./" + name, err}
	case errors.Is(err, fs.ErrPermission):
		return "", &StartError{name, 126, "not executable", err}
	case strings.Contains(name, "/"):
		return "", notRunnable(name, name, err)
	default:
		return "", &StartError{name, 127, "command not found", err}
	}
	if _, fixed := c.template.name(); fixed {
		c.path.Store(&path)
	}
	return path, nil
}

// startError says what it means that the command could not be started.
func (c *Command) startError(path string, argv []string, err error) error {
	c.path.Store(nil) // it may have moved
	name := argv[0]
	switch {
	case errors.Is(err, syscall.E2BIG):
		size := 0
		for _, arg := range argv {
			size += len(arg) + 1
		}
		return worker.Permanent(&StartError{name, 126, fmt.Sprintf(
			"its arguments are too long for the kernel (%d bytes); pass the input on standard input (--stdin)", size), err})
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.ENOTDIR):
		return worker.Permanent(notRunnable(name, path, err))
	}
	if isShortage(err) {
		return worker.Redeliver(fmt.Errorf("cannot start %s: %w", name, err))
	}
	return fmt.Errorf("cannot start %s: %w", name, err)
}

// notRunnable explains why a command whose path is known cannot be run.
func notRunnable(name, path string, err error) *StartError {
	info, statErr := os.Stat(path)
	switch {
	case errors.Is(statErr, fs.ErrPermission):
		return &StartError{name, 126, "its directory may not be searched", err}
	case statErr != nil:
		return &StartError{name, 127, "no such file", err}
	case info.IsDir():
		return &StartError{name, 126, "is a directory", err}
	case errors.Is(err, fs.ErrNotExist):
		return &StartError{name, 126, "its interpreter does not exist (see its first line)", err}
	case errors.Is(err, syscall.ENOEXEC):
		return &StartError{name, 126, "neither a program nor a script whose first line begins with #!", err}
	default:
		return &StartError{name, 126, "not executable", err}
	}
}

// name returns the command's name, and whether it is the same for every input.
func (t *Template) name() (name string, fixed bool) {
	first := t.words[0]
	if len(first) == 1 && first[0].kind == literal {
		return first[0].text, true
	}
	return "", false
}

// taskNumber reads the position of a task in its job, from 1, off its request id,
// which ends with the position from 0. It is 0 for a task that is part of no job.
func taskNumber(id string) uint64 {
	index, err := strconv.ParseUint(id[strings.LastIndexByte(id, '-')+1:], 10, 64)
	if err != nil {
		return 0
	}
	return index + 1
}
