package task

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace/millrace/worker"
)

// newCommand returns a handler whose grace is short enough for tests.
func newCommand(t *testing.T, cfg Config, argv ...string) *Command {
	t.Helper()
	if cfg.Grace == 0 {
		cfg.Grace = testGrace
	}
	c, err := New(argv, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sh returns a handler that runs a shell script whose $1 is the payload.
func sh(t *testing.T, cfg Config, script string) *Command {
	t.Helper()
	return newCommand(t, cfg, "sh", "-c", script, "sh", "{}")
}

func handle(t *testing.T, c *Command, payload string) (string, error) {
	t.Helper()
	out, err := c.Handle(t.Context(), &worker.Task{ID: "job-4", Payload: []byte(payload), Replica: 2})
	return string(out), err
}

func mustHandle(t *testing.T, c *Command, payload string) string {
	t.Helper()
	out, err := handle(t, c, payload)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStandardOutputIsTheResult(t *testing.T) {
	for _, c := range []struct {
		argv []string
		want string
	}{
		{[]string{"echo", "-n", "<{}>"}, "<a b>"},
		{[]string{"echo", "-n"}, "a b"}, // appended
		{[]string{"echo", "task", "{#}", "of", "replica", "{%}"}, "task 5 of replica 2\n"},
		{[]string{"true", "{}"}, ""},
		{[]string{"/bin/echo"}, "a b\n"},
	} {
		if got := mustHandle(t, newCommand(t, Config{}, c.argv...), "a b"); got != c.want {
			t.Errorf("%q: %q, want %q", c.argv, got, c.want)
		}
	}
}

func TestStandardInputIsEmptyUnlessAskedFor(t *testing.T) {
	if got := mustHandle(t, newCommand(t, Config{}, "sh", "-c", "cat; echo {}"), "x"); got != "x\n" {
		t.Errorf("got %q", got)
	}
}

func TestThePayloadGoesToStandardInput(t *testing.T) {
	for _, size := range []int{0, 1, 65536, 65537, 5_000_000} {
		payload := strings.Repeat("0123456\x00", size/8+1)[:size]
		if got := mustHandle(t, newCommand(t, Config{Stdin: true}, "cat"), payload); got != payload {
			t.Errorf("of %d bytes %d came back", size, len(got))
		}
	}
}

func TestACommandNeedNotReadItsInput(t *testing.T) {
	payload := strings.Repeat("x", 5_000_000)
	for _, argv := range [][]string{{"true"}, {"head", "-c1"}, {"sh", "-c", "exec <&-; sleep 0.1"}} {
		if _, err := handle(t, newCommand(t, Config{Stdin: true}, argv...), payload); err != nil {
			t.Errorf("%q: %v", argv, err)
		}
	}
}

func TestAFailureCarriesItsCodeAndTheEndOfStandardError(t *testing.T) {
	task := &worker.Task{Payload: []byte("x")}
	c := sh(t, Config{}, `seq 1 100000 >&2; echo out; echo "no such thing: $1" >&2; exit 42`)
	out, err := c.Handle(t.Context(), task)
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 42 || exit.ExitCode() != 42 || exit.Signal != 0 || out != nil {
		t.Fatalf("got %q, %#v", out, err)
	}
	if len(exit.Stderr) != maxErrorStderr || !bytes.HasSuffix(exit.Stderr, []byte("\nno such thing: x\n")) {
		t.Errorf("stderr has %d bytes and ends with %q", len(exit.Stderr), exit.Stderr[max(0, len(exit.Stderr)-30):])
	}
	if s := err.Error(); !strings.HasPrefix(s, "exit status 42: ") || !strings.HasSuffix(s, "no such thing: x") {
		t.Errorf("reads %q", s)
	}
}

func TestStandardErrorOfASuccessIsInTheReply(t *testing.T) {
	task := &worker.Task{Payload: []byte("x")}
	if _, err := sh(t, Config{}, `echo beware >&2`).Handle(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	if got := task.Reply.Text(HeaderStderr); got != "beware\n" {
		t.Errorf("got %q", got)
	}
	task.Reply = nil
	if _, err := sh(t, Config{}, `seq 1 100000 >&2`).Handle(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	got := task.Reply.Text(HeaderStderr)
	if len(got) < maxStderr || len(got) > maxStderr+100 || !strings.HasSuffix(got, "\n99999\n100000\n") {
		t.Errorf("kept %d bytes", len(got))
	}
	task.Reply = nil
	if _, err := sh(t, Config{}, `true`).Handle(t.Context(), task); err != nil || task.Reply != nil {
		t.Errorf("a silent command adds %q, %v", task.Reply, err)
	}
}

func TestWhatAFailedCommandWroteIsInTheReply(t *testing.T) {
	task := &worker.Task{Payload: []byte("x")}
	if _, err := sh(t, Config{}, `echo half; exit 1`).Handle(t.Context(), task); err == nil {
		t.Fatal("no error")
	}
	if got := task.Reply.Text(HeaderStdout); got != "half\n" {
		t.Errorf("got %q", got)
	}
	task.Reply = nil
	if _, err := sh(t, Config{MaxOutput: 10}, `seq 1 10000; exit 1`).Handle(t.Context(), task); !errors.Is(err, ErrOutputTooLarge) {
		t.Fatal(err)
	}
	if _, there := task.Reply.Get(HeaderStdout); there {
		t.Error("what is too large for a result is in the reply")
	}
}

func TestACommandThatASignalEndsSaysWhich(t *testing.T) {
	_, err := handle(t, sh(t, Config{}, `kill -SEGV $$`), "x")
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Signal != syscall.SIGSEGV || exit.Code != 128+11 {
		t.Fatalf("got %#v", err)
	}
}

func TestACommandThatCannotBeStartedSaysWhyAndIsNotTriedAgain(t *testing.T) {
	folder := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name, says string
		code       int
	}{
		{"no-such-command-at-all", "command not found", 127},
		{folder + "/absent", "no such file", 127},
		{folder, "is a directory", 126},
		{file("plain", "#!/bin/sh\n", 0o600), "not executable", 126},
		{file("shebang", "#!/no/such/interpreter\n", 0o700), "its interpreter does not exist (see its first line)", 126},
		{file("text", "echo hello\n", 0o700), "neither a program nor a script whose first line begins with #!", 126},
		{file("plain2", "", 0o600) + "/x", "no such file", 127},
	} {
		_, err := handle(t, newCommand(t, Config{}, c.name), "x")
		var start *StartError
		if !errors.As(err, &start) || start.ExitCode() != c.code || err.Error() != c.name+": "+c.says {
			t.Errorf("%s: %v (%+v)", c.name, err, start)
		}
		if !isPermanent(err) {
			t.Errorf("%s would be tried again", c.name)
		}
	}
}

// is recognises what worker.Permanent or worker.Redeliver returns, without a worker.
func is(err error, as func(error) error) bool {
	return fmt.Sprintf("%T", err) == fmt.Sprintf("%T", as(errors.New("x")))
}

func isPermanent(err error) bool { return is(err, worker.Permanent) }

func TestACommandThatCannotBeStartedNowIsNoFailure(t *testing.T) {
	c := newCommand(t, Config{}, "true")
	for errno, want := range map[syscall.Errno]bool{
		syscall.EAGAIN: true, syscall.ENOMEM: true, syscall.EMFILE: true, syscall.ENFILE: true,
		syscall.EIO: false, syscall.ETXTBSY: false,
	} {
		err := c.startError("/bin/true", []string{"true"}, os.NewSyscallError("fork", errno))
		if !errors.Is(err, errno) || is(err, worker.Redeliver) != want || isPermanent(err) {
			t.Errorf("%v: %T", err, err)
		}
	}
}

func TestWhetherTheCommandExistsIsKnownBeforehand(t *testing.T) {
	for name, want := range map[string]int{"true": 0, "no-such-command": 127, "/etc/passwd": 126, "{}": 0} {
		err := newCommand(t, Config{}, name).Check()
		var start *StartError
		if errors.As(err, &start) != (want != 0) || start != nil && start.Code != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheInputMayBeTheCommand(t *testing.T) {
	c := newCommand(t, Config{}, "{}")
	mustHandle(t, c, "true")
	if _, err := handle(t, c, "false"); err == nil {
		t.Error("true was run again in place of false")
	}
}

func TestWhatCannotBeAnArgumentIsRefusedForGood(t *testing.T) {
	c := newCommand(t, Config{}, "echo", "{}")
	_, err := handle(t, c, "a\x00b")
	if !errors.Is(err, ErrNUL) || !isPermanent(err) {
		t.Errorf("NUL: %v", err)
	}
	_, err = handle(t, c, strings.Repeat("x", 200_000))
	if !errors.Is(err, syscall.E2BIG) || !isPermanent(err) || !strings.Contains(err.Error(), "--stdin") {
		t.Errorf("too long: %v", err)
	}
}

func TestATaskThatWasCancelledBeforeDoesNotRun(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("nobody waits")
	cancel(reason)
	mark := filepath.Join(t.TempDir(), "mark")
	if _, err := sh(t, Config{}, `touch "$1"`).Handle(ctx, &worker.Task{Payload: []byte(mark)}); !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("it ran")
	}
}

func TestTheEnvironmentIsThatOfThisProcessUnlessGiven(t *testing.T) {
	t.Setenv("MILLRACE_TEST", "inherited")
	script := `echo "$MILLRACE_TEST"`
	if got := mustHandle(t, sh(t, Config{}, script), ""); got != "inherited\n" {
		t.Errorf("got %q", got)
	}
	if got := mustHandle(t, sh(t, Config{Env: []string{"MILLRACE_TEST=given"}}, script), ""); got != "given\n" {
		t.Errorf("got %q", got)
	}
}

func TestTheNumberOfATaskIsReadOffItsID(t *testing.T) {
	for id, want := range map[string]uint64{"job-0": 1, "a-b-41": 42, "": 0, "job": 0, "job-": 0, "7": 8} {
		if got := taskNumber(id); got != want {
			t.Errorf("%q: %d, want %d", id, got, want)
		}
	}
}

func Example() {
	command, err := New([]string{"basename", "{}", ".gz"}, Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	// In a program, this is what worker.New is given.
	out, err := command.Handle(context.Background(), &worker.Task{Payload: []byte("logs/monday.gz")})
	fmt.Printf("%s%v\n", out, err)

	out, err = command.Handle(context.Background(), &worker.Task{})
	fmt.Printf("%s%v\n", out, err)
	// Output:
	// monday
	// <nil>
	//
	// <nil>
}
