package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// site is a broker in a process of its own, with workers in others.
type site struct {
	*testing.T
	at string // the broker's URL
}

func newSite(t *testing.T) *site {
	t.Helper()
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path="+t.TempDir())
	_, port, _ := strings.Cut(s.http, ":")
	return &site{t, fmt.Sprintf("nsq://%s?http=%s", s.tcp, port)}
}

// process is a millrace that a test has started.
type process struct {
	*exec.Cmd
	*site
	stdout, stderr watch
	ended          chan struct{}
}

func (s *site) start(args ...string) *process {
	s.Helper()
	args = slices.Insert(slices.Clone(args), 1, "--broker", s.at)
	p := &process{Cmd: millraceCommand(s.T, args...), site: s, ended: make(chan struct{})}
	p.Stdout, p.Stderr, p.Dir = &p.stdout, &p.stderr, s.TempDir()
	if err := p.Start(); err != nil {
		s.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.Wait()
	}()
	s.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGCONT)
		_ = p.Process.Kill()
		<-p.ended
	})
	return p
}

// work starts a worker whose tasks are done when a file is there, and waits until it works.
func (s *site) work(jobs int, gate string) *process {
	s.Helper()
	p := s.start("work", "q", "-j", fmt.Sprint(jobs), "--", "sh", "-c", `until [ -e "$1" ]; do sleep 0.02; done; echo "$2"`, "sh", gate, "{}")
	eventually(s.T, func() bool { return strings.Count(p.stderr.String(), "replica started") >= jobs }, "the worker does not begin")
	return p
}

// status waits for the end and returns the exit status.
func (p *process) status() int {
	p.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.Fatalf("%v does not end: %s", p.Args, p.stderr.String())
	}
	return p.ProcessState.ExitCode()
}

// says runs a command, which must end with that status and say something that matches, on
// standard output or, when it fails, elsewhere.
func (s *site) says(status int, pattern string, args ...string) string {
	s.Helper()
	begun := time.Now()
	p := s.start(args...)
	if got := p.status(); got != status {
		s.Fatalf("millrace %v: exit status %d, want %d: %s%s", args, got, status, p.stdout.String(), p.stderr.String())
	}
	text := p.stdout.String()
	if status != 0 {
		text += p.stderr.String()
	}
	if !regexp.MustCompile(pattern).MatchString(text) {
		s.Fatalf("millrace %v says %q, not %s", args, text, pattern)
	}
	s.Logf("%v: millrace %v: %s", time.Since(begun).Round(time.Millisecond), args, text)
	return text
}

// ask asks for so many tasks in a process of its own.
func (s *site) ask(n int) *process {
	s.Helper()
	args := []string{"map", "q", sep}
	for i := range n {
		args = append(args, fmt.Sprint(i))
	}
	return s.start(args...)
}

// top returns what millrace top --json says.
func (s *site) top() (t topJSON) {
	s.Helper()
	if err := json.Unmarshal([]byte(s.says(0, `^\{`, "top", "q", "--json")), &t); err != nil {
		s.Fatal(err)
	}
	return t
}

// busy waits until so many replicas run tasks.
func (s *site) busy(n int) {
	s.Helper()
	eventually(s.T, func() bool { return s.top().Busy == n }, fmt.Sprintf("not %d are busy", n))
}

func TestTheReplicasOfAllMachinesAreShownAndScaled(t *testing.T) {
	s := newSite(t)
	gate := s.TempDir() + "/open"
	s.says(255, "there is no queue q at this broker", "top", "q")
	one, two := s.work(2, gate), s.work(1, gate)
	asking := s.ask(6)
	s.busy(3)
	table := s.says(0, `q: 3 ready, 3 in flight, 0 deferred \| 2 workers, 3 replicas, 3 busy\nHOST`, "top", "q")
	for _, p := range []*process{one, two} {
		row := fmt.Sprintf(`\S+ +%d +1 +running +\w+-\d +\S+ +0\.0s +0\n`, p.Process.Pid)
		if !regexp.MustCompile(row).MatchString(table) {
			t.Errorf("no row %s in\n%s", row, table)
		}
	}
	s.says(0, `^q has 5 replicas in place of 3: \S+/\d+ \d→\d, \S+/\d+ 1→2\n$`, "scale", "q", "+2")
	s.busy(5)
	s.says(0, `^q: replica \d of \S+ leaves after its task, which it has run for \S+s\n$`, "retire", "q")
	s.says(0, `^q has 3 replicas in place of 4: .*; 1 finishes a task before leaving\n$`, "scale", "q", "-1")
	s.says(0, `^q has 3 replicas, as before\n$`, "scale", "q", "=3")
	s.says(255, `^millrace: there are not so many replicas: there are 3\n$`, "scale", "q", "-4")
	s.says(0, `^q has 0 replicas in place of 3`, "scale", "q", "=0")
	s.says(255, "no worker of q has a replica", "retire", "q")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.busy(0) // and one task waits for a replica
	s.says(0, "^q has 1 replica in place of 0", "scale", "q", "+1")
	if code := asking.status(); code != 0 || len(strings.Fields(asking.stdout.String())) != 6 {
		t.Errorf("map ended with %d: %s%s", code, asking.stdout.String(), asking.stderr.String())
	}
	s.says(0, `^q: 2 workers have ended\n$`, "drain", "q")
	for _, p := range []*process{one, two} {
		if code := p.status(); code != 0 {
			t.Errorf("a worker that was drained ended with %d: %s", code, p.stderr.String())
		}
	}
	var alone []*process
	for _, args := range [][]string{{"top", "q"}, {"scale", "q", "+1"}, {"retire", "q"}, {"drain", "q"}} {
		alone = append(alone, s.start(args...))
	}
	for _, p := range alone {
		if code, said := p.status(), p.stderr.String(); code != 255 || !strings.Contains(said, noWorker) {
			t.Errorf("without a worker %v ends with %d and says %q", p.Args, code, said)
		}
	}
}

const noWorker = "no worker of q answers: start one, on any machine, with millrace work q -- COMMAND"

func TestAPausedQueueStaysPausedForWorkersThatComeLater(t *testing.T) {
	s := newSite(t)
	gate := s.TempDir() + "/open"
	one := s.work(1, gate)
	asking := s.ask(3)
	s.busy(1)
	s.says(0, `^q is paused: 1 worker; 1 task runs still\n$`, "pause", "q")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.busy(0)
	s.work(1, gate)
	time.Sleep(200 * time.Millisecond)
	top := s.top()
	if !top.Paused || top.Ready != 2 || top.Busy != 0 || len(top.Workers) != 2 || !top.Workers[1].Paused {
		t.Errorf("while it is paused: %+v", top)
	}
	s.says(0, `PAUSED\n`, "top", "q", "--once")
	_ = one.Process.Signal(syscall.SIGTERM)
	one.status()
	s.says(0, `^q is resumed: 1 worker\n$`, "resume", "q")
	if code := asking.status(); code != 0 {
		t.Errorf("map ended with %d: %s", code, asking.stderr.String())
	}
}

func TestAWorkerThatHangsInTheMiddleOfADrainIsNamed(t *testing.T) {
	s := newSite(t)
	gate := s.TempDir() + "/open"
	one, two := s.work(1, gate), s.work(1, gate)
	asking := s.ask(2)
	s.busy(2)
	draining := s.start("drain", "q")
	for _, p := range []*process{one, two} {
		p.stderr.await(t, "order=drain")
	}
	suspend(t, one.Process)
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := draining.status(); code != 255 {
		t.Errorf("drain ended with %d", code)
	}
	said := draining.stdout.String() + draining.stderr.String()
	want := fmt.Sprintf(`^q: 1 worker has ended\nmillrace: no confirmation from \S+/%d, which was told to drain\n$`, one.Process.Pid)
	if !regexp.MustCompile(want).MatchString(said) {
		t.Errorf("it says %q, not %s", said, want)
	}
	_ = one.Process.Signal(syscall.SIGCONT)
	if code := one.status(); code != 0 {
		t.Errorf("the worker ended with %d: %s", code, one.stderr.String())
	}
	_ = asking
}

func TestOnATerminalTheTableIsRefreshedUntilCtrlC(t *testing.T) {
	s := newSite(t)
	one := s.work(1, "/none")
	cmd, user, screen, copied := startOnTerminal(t, "top", "q", "--broker", s.at)
	screen.await(t, "1 worker, 1 replica, 0 busy")
	s.ask(1)
	screen.await(t, "1 busy")
	suspend(t, one.Process)
	screen.await(t, "silent ")
	if _, err := user.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	<-copied
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d: %q", code, screen.String())
	}
}
