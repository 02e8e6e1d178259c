package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a pseudo-terminal: the user's and the program's.
func openTerminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { user.Close() })
	fd := int(user.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatalf("unlock the pseudo-terminal: %v", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}); err != nil {
		t.Fatal(err)
	}
	return user, program
}

// startOnTerminal starts millrace as somebody who sits at a terminal does. It returns
// the user's end, and what the terminal is sent; copied is closed when nobody has the
// terminal any more.
func startOnTerminal(t *testing.T, args ...string) (cmd *exec.Cmd, user *os.File, screen *watch, copied chan struct{}) {
	t.Helper()
	user, program := openTerminal(t)
	cmd = millraceCommand(t, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	cmd.Dir = t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	program.Close()
	screen, copied = new(watch), make(chan struct{})
	go func() { defer close(copied); _, _ = io.Copy(screen, user) }()
	return cmd, user, screen, copied
}

func TestOnATerminalThereIsABarAndCtrlCStops(t *testing.T) {
	t.Parallel()
	cmd, user, screen, copied := startOnTerminal(t, "map", "-j2", "--", "sh", "-c", "[ $1 = 1 ] || sleep 1000; echo result $1", "sh", "{}", sep, "1", "2", "3")
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
	<-copied
	if code := cmd.ProcessState.ExitCode(); code != exitOther {
		t.Errorf("exit status %d", code)
	}
	text := strings.ReplaceAll(screen.String(), "\r\n", "\n")
	for _, want := range []string{"result 1\n", "interrupted: 1 done, 0 of them failed, 2 not finished and cancelled\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q on the terminal: %q", want, text)
		}
	}
	(&running{t: t, folder: cmd.Dir}).nothingRuns()
}

func TestACommandThatAsksTheTerminalFailsAtOnce(t *testing.T) {
	t.Parallel()
	cmd, _, screen, copied := startOnTerminal(t, "map", "--", "sh", "-c", "read password </dev/tty", "sh", "{}", sep, "x")
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(generous):
		t.Fatalf("it waits; the terminal shows %q", screen.String())
	}
	<-copied
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(screen.String(), `task 1 ("x") failed`) {
		t.Errorf("exit status %d, the terminal shows %q", code, screen.String())
	}
}

func TestNothingIsDrawnOverInputsThatAreTyped(t *testing.T) {
	t.Parallel()
	cmd, user, screen, copied := startOnTerminal(t, "map", "--", "sh", "-c", "sleep 0.3; echo got $1", "sh")
	screen.await(t, "the inputs are read from the terminal, a line each; Ctrl-D ends them")
	if _, err := io.WriteString(user, "one\n\x04"); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	<-copied
	if text := screen.String(); !strings.Contains(text, "got one") || strings.Contains(text, eraseLine) {
		t.Errorf("the terminal shows %q", text)
	}
}
