package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// sourceGrace is how long a source's process group has between SIGTERM and SIGKILL, and
// how long what it leaves behind may hold its output.
const sourceGrace = 2 * time.Second

// sourceProcess is one run of a source's command.
type sourceProcess struct {
	path      string
	args      []string
	delimiter byte
}

// sourceEnd is how the output of a source ended.
type sourceEnd struct {
	last []byte // a line without an end
	err  error
}

// run runs the command, emits the lines that it writes, and returns when its process group
// is gone: nil if it exited with status 0. When the context ends the command is told to
// end, and what it says until then is emitted too. A last line that has no end counts if
// the command succeeded.
func (s *sourceProcess) run(ctx context.Context, emit func(batch) error) error {
	output, input, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := &exec.Cmd{Path: s.path, Args: s.args, Stdout: input, Stderr: os.Stderr, SysProcAttr: sourceAttributes()}
	err = cmd.Start()
	_ = input.Close()
	if err != nil {
		return errors.Join(fmt.Errorf("cannot start %s: %s", s.args[0], sentence(err)), output.Close())
	}
	read := make(chan sourceEnd, 1)
	go func() {
		last, err := eachBatch(output, s.delimiter, lineLimit, emit)
		_ = output.Close() // whoever still writes should notice
		read <- sourceEnd{last, err}
	}()
	end, err := s.await(ctx, cmd, output, read)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(end.err, os.ErrClosed):
		return errors.New("a process that it left behind holds its output open")
	case end.err != nil:
		return end.err
	case err != nil && len(end.last) > 0:
		return fmt.Errorf("%w; its last line has no end and is not published", err)
	case err != nil:
		return err
	case len(end.last) > 0:
		return emit(batch{end.last})
	}
	return nil
}

// await waits until the command has exited and its output has ended, and sees to it that
// both happen when the context ends or the output is read no more. It returns how the
// output ended and how the command did.
func (s *sourceProcess) await(ctx context.Context, cmd *exec.Cmd, output *os.File, read <-chan sourceEnd) (end sourceEnd, err error) {
	group := -cmd.Process.Pid
	exited, reap := awaitExit(cmd)
	told := ctx.Done()
	var (
		late   <-chan time.Time
		killed bool
	)
	for exited != nil || read != nil {
		select {
		case <-told:
			told = nil
			_ = syscall.Kill(group, syscall.SIGTERM)
			late = time.After(sourceGrace)
		case <-exited:
			exited = nil
			if late == nil {
				late = time.After(sourceGrace)
			}
		case end = <-read:
			read = nil
			if end.err != nil {
				_ = syscall.Kill(group, syscall.SIGTERM)
				late = time.After(sourceGrace)
			}
		case <-late:
			_ = syscall.Kill(group, syscall.SIGKILL)
			if killed {
				_ = output.Close() // it is held by somebody who has left the group
			}
			killed, late = true, time.After(sourceGrace)
		}
	}
	_ = syscall.Kill(group, syscall.SIGKILL) // what the command has left behind
	return end, reap()
}
