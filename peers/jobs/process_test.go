package jobs_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long the tests wait for what must come.
const patience = 60 * time.Second

// process is a program that runs beside the tests.
type process struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string   // of standard output
	ended chan struct{} // closed when the process has ended, and err is set
	err   error

	mu   sync.Mutex // guards said
	said strings.Builder
}

// start runs a program. It is killed when the test ends.
func start(t *testing.T, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: strings.Join(args, " "), lines: make(chan string, 1<<16), ended: make(chan struct{})}
	p.cmd = exec.Command(path, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = p
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		scanner := bufio.NewScanner(out)
		for scanner.Scan() {
			p.lines <- scanner.Text()
		}
		close(p.lines)
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.killGroup()
		if t.Failed() {
			t.Logf("%s said:\n%s", p.name, p.stderr())
		}
	})
	return p
}

// Write takes what the process writes to standard error.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.said.Len() < 64<<10 {
		p.said.Write(b)
	}
	return len(b), nil
}

func (p *process) stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// signal sends one to the process alone.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Errorf("%v to %s: %v", s, p.name, err)
	}
}

// killGroup ends the process and what it has started, as nothing else does, and waits for that.
func (p *process) killGroup() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended already
	for range p.lines {
	}
	<-p.ended
}

// give writes a line to standard input. A process that has ended does not take it, as will
// be seen.
func (p *process) give(line string) { _, _ = io.WriteString(p.stdin, line+"\n") }

// wait waits until the process ends, and returns how.
func (p *process) wait() error {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.err
	case <-time.After(patience):
		p.t.Fatalf("%s has not ended; it said:\n%s", p.name, p.stderr())
		return nil
	}
}

// saysWithin waits until the process has written text to standard error.
func (p *process) saysWithin(d time.Duration, text string) {
	p.t.Helper()
	for until := time.Now().Add(d); !strings.Contains(p.stderr(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			p.t.Fatalf("%s has not said %q within %v, but:\n%s", p.name, text, d, p.stderr())
		}
	}
}

// goWorker starts a worker of the tests' own, with a Go handler.
func goWorker(t *testing.T, url, queue string, ttl time.Duration) *process {
	t.Helper()
	return start(t, []string{roleVariable + "=worker"}, programs.self, url, queue, ttl.String())
}

// commandWorker starts a millrace work that runs a command for each task.
func commandWorker(t *testing.T, url, queue string, ttl time.Duration, command ...string) *process {
	t.Helper()
	args := append([]string{"work", queue, "--broker", url, "-j", "2", "--ttl", ttl.String(), "--"}, command...)
	return start(t, nil, programs.millrace, args...)
}

// mapping starts a millrace map; its standard input is open.
func mapping(t *testing.T, url, queue string, flags ...string) *process {
	t.Helper()
	return start(t, nil, programs.millrace, append([]string{"map", queue, "--broker", url, "--tag"}, flags...)...)
}
