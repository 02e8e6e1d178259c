package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// generous is how long a loaded machine may take for what takes no time.
const generous = 10 * time.Second

// onceMore ends the answer to the first interrupt. The next one waits for it: of two
// signals at the same time a process gets one.
const onceMore = "once more kills them\n"

// running is a millrace that a test has started.
type running struct {
	*exec.Cmd
	t              *testing.T
	stdin          io.WriteCloser
	stdout, stderr watch
	ended          chan struct{}
	folder         string // the commands' working directory, where they leave marks
}

// watch collects what a program writes.
type watch struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *watch) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *watch) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *watch) Len() int { return len(w.String()) }

// await waits until the text has been written.
func (w *watch) await(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(generous); !strings.Contains(w.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not write %q but %q", text, w.String())
		}
	}
}

// startMillrace starts millrace with a pipe as standard input.
func startMillrace(t *testing.T, args ...string) *running {
	t.Helper()
	return startInto(t, nil, args...)
}

// startInto is startMillrace with a file as standard output; nil: it is collected.
func startInto(t *testing.T, stdout *os.File, args ...string) *running {
	t.Helper()
	r := &running{Cmd: millraceCommand(t, args...), t: t, ended: make(chan struct{}), folder: t.TempDir()}
	r.Dir, r.Stdout, r.Stderr = r.folder, &r.stdout, &r.stderr
	if stdout != nil {
		r.Stdout = stdout
	}
	var err error
	if r.stdin, err = r.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.ended)
		_ = r.Wait()
	}()
	t.Cleanup(func() {
		_ = r.Process.Kill()
		<-r.ended
	})
	return r
}

// exit waits for the end and returns the exit status.
func (r *running) exit() int {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(generous):
		_ = r.Process.Signal(syscall.SIGQUIT) // it shows its goroutines
		<-r.ended
		r.t.Fatalf("millrace does not end; it has said:\n%s%s", r.stdout.String(), r.stderr.String())
	}
	return r.ProcessState.ExitCode()
}

// await waits until the commands have made so many marks with that prefix.
func (r *running) await(prefix string, n int) []string {
	r.t.Helper()
	var marks []string
	for deadline := time.Now().Add(generous); len(marks) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("there are %d marks %s*, not %d", len(marks), prefix, n)
		}
		marks, _ = filepath.Glob(filepath.Join(r.folder, prefix+"*"))
	}
	return marks
}

// nothingRuns checks that no process works in the folder any more.
func (r *running) nothingRuns() {
	r.t.Helper()
	var left []string
	for deadline := time.Now().Add(generous / 2); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if left = processesIn(r.folder); len(left) == 0 {
			return
		}
	}
	r.t.Errorf("still running: %v", left)
}

// processesIn lists the living processes whose working directory it is.
func processesIn(folder string) (list []string) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		// A zombie has no working directory.
		if at, err := os.Readlink(link); err == nil && at == folder {
			list = append(list, filepath.Base(filepath.Dir(link)))
		}
	}
	return list
}

func TestInterruptedOnceItFinishesWhatRuns(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		for _, flag := range []string{"--keep-order", "--tag=false"} {
			t.Run(fmt.Sprint(sig, flag), func(t *testing.T) {
				t.Parallel()
				r := startMillrace(t, "map", "-j2", flag, "--", "sh", "-c", "touch begun.$1; until [ -e go ]; do sleep 0.02; done; echo done $1", "sh", "{}")
				if _, err := io.WriteString(r.stdin, "1\n2\n3\n4\n"); err != nil { // and no end
					t.Fatal(err)
				}
				r.await("begun.", 2)
				_ = r.Process.Signal(sig)
				r.stderr.await(t, onceMore)
				if _, err := io.WriteString(r.stdin, "5\n6\n"); err != nil { // which nobody reads
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(r.folder, "go"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if code := r.exit(); code != exitOther {
					t.Errorf("exit status %d", code)
				}
				lines := strings.Fields(strings.ReplaceAll(r.stdout.String(), "done ", ""))
				slices.Sort(lines)
				if !slices.Equal(lines, []string{"1", "2"}) {
					t.Errorf("results %q", r.stdout.String())
				}
				if want := "millrace: interrupted: 2 done, 0 of them failed, 2 not finished and cancelled\n"; !strings.HasSuffix(r.stderr.String(), want) {
					t.Errorf("stderr %q", r.stderr.String())
				}
				if begun := r.await("begun.", 0); len(begun) > 2 {
					t.Errorf("begun after the interrupt: %q", begun)
				}
				r.nothingRuns()
			})
		}
	}
}

func TestInterruptedOnceItShowsEveryResultToASlowReader(t *testing.T) {
	t.Parallel()
	const size = 300_000 // more than a pipe holds
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	r := startInto(t, write, "map", "-j3", "--", "sh", "-c", "touch begun.$1; until [ -e go ]; do sleep 0.02; done; head -c $2 /dev/zero", "sh", "{}", strconv.Itoa(size), sep, "1", "2", "3")
	write.Close()
	r.await("begun.", 3)
	_ = r.Process.Signal(os.Interrupt)
	r.stderr.await(t, onceMore)
	if err := os.WriteFile(filepath.Join(r.folder, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for len(processesIn(r.folder)) > 1 { // until only millrace itself is left
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(2 * quiet)
	if n, err := io.Copy(io.Discard, read); n != 3*size || err != nil {
		t.Errorf("%d bytes of results, want %d; %v", n, 3*size, err)
	}
	if code := r.exit(); code != 0 {
		t.Errorf("exit status %d: all was done in the end", code)
	}
}

func TestInterruptedOnceItWaitsForWorkersElsewhere(t *testing.T) {
	t.Parallel()
	r := startMillrace(t, "map", "doubles", "--broker", "shared:")
	if _, err := io.WriteString(r.stdin, "1\n2\n"); err != nil {
		t.Fatal(err)
	}
	r.stdout.await(t, "4\n")
	_ = r.Process.Signal(os.Interrupt)
	if code := r.exit(); code != exitOther {
		t.Errorf("exit status %d", code)
	}
	if want := "millrace: interrupted: 2 done, 0 of them failed, 0 not finished\n"; !strings.HasSuffix(r.stderr.String(), want) {
		t.Errorf("stderr %q", r.stderr.String())
	}
}

func TestInterruptedTwiceItKillsWhatRuns(t *testing.T) {
	t.Parallel()
	r := startMillrace(t, "map", "-j2", "--", "sh", "-c", "touch begun.$1; sleep 1000 & sleep 1000; echo late", "sh", "{}", sep, "1", "2", "3")
	r.await("begun.", 2)
	begun := time.Now()
	_ = r.Process.Signal(os.Interrupt)
	r.stderr.await(t, onceMore)
	_ = r.Process.Signal(os.Interrupt)
	if code := r.exit(); code != exitOther {
		t.Errorf("exit status %d", code)
	}
	if took := time.Since(begun); took > generous/2 {
		t.Errorf("took %v", took)
	}
	if r.stdout.Len() > 0 || !strings.HasSuffix(r.stderr.String(), "millrace: interrupted: 0 done, 0 of them failed, 3 not finished and cancelled\n") {
		t.Errorf("stdout %q, stderr %q", r.stdout.String(), r.stderr.String())
	}
	r.nothingRuns()
}

func TestWhenTheTerminalIsGoneItKillsWhatRuns(t *testing.T) {
	t.Parallel()
	r := startMillrace(t, "map", "--", "sh", "-c", "touch begun.$1; sleep 1000", "sh", "{}", sep, "1")
	r.await("begun.", 1)
	_ = r.Process.Signal(syscall.SIGHUP)
	if code := r.exit(); code != exitOther {
		t.Errorf("exit status %d", code)
	}
	r.nothingRuns()
}

// As `millrace map … | head -1` does.
func TestWhenNobodyReadsTheResultsItStops(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read.Close()
	r := startInto(t, write, "map", "-j2", "--", "sh", "-c", "test $1 = 0 || sleep 1000; echo $1", "sh", "{}", sep, "1", "0")
	write.Close()
	if code := r.exit(); code != exitPipe || r.stderr.Len() > 0 {
		t.Errorf("exit status %d, stderr %q", code, r.stderr.String())
	}
	r.nothingRuns()
}

// A reader that has stopped reading must not keep Ctrl-C from ending everything.
func TestInterruptedTwiceItEndsThoughNobodyTakesTheResults(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	// More than a pipe holds: the write of the first result never ends.
	r := startInto(t, write, "map", "-j2", "--", "sh", "-c", "touch begun.$1; test $1 = 2 && sleep 1000; head -c 1000000 /dev/zero", "sh", "{}", sep, "1", "2")
	write.Close()
	r.await("begun.", 2)
	if _, err := io.ReadFull(read, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = r.Process.Signal(os.Interrupt)
	r.stderr.await(t, onceMore)
	_ = r.Process.Signal(os.Interrupt)
	if code := r.exit(); code != exitOther {
		t.Errorf("exit status %d", code)
	}
	r.nothingRuns()
}

// What the process was told to ignore, it goes on to ignore, and its commands do not
// ignore what it only catches.
func TestCommandsGetTheSignalsOfTheirOwn(t *testing.T) {
	t.Parallel()
	cmd := millraceCommand(t, "map", "--", "sh", "-c", "grep SigIgn /proc/$$/status", "sh", "{}", sep, "x")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	mask, err := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(string(out), "SigIgn:")), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGPIPE, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if mask&(1<<(sig-1)) != 0 {
			t.Errorf("a command ignores %v", sig)
		}
	}
}
