//go:build unix && (!linux || portable)

package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/millrace/millrace/worker"
)

// process is a command that runs, where there is neither epoll nor a descriptor for a
// process: with a goroutine for each pipe and one that waits for the exit. Its stages
// are the same. (On Linux, -tags portable tests it.)
//
// Two things are weaker. The command is reaped as soon as it exits; its process id
// stays taken only as long as somebody is left in its group. And the kernel does not
// kill it when this process is killed.
type process struct {
	stdout capture
	stderr tail

	leader  *os.Process
	outputs [2]*os.File // our ends of standard output and standard error
	input   *os.File    // and of standard input, nil without one
	payload []byte
	grace   time.Duration

	stage   stage
	timer   *time.Timer // of the stage
	stopped error       // why we stopped it; nil when we did not
}

// start runs the command at path. The caller waits for it.
func (c *Command) start(path string, argv []string, payload []byte) (p *process, err error) {
	p = &process{payload: payload, grace: c.cfg.Grace}
	p.stdout.limit, p.stderr.limit = c.cfg.MaxOutput, maxStderr
	files := []*os.File{c.null, nil, nil} // the command's ends
	defer func() {
		for i, file := range files {
			if file != nil && (i > 0 || c.cfg.Stdin) {
				_ = file.Close()
			}
		}
		if err != nil {
			p.release()
		}
	}()
	if c.cfg.Stdin {
		files[0] = nil
		if files[0], p.input, err = os.Pipe(); err != nil {
			return nil, err
		}
	}
	for i := range p.outputs {
		if p.outputs[i], files[1+i], err = os.Pipe(); err != nil {
			return nil, err
		}
	}
	p.leader, err = os.StartProcess(path, argv, &os.ProcAttr{
		Env: c.cfg.Env, Files: files, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	return p, err
}

// wait returns how the command ended, once nothing of it is left but what it wrote. It
// returns an error when the command was stopped: the reason.
func (p *process) wait(ctx context.Context) (syscall.WaitStatus, error) {
	var helpers, readers sync.WaitGroup
	over, complete := make(chan struct{}, 1), make(chan struct{})
	exit := make(chan *os.ProcessState, 1)
	var waitErr error
	readers.Go(func() { p.readStdout(over) })
	readers.Go(func() { _, _ = io.Copy(&p.stderr, p.outputs[1]) })
	helpers.Go(func() { readers.Wait(); close(complete) })
	helpers.Go(p.feed)
	helpers.Go(func() {
		var state *os.ProcessState
		state, waitErr = p.leader.Wait()
		exit <- state
	})
	p.timer = time.NewTimer(beatEvery)
	defer p.timer.Stop()

	var state *os.ProcessState
	exited := false
	for ended := ctx.Done(); !exited || complete != nil; {
		select {
		case <-ended:
			ended = nil
			p.stop(context.Cause(ctx))
		case <-over:
			p.stop(worker.Permanent(fmt.Errorf("%w: the limit is %d bytes", ErrOutputTooLarge, p.stdout.limit)))
		case state = <-exit:
			exited = true
			if p.input != nil {
				_ = p.input.Close()
			}
			if p.stage == running && complete != nil {
				p.enter(lingering)
			}
		case <-complete:
			complete = nil
		case <-p.timer.C:
			worker.Beat(ctx)
			p.passTime(exited)
		}
	}
	p.signal(syscall.SIGKILL)
	helpers.Wait()
	if waitErr != nil {
		return 0, errors.Join(p.stopped, waitErr)
	}
	return state.Sys().(syscall.WaitStatus), p.stopped
}

func (p *process) readStdout(over chan<- struct{}) {
	for {
		n, err := p.outputs[0].Read(p.stdout.room())
		if err != nil {
			return
		}
		if p.stdout.add(n); p.stdout.over {
			select {
			case over <- struct{}{}:
			default:
			}
		}
	}
}

// feed writes the payload. The command need not take all of it.
func (p *process) feed() {
	if p.input != nil {
		_, _ = p.input.Write(p.payload)
		_ = p.input.Close()
	}
}

// stop begins to end the group, unless that was begun.
func (p *process) stop(reason error) {
	if p.stage < terminating {
		p.stopped = reason
		p.enter(terminating)
	}
}

// passTime does what is due at the deadline of the stage.
func (p *process) passTime(exited bool) {
	switch {
	case p.stage == running:
		p.timer.Reset(beatEvery)
	case p.stage == lingering:
		p.stop(ErrLeftBehind)
	case p.stage == terminating || !exited:
		p.enter(killing)
	default: // who has escaped the group holds the pipes: leave them to it
		for _, output := range p.outputs {
			_ = output.SetReadDeadline(time.Unix(1, 0))
		}
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
	p.timer.Reset(p.grace)
}

// signal reaches every process of the group.
func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.leader.Pid, s) }

// release closes what is open.
func (p *process) release() {
	for _, file := range []*os.File{p.input, p.outputs[0], p.outputs[1]} {
		if file != nil {
			_ = file.Close()
		}
	}
}
