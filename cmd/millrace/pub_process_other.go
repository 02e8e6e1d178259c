//go:build unix && !linux

package main

import (
	"os/exec"
	"syscall"
)

// sourceAttributes put a source into a process group of its own.
func sourceAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// awaitExit returns a channel that is closed when the command has exited. It has been
// reaped then: its group's id stays taken only as long as somebody is left in the group.
func awaitExit(cmd *exec.Cmd) (exited <-chan struct{}, reap func() error) {
	closed := make(chan struct{})
	var err error
	go func() {
		defer close(closed)
		err = cmd.Wait()
	}()
	return closed, func() error {
		<-closed
		return err
	}
}
