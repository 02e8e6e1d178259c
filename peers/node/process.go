package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Tool returns the path of a program that go.mod names as a tool, such as nsq_to_file,
// and builds it if need be.
func Tool(ctx context.Context, name string) (string, error) {
	out, err := goCommand(ctx, "tool", "-n", name)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return out, nil
}

// BuildMillrace builds the millrace command of the tree around this module into dir, and
// returns its path.
func BuildMillrace(ctx context.Context, dir string) (string, error) {
	return Build(ctx, dir, "cmd/millrace")
}

// Build builds the program in a folder of the tree around this module into dir, and returns its path.
func Build(ctx context.Context, dir, folder string) (string, error) {
	root, err := goCommand(ctx, "list", "-m", "-f", "{{.Dir}}", "github.com/millrace/millrace")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", folder, err)
	}
	path := filepath.Join(dir, filepath.Base(folder))
	if _, err := goCommand(ctx, "build", "-C", root, "-o", path, "./"+folder); err != nil {
		return "", fmt.Errorf("build %s: %w", folder, err)
	}
	return path, nil
}

// goCommand runs the go command and returns what it printed.
func goCommand(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, said.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// Process is a broker in a process of its own. Its addresses stay the same when it is
// started again.
type Process struct {
	// Name is "nsqd" or "millrace".
	Name string
	// TCP and HTTP are addresses, "127.0.0.1:PORT".
	TCP, HTTP string

	path string
	args []string
	cmd  *exec.Cmd
	said *tail
}

// NSQDProcess is an nsqd with its data in dir, not yet started. More flags may be given.
func NSQDProcess(path, dir string, flags ...string) (*Process, error) {
	return newProcess("nsqd", path, nil, dir, flags)
}

// MillraceProcess is a "millrace serve" with its data in dir, not yet started. More flags
// may be given.
func MillraceProcess(path, dir string, flags ...string) (*Process, error) {
	return newProcess("millrace", path, []string{"serve"}, dir, flags)
}

func newProcess(name, path string, args []string, dir string, flags []string) (*Process, error) {
	p := &Process{Name: name, path: path}
	for _, addr := range []*string{&p.TCP, &p.HTTP} {
		free, err := LowAddress()
		if err != nil {
			return nil, err
		}
		*addr = free
	}
	p.args = slices.Concat(args, []string{"--data-path=" + dir, "--tcp-address=" + p.TCP, "--http-address=" + p.HTTP}, flags)
	return p, nil
}

// startWithin is how long a broker may take until it answers.
const startWithin = 20 * time.Second

// Start starts the process and returns when it answers. Returns what it said when it ends
// instead.
func (p *Process) Start() error {
	p.said = new(tail)
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	for until := time.Now().Add(startWithin); ; time.Sleep(2 * time.Millisecond) {
		if p.answers() {
			return nil
		}
		if time.Now().After(until) || p.ended() {
			return errors.Join(fmt.Errorf("%s does not answer; it said: %s", p.Name, p.said), p.Kill())
		}
	}
}

func (p *Process) answers() bool {
	resp, err := http.Get("http://" + p.HTTP + "/ping")
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

// ended says whether the process has ended, and not yet been waited for.
func (p *Process) ended() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	return err == nil && bytes.Contains(stat, []byte(") Z "))
}

// Kill ends the process as nothing else does, and returns when it has ended.
func (p *Process) Kill() error { return p.end(syscall.SIGKILL) }

// Stop asks the process to end, and returns when it has ended.
func (p *Process) Stop() error { return p.end(syscall.SIGTERM) }

func (p *Process) end(how syscall.Signal) error {
	if p.cmd == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(how) // it may have ended already
	err := p.cmd.Wait()
	p.cmd = nil
	var exit *exec.ExitError
	if how == syscall.SIGKILL && errors.As(err, &exit) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w; it said: %s", p.Name, err, p.said)
	}
	return nil
}

// Pid is the id of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Said is the end of what the process printed.
func (p *Process) Said() string { return p.said.String() }

// tail keeps the last of what is written to it.
type tail struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

const tailSize = 16 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// String implements fmt.Stringer.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
