//go:build !portable

package task

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// none is in the place of a file descriptor that is not open.
const none = -1

// kit is what running a command takes and the next command can use again.
type kit struct {
	poller *poller
	stdout capture
	stderr tail
	chunk  []byte
}

// kits holds kits that watch nothing, have no deadline and hold no output. One that it
// drops is closed with its file.
var kits sync.Pool

func getKit() (*kit, error) {
	if k, ok := kits.Get().(*kit); ok {
		return k, nil
	}
	poller, err := newPoller()
	if err != nil {
		return nil, err
	}
	return &kit{poller: poller, chunk: make([]byte, readSize)}, nil
}

// start runs the command at path. The caller waits for it and then releases it.
func (c *Command) start(path string, argv []string, payload []byte) (*process, error) {
	k, err := getKit()
	if err != nil {
		return nil, err
	}
	p := &process{
		kit: k, pid: none, pidfd: none, stdinFD: none, stdoutFD: none, stderrFD: none,
		payload: payload, grace: c.cfg.Grace,
	}
	p.stdout.limit, p.stderr.limit = c.cfg.MaxOutput, maxStderr
	err = p.fork(c, path, argv)
	if err == nil {
		err = p.watch()
	}
	if err != nil {
		p.abort(err)
		return nil, err
	}
	return p, nil
}

// fork starts the command with pipes for its standard streams.
func (p *process) fork(c *Command, path string, argv []string) error {
	ends, err := p.openPipes(c)
	defer func() {
		for _, fd := range ends {
			if fd != none && fd != c.nullFD {
				_ = syscall.Close(fd)
			}
		}
	}()
	if err != nil {
		return err
	}
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env:   c.cfg.Env,
		Files: []uintptr{uintptr(ends[0]), uintptr(ends[1]), uintptr(ends[2])},
		Sys: &syscall.SysProcAttr{
			// Not a session, though a command could then not ask the terminal for a
			// password and wait for ever: Linux makes of every session a scheduling
			// group (sched_autogroup), which takes a quarter of the rate and, on a
			// busy machine, four fifths.
			Setpgid: true,
			// The kernel kills the command when the thread that forked it ends. The
			// Go runtime ends no thread but one whose goroutine returned while
			// locked to it, which nothing in this module does.
			Pdeathsig: syscall.SIGKILL,
			PidFD:     &p.pidfd,
		},
	})
	if errors.Is(err, syscall.EBADF) {
		// The child first moves its files above all that it was given, which fails like
		// this where the highest of these is the last that the limit allows.
		err = syscall.EMFILE
	}
	if err != nil {
		return err
	}
	p.pid = pid
	return nil
}

// openPipes returns the command's ends of its standard streams, and keeps ours.
func (p *process) openPipes(c *Command) (ends [3]int, err error) {
	ends = [3]int{c.nullFD, none, none}
	if p.stdoutFD, ends[1], err = openPipe(); err != nil {
		return ends, err
	}
	if p.stderrFD, ends[2], err = openPipe(); err != nil {
		return ends, err
	}
	if !c.cfg.Stdin {
		return ends, nil
	}
	if ends[0], p.stdinFD, err = openPipe(); err != nil {
		return ends, err
	}
	// Only our end: a command expects its standard input to block. Reading needs no
	// such thing, as nobody else reads what the poller has said is there.
	return ends, os.NewSyscallError("fcntl", syscall.SetNonblock(p.stdinFD, true))
}

func openPipe() (read, write int, err error) {
	fds := [2]int{none, none}
	err = syscall.Pipe2(fds[:], syscall.O_CLOEXEC)
	return fds[0], fds[1], os.NewSyscallError("pipe2", err)
}

// watch tells the poller what to wait for.
func (p *process) watch() error {
	if p.pidfd == none {
		return errors.New("this kernel has no pidfd: Linux 5.4 or newer is needed")
	}
	if err := p.poller.add(p.pidfd, unix.EPOLLIN, tagExit); err != nil {
		return err
	}
	if err := p.poller.add(p.stdoutFD, unix.EPOLLIN, tagStdout); err != nil {
		return err
	}
	if err := p.poller.add(p.stderrFD, unix.EPOLLIN, tagStderr); err != nil {
		return err
	}
	if p.stdinFD == none || p.feed() {
		return nil
	}
	return p.poller.add(p.stdinFD, unix.EPOLLOUT, tagStdin)
}

// reap kills what is left of the group and returns how the command ended. It waits
// for the command when that has not exited.
func (p *process) reap() (status syscall.WaitStatus, err error) {
	p.signal(syscall.SIGKILL)
	for {
		_, err = syscall.Wait4(p.pid, &status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			p.pid = none
			return status, os.NewSyscallError("wait4", err)
		}
	}
}

// abort ends a command that could not be started wholly. When that was for want of
// something the kit goes too: of files it has one, which somebody else needs.
func (p *process) abort(why error) {
	if p.pid != none {
		_, _ = p.reap()
	}
	p.closeAll()
	if isShortage(why) {
		p.poller.close()
		return
	}
	p.keepKit()
}

// release closes what is open and keeps the kit for the next command.
func (p *process) release() {
	p.closeAll()
	p.keepKit()
}

func (p *process) closeAll() {
	p.close(&p.stdinFD)
	p.close(&p.stdoutFD)
	p.close(&p.stderrFD)
	p.close(&p.pidfd)
}

func (p *process) keepKit() {
	p.poller.setDeadline(time.Time{})
	p.stdout.reset()
	p.stderr.reset()
	kits.Put(p.kit)
}

// close ends the watch of a file descriptor and closes it, unless that was done.
func (p *process) close(fd *int) {
	if *fd != none {
		p.poller.remove(*fd)
		_ = syscall.Close(*fd)
		*fd = none
	}
}
