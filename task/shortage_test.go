package task

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// noFiles takes from this process what it needs to open another file, until it is
// called back.
func noFiles(t *testing.T) (giveBack func()) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := syscall.Rlimit{Cur: 3, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	giveBack = func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) }
	t.Cleanup(giveBack)
	return giveBack
}

func TestAShortageIsWaitedForWhileOtherCommandsRun(t *testing.T) {
	c := newCommand(t, Config{}, "echo")
	giveBack := noFiles(t)
	c.running.Store(1)
	later := time.AfterFunc(50*time.Millisecond, giveBack)
	defer later.Stop()
	if got := mustHandle(t, c, "x"); got != "x\n" {
		t.Errorf("got %q", got)
	}
	if n := c.running.Load(); n != 1 {
		t.Errorf("%d commands are counted as running, not 1", n)
	}
}

func TestAShortageIsToldWhenNothingRunsThatCouldEndIt(t *testing.T) {
	c := newCommand(t, Config{}, "echo")
	giveBack := noFiles(t)
	_, err := handle(t, c, "x")
	giveBack()
	if err == nil || !strings.HasPrefix(err.Error(), "cannot start echo: ") || !strings.HasSuffix(err.Error(), "too many open files") {
		t.Errorf("got %v", err)
	}
}
