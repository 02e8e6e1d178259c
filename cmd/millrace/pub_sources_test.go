package main

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// gone says whether there is no such process; one that nobody has reaped yet is gone too.
func gone(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err == nil {
		return strings.Contains(string(stat), ") Z ")
	}
	n, _ := strconv.Atoi(pid)
	return errors.Is(syscall.Kill(n, 0), syscall.ESRCH)
}

// A source that hangs is killed with all its process group, and another one takes over.
func TestASilentSourceIsKilledAndReplaced(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	// The child ignores SIGTERM, and is no child of pub's.
	cmd := pubCommand(t, s, "t", "--ttl", "300ms", "--", "sh", "-c", `sh -c 'trap "" TERM; echo $$; exec sleep 1000' & wait`)
	stderr := background(t, cmd)
	var pids []string
	s.consume("t", "c", func(body string) bool {
		pids = append(pids, body)
		return len(pids) < 2
	})
	if !gone(pids[0]) {
		t.Error("the process group of the first is still there when the second runs")
	}
	if !strings.Contains(stderr.String(), "source 1 wrote no line for 300ms: it is killed") {
		t.Errorf("pub said %s", stderr.String())
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	eventually(t, func() bool { return gone(pids[1]) }, "the second is still there when pub has ended")
}

// A line is a sign of life, however many there are to come.
func TestASourceThatWritesIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	exit, stderr := pub(t, s, "", "t", "--ttl", "500ms", "--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.1; done; printf end")
	if exit != 0 || stderr != "" {
		t.Errorf("exit status %d: %s", exit, stderr)
	}
	if got := strings.Join(s.take("t", "c", 9), " "); got != "1 2 3 4 5 6 7 8 end" {
		t.Errorf("messages %s", got)
	}
}

// Sources run side by side, each with its number, and pub ends when all have.
func TestSourcesAreFannedIn(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	if exit, stderr := pub(t, s, "", "t", "-j", "3", "--", "sh", "-c", "echo from {%}"); exit != 0 || stderr != "" {
		t.Fatalf("exit status %d: %s", exit, stderr)
	}
	from := make(map[string]bool)
	for _, body := range s.take("t", "c", 3) {
		from[body] = true
	}
	if len(from) != 3 || !from["from 1"] || !from["from 3"] {
		t.Errorf("messages %v", from)
	}
}

// One that fails is started again, and a line that it was in the middle of is no message.
func TestASourceThatFailsIsStartedAgain(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	flag := t.TempDir() + "/flag"
	script := `if test -e ` + flag + `; then echo second; else touch ` + flag + `; echo first; printf torn; exit 3; fi`
	exit, stderr := pub(t, s, "", "t", "--", "sh", "-c", script)
	if exit != 0 || !strings.Contains(stderr, "source 1: exit status 3; its last line has no end and is not published\n") {
		t.Errorf("exit status %d: %s", exit, stderr)
	}
	if got := strings.Join(s.take("t", "c", 2), " "); got != "first second" {
		t.Errorf("messages %s", got)
	}
}

// What a source leaves behind in its process group ends with it.
func TestASourceLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	if exit, stderr := pub(t, s, "", "t", "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"); exit != 0 || stderr != "" {
		t.Errorf("exit status %d: %s", exit, stderr)
	}
	if pid := s.take("t", "c", 1)[0]; !gone(pid) {
		t.Error("its child lives on")
	}
}

// The sources of a pub that is killed do not live on.
func TestSourcesEndWithPub(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	cmd := pubCommand(t, s, "t", "--", "sh", "-c", "echo $$; exec sleep 1000")
	background(t, cmd)
	pid := s.take("t", "c", 1)[0]
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, func() bool { return gone(pid) }, "the source lives on")
}

// Asked to end, the sources get the time to say their last, and that is published.
func TestTheLastWordOfASourceIsPublished(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	cmd := pubCommand(t, s, "t", "--", "sh", "-c", `trap 'echo last; exit 0' TERM; echo first; while :; do sleep 0.01; done`)
	stderr := background(t, cmd)
	if got := s.take("t", "c", 1); got[0] != "first" {
		t.Fatal(got)
	}
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != 255 || time.Since(began) > 5*time.Second || !strings.Contains(stderr.String(), "2 messages published, which is all that was read") {
		t.Errorf("exit status %d after %v: %s", cmd.ProcessState.ExitCode(), time.Since(began), stderr.String())
	}
	if got := s.take("t", "c", 1); got[0] != "last" {
		t.Error(got)
	}
}
