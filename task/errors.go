package task

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

var (
	// ErrOutputTooLarge is returned when a command wrote more on its standard output
	// than Config.MaxOutput. It was killed, and is not run again.
	ErrOutputTooLarge = errors.New("task: the command wrote more than a result can hold")
	// ErrLeftBehind is returned when a command exited and left processes in its group
	// that held its output open for longer than the grace. They were killed. What they
	// were about to write is unknown, so what was written is not taken for the result.
	ErrLeftBehind = errors.New("task: the command exited but left processes behind that held its output open")
)

// ExitError is returned when a command ran and failed.
type ExitError struct {
	// Code is the exit code; 128 plus the signal's number, as in shells, when a
	// signal ended the command.
	Code int
	// Signal is the signal that ended the command; 0 when it exited by itself.
	Signal syscall.Signal
	// Stderr is the end of what the command wrote on standard error, at most 4 KiB.
	Stderr []byte
}

// Error is one line unless Stderr has several.
func (e *ExitError) Error() string {
	what := fmt.Sprintf("exit status %d", e.Code)
	if e.Signal != 0 {
		what = fmt.Sprintf("killed by signal %d (%s)", int(e.Signal), unix.SignalName(e.Signal))
	}
	if stderr := bytes.TrimSpace(e.Stderr); len(stderr) > 0 {
		return what + ": " + string(stderr)
	}
	return what
}

// ExitCode returns e.Code.
func (e *ExitError) ExitCode() int { return e.Code }

// StartError is returned when a command could not be started and never will be.
type StartError struct {
	// Name is the command as it was written.
	Name string
	// Code is the exit code a shell would report: 127 when there is no such command,
	// 126 when there is one that cannot be run.
	Code int
	// Reason is the end of a sentence that begins with the name.
	Reason string
	// Err is what the system said.
	Err error
}

// Error is one line that says what is wrong with the command.
func (e *StartError) Error() string { return fmt.Sprintf("%s: %s", e.Name, e.Reason) }

// ExitCode returns e.Code.
func (e *StartError) ExitCode() int { return e.Code }

// Unwrap returns e.Err.
func (e *StartError) Unwrap() error { return e.Err }
