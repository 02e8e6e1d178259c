package main

import (
	"errors"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// sourceAttributes put a source into a process group of its own, and have the kernel kill
// it when this process is killed.
func sourceAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// awaitExit returns a channel that is closed when the command has exited. Its process id,
// which is its group's, stays taken until it is reaped: a signal never reaches a stranger.
func awaitExit(cmd *exec.Cmd) (exited <-chan struct{}, reap func() error) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for errors.Is(unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
		}
	}()
	return closed, cmd.Wait
}
