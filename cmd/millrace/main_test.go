package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/worker"
)

func TestMain(m *testing.M) {
	millrace.Register("full", openFull)
	millrace.Register("shared", openShared)
	// A program under the race detector else waits for a second when it ends.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	// The tests mostly wait for processes, of which a machine can have more than cores.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"millrace": main, "nsqd": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":       exits,
			"newerformat": newerFormat,
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv(brokerVariable, "")
			env.Setenv("GORACE", os.Getenv("GORACE"))
			return nil
		},
	})
}

// exits runs a command that must end with a certain status: exits N command [arg]...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N command [arg]...")
	}
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	status := "0"
	if errors.As(err, &exit) {
		status = strconv.Itoa(exit.ExitCode())
	} else {
		ts.Check(err)
	}
	if status != args[0] {
		ts.Fatalf("exit status %s, want %s", status, args[0])
	}
}

// newerFormat writes the file that says which version a data directory has, as a newer
// one would: newerformat FILE.
func newerFormat(ts *testscript.TestScript, _ bool, args []string) {
	line := "millrace 999"
	sum := crc32.Checksum([]byte(line), crc32.MakeTable(crc32.Castagnoli))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), fmt.Appendf(nil, "%s %08x\n", line, sum), 0o600))
}

// millraceCommand is this program as millrace, to be started by a test.
func millraceCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &exec.Cmd{Path: path, Args: append([]string{"millrace"}, args...), Env: append(os.Environ(), brokerVariable+"=")}
}

// fullBroker is one whose disk is full after so many messages.
type fullBroker struct {
	millrace.Broker
	room int
}

func openFull(ctx context.Context, u *url.URL) (millrace.Broker, error) {
	room, err := strconv.Atoi(u.Opaque)
	if err != nil {
		return nil, err
	}
	b, err := millrace.Open(ctx, "mem:")
	return &fullBroker{b, room}, err
}

func (b *fullBroker) Publish(ctx context.Context, topic string, msgs ...millrace.Message) error {
	if b.room -= len(msgs); b.room < 0 {
		return millrace.ErrNoSpace
	}
	return b.Broker.Publish(ctx, topic, msgs...)
}

// openShared opens a broker with a worker elsewhere, which doubles numbers.
func openShared(ctx context.Context, _ *url.URL) (millrace.Broker, error) {
	b, err := millrace.Open(ctx, "mem:")
	if err != nil {
		return nil, err
	}
	double := worker.Func(func(_ context.Context, s string) (string, error) {
		n, err := strconv.Atoi(s)
		return strconv.Itoa(2*n) + "\n", worker.Permanent(err)
	})
	w, err := worker.New(b, "doubles", double, worker.Config{})
	if err != nil {
		return nil, err
	}
	go func() { _ = w.Serve(context.Background()) }()
	return b, nil
}

// suspend stops a process as Ctrl-Z does, and returns when it has stopped: the signal alone may
// take a moment, in which it goes on.
func suspend(t *testing.T, p *os.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(p.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("it has not stopped: %v %v", status, err)
	}
}
