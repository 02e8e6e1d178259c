package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a pseudo-terminal: the user's and the program's.
func openTerminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { user.Close() })
	fd := int(user.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("unlock the pseudo-terminal: %v", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Skip(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { program.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}); err != nil {
		t.Fatal(err)
	}
	return user, program
}

func TestOnATerminalThereIsABarAndCtrlCStops(t *testing.T) {
	t.Parallel()
	user, program := openTerminal(t)
	cmd := millraceCommand(t, "map", "-j2", "--", "sh", "-c", "[ $1 = 1 ] || sleep 1000; echo result $1", "sh", "{}", sep, "1", "2", "3")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	folder := t.TempDir()
	cmd.Dir = folder
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	program.Close()
	var screen watch
	copied := make(chan struct{})
	go func() { defer close(copied); _, _ = io.Copy(&screen, user) }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	press := func(key string) {
		t.Helper()
		if _, err := io.WriteString(user, key); err != nil {
			t.Fatal(err)
		}
	}
	screen.await(t, "1/3 33%, 2 of 2 busy")
	press("\x03")
	screen.await(t, "once more kills them")
	press("\x03")
	_ = cmd.Wait()
	<-copied // the terminal is closed when nobody has it any more
	if code := cmd.ProcessState.ExitCode(); code != exitOther {
		t.Errorf("exit status %d", code)
	}
	text := strings.ReplaceAll(screen.String(), "\r\n", "\n")
	for _, want := range []string{"result 1\n", "interrupted: 1 done, 0 of them failed, 2 not finished\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q on the terminal: %q", want, text)
		}
	}
	(&running{t: t, folder: folder}).nothingRuns()
}
