//go:build !portable

package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/millrace/millrace/worker"
)

// process is a command that runs, with its process group, whose id is pid. One
// goroutine owns it, from start to release.
type process struct {
	*kit
	pid   int
	pidfd int // readable when the command has exited
	// Our ends of the pipes.
	stdinFD, stdoutFD, stderrFD int

	payload  []byte // what is still to be written to stdinFD
	grace    time.Duration
	stage    stage
	exited   bool
	deadline time.Time // of the stage, or of the next beat while it runs
	stopped  error     // why we stopped it; nil when we did not
}

// The tags under which the poller reports.
const (
	tagExit int32 = iota
	tagStdin
	tagStdout
	tagStderr
)

// wait returns how the command ended, once nothing of it is left but what it wrote. It
// returns an error when the command was stopped: the reason.
func (p *process) wait(ctx context.Context) (syscall.WaitStatus, error) {
	// A wake may come so late that it reaches the next command of the kit. There it
	// does nothing: see passTime.
	defer context.AfterFunc(ctx, p.poller.wake)()
	err := p.live(ctx)
	status, reapErr := p.reap()
	if err == nil {
		err = reapErr
	}
	return status, err
}

// live goes through the stages of the process until it has ended.
func (p *process) live(ctx context.Context) error {
	p.setDeadline(beatEvery)
	for !p.ended() {
		// Looked at after each change of the deadline, since that undoes a wake.
		if ctx.Err() != nil {
			p.stop(context.Cause(ctx))
		}
		events, err := p.poller.wait()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			worker.Beat(ctx)
			p.passTime()
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range events {
			p.react(e.Fd)
		}
		if p.exited && p.stage == running && !p.ended() {
			p.enter(lingering)
		}
	}
	return p.stopped
}

// ended says that the command has exited and all its output is read.
func (p *process) ended() bool { return p.exited && p.stdoutFD == none && p.stderrFD == none }

// react does what is to be done when something is ready.
func (p *process) react(tag int32) {
	switch tag {
	case tagExit:
		p.exited = true
		p.poller.remove(p.pidfd) // it stays readable
		p.close(&p.stdinFD)
	case tagStdin:
		p.feed()
	case tagStdout:
		p.readStdout()
	case tagStderr:
		p.readStderr()
	}
}

// feed writes what the command takes of its payload. It says whether that was all,
// and closes the pipe then.
func (p *process) feed() (done bool) {
	for len(p.payload) > 0 {
		n, err := syscall.Write(p.stdinFD, p.payload)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if errors.Is(err, syscall.EAGAIN) {
			return false
		}
		if err != nil {
			break // EPIPE: it has read enough, as head does. That is its own affair.
		}
		p.payload = p.payload[n:]
	}
	p.close(&p.stdinFD)
	return true
}

// readStdout takes what has come, or the end.
func (p *process) readStdout() {
	n := p.read(&p.stdoutFD, p.stdout.room())
	p.stdout.add(n)
	if p.stdout.over {
		p.stop(worker.Permanent(fmt.Errorf("%w: the limit is %d bytes", ErrOutputTooLarge, p.stdout.limit)))
	}
}

func (p *process) readStderr() {
	n := p.read(&p.stderrFD, p.chunk)
	p.stderr.add(p.chunk[:n])
}

// read reads once, and closes the pipe at its end.
func (p *process) read(fd *int, into []byte) int {
	n, err := syscall.Read(*fd, into)
	switch {
	case errors.Is(err, syscall.EINTR):
		return 0
	case err != nil || n == 0:
		p.close(fd)
		return 0
	}
	return n
}

// stop begins to end the group, unless that was begun. The reason is what Handle
// returns.
func (p *process) stop(reason error) {
	if p.stage < terminating {
		p.stopped = reason
		p.enter(terminating)
	}
}

// passTime does what is due at the deadline of the stage.
func (p *process) passTime() {
	switch early := time.Until(p.deadline) > 0; {
	case early:
		// A wake, which undid the deadline. Whether it was for us is seen elsewhere.
		p.poller.setDeadline(p.deadline)
	case p.stage == running:
		p.setDeadline(beatEvery)
	case p.stage == lingering:
		p.stop(ErrLeftBehind)
	case p.stage == terminating || !p.exited:
		p.enter(killing)
	default:
		p.close(&p.stdoutFD)
		p.close(&p.stderrFD)
	}
}

// enter begins a stage, which has the grace as its time.
func (p *process) enter(s stage) {
	p.stage = s
	switch s {
	case terminating:
		p.signal(syscall.SIGTERM)
		p.signal(syscall.SIGCONT) // one that is stopped would not notice
	case killing:
		p.signal(syscall.SIGKILL)
	}
	p.setDeadline(p.grace)
}

func (p *process) setDeadline(in time.Duration) {
	p.deadline = time.Now().Add(in)
	p.poller.setDeadline(p.deadline)
}

// signal reaches every process of the group.
func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.pid, s) }
