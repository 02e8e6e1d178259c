package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace"
)

// pub runs millrace pub to its end.
func pub(t *testing.T, s *served, stdin string, args ...string) (exit int, stderr string) {
	t.Helper()
	cmd := pubCommand(t, s, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out := background(t, cmd)
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), out.String()
}

func pubCommand(t *testing.T, s *served, args ...string) *exec.Cmd {
	t.Helper()
	return millraceCommand(t, append([]string{"pub", "--broker", s.url()}, args...)...)
}

// background starts a command that is killed with the test, or when it takes too long.
func background(t *testing.T, cmd *exec.Cmd) (stderr *lockedBuffer) {
	t.Helper()
	stderr = new(lockedBuffer)
	cmd.Stderr = stderr
	cmd.WaitDelay = time.Second // what it leaves behind may hold that
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		late.Stop()
		_ = cmd.Process.Kill()
	})
	return stderr
}

func TestEveryLineIsAMessage(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	var lines []string
	for i := range 50_000 {
		lines = append(lines, fmt.Sprint("line ", i))
	}
	if exit, stderr := pub(t, s, strings.Join(lines, "\n"), "t"); exit != 0 || stderr != "" {
		t.Fatalf("exit status %d: %s", exit, stderr)
	}
	if got := s.take("t", "c", len(lines)); !slices.Equal(got, lines) {
		t.Errorf("%d messages, from %q to %q", len(got), got[0], got[len(got)-1])
	}
	if exit, stderr := pub(t, s, "a\nb\x00\x00c", "nul", "-0"); exit != 0 || stderr != "" {
		t.Fatalf("exit status %d: %s", exit, stderr)
	}
	if got := s.take("nul", "c", 2); !slices.Equal(got, []string{"a\nb", "c"}) {
		t.Errorf("with -0: %q", got)
	}
}

// A line is published while its writer still thinks about the next.
func TestSlowLinesArePublishedAtOnce(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	cmd := pubCommand(t, s, "t")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	background(t, cmd)
	for _, line := range []string{"one", "two"} {
		if _, err := io.WriteString(stdin, line+"\n"); err != nil {
			t.Fatal(err)
		}
		if got := s.take("t", "c", 1); got[0] != line {
			t.Errorf("%q, want %q", got[0], line)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 255 {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// What is too large is named, and what stands before it is there.
func TestALineThatIsTooLargeIsAnError(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir(), "--max-msg-size=10")
	exit, stderr := pub(t, s, "a\nb\n12345678901\nc\n", "t")
	if exit != 255 || !strings.Contains(stderr, "a line of 11 bytes cannot be published: message too large: it has 11 bytes, and the broker takes 10 (its --max-msg-size) (2 messages published; 2 lines were read but not published)") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit status %d: %s", exit, stderr)
	}
	if got := s.take("t", "c", 2); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("messages %q", got)
	}
}

// However the broker learns of it: those it does take, around it, are there.
func TestALineThatIsTooLargeIsLeftOutOfASourcesLines(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir(), "--max-msg-size=10")
	for topic, url := range map[string]string{"asked": s.url(), "refused": "nsq://" + s.tcp + "?http=127.0.0.1:1"} {
		cmd := millraceCommand(t, "pub", topic, "--broker", url, "--", "sh", "-c", `printf 'a\nb\n12345678901\nc\nd\n'; exec sleep 1000`)
		stderr := background(t, cmd)
		if got := s.take(topic, "c", 4); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
			t.Errorf("%s: messages %q", topic, got)
		}
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		leftOut, account, _ := strings.Cut(stderr.String(), "\n")
		if !strings.Contains(leftOut, "a line of 11 bytes is not published: ") || account != "millrace: interrupted: 4 messages published, which is all that was read\n" {
			t.Errorf("%s: it said %s", topic, stderr.String())
		}
	}
}

// Asked to end, it waits for a full disk no longer than a few seconds, and counts what is
// not there.
func TestPubToldToEndDoesNotWaitForGood(t *testing.T) {
	t.Parallel()
	r := startMillrace(t, "pub", "t", "--broker", "full:2")
	if _, err := io.WriteString(r.stdin, "1\n2\n"); err != nil { // and no end
		t.Fatal(err)
	}
	if _, err := io.WriteString(r.stdin, "3\n4\n5\n"); err != nil {
		t.Fatal(err)
	}
	r.stderr.await(t, "the broker does not take messages: no space left on the broker's disk; trying again until it does\n")
	began := time.Now()
	_ = r.Process.Signal(syscall.SIGTERM)
	code := r.exit()
	if took := time.Since(began); code != exitOther || took > lastPublish+generous/2 {
		t.Errorf("exit status %d after %v", code, took)
	}
	if !regexp.MustCompile(`millrace: interrupted: (2 messages published; 3|0 messages published; 5) lines were read but not published\n$`).MatchString(r.stderr.String()) {
		t.Errorf("it said %q", r.stderr.String())
	}
}

// A broker that hangs is waited for, in words; and so is one that is asked for the first time.
func TestPubSaysThatTheBrokerDoesNotAnswer(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	r := startMillrace(t, "pub", "t", "--broker", s.url())
	if _, err := io.WriteString(r.stdin, "a\n"); err != nil {
		t.Fatal(err)
	}
	s.take("t", "c", 1)
	suspend(t, s.cmd.Process)
	if _, err := io.WriteString(r.stdin, "b\n"); err != nil {
		t.Fatal(err)
	}
	r.stderr.await(t, "the broker does not take messages: it does not answer; trying again until it does\n")
	_ = s.cmd.Process.Signal(syscall.SIGCONT)
	if got := s.take("t", "c", 1); got[0] != "b" {
		t.Errorf("%q", got)
	}
	_ = r.stdin.Close()
	if code := r.exit(); code != 0 || !strings.HasSuffix(r.stderr.String(), "takes messages again\n") || strings.Count(r.stderr.String(), "\n") != 2 {
		t.Errorf("exit status %d, it said %q", code, r.stderr.String())
	}
}

// A broker that hangs does not keep sub from ending, and what it may not have heard is said.
func TestSubTakesLeaveOfABrokerThatHangs(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	if exit, stderr := pub(t, s, "a\n", "t"); exit != 0 {
		t.Fatal(stderr)
	}
	r := startMillrace(t, "sub", "t", "-c", "c", "-n", "2", "--broker", s.url())
	r.stdout.await(t, "a\n")
	suspend(t, s.cmd.Process)
	defer func() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }()
	_ = r.Process.Signal(os.Interrupt)
	if code := r.exit(); code != exitOther {
		t.Errorf("exit status %d", code)
	}
}

// Where the broker does not number its messages there is no number.
func TestWhatHasNoNumberIsPrintedWithoutOne(t *testing.T) {
	var out bytes.Buffer
	d := millrace.Delivery{Attempt: 1, Message: millrace.Message{Headers: millrace.Headers(nil).Append("k", "v"), Body: []byte("b")}}
	if err := (&messagePrinter{end: '\n', json: true}).print(&out, []millrace.Delivery{d}); err != nil || out.String() != `{"attempt":1,"headers":{"k":"v"},"body":"b"}`+"\n" {
		t.Errorf("%s %v", &out, err)
	}
}

// While the broker is away pub waits, and then publishes what was read.
func TestPubOutlivesTheBroker(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), freeAddress(t)
	args := []string{"--data-path", dir, "--tcp-address", address}
	s := serveProcess(t, "millrace", args...)
	cmd := pubCommand(t, s, "t")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := background(t, cmd)
	_, _ = io.WriteString(stdin, "before\n")
	if got := s.take("t", "c", 1); got[0] != "before" {
		t.Errorf("%q", got)
	}
	s.end(syscall.SIGKILL)
	_, _ = io.WriteString(stdin, "during\n")
	eventually(t, func() bool { return strings.Contains(stderr.String(), "does not take messages") }, "pub does not say that the broker is away")
	s = serveProcess(t, "millrace", args...)
	s.consume("t", "c", func(body string) bool { return body != "during" })
	_ = stdin.Close()
	if err := cmd.Wait(); err != nil || !strings.Contains(stderr.String(), "takes messages again") || strings.Count(stderr.String(), "\n") != 2 {
		t.Errorf("%v %s", err, stderr.String())
	}
}

func TestPubIntoADirectory(t *testing.T) {
	t.Parallel()
	url := "file://" + t.TempDir()
	cmd := millraceCommand(t, "pub", "t", "--broker", url)
	cmd.Stdin = strings.NewReader("a\nb\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	out, err := millraceCommand(t, "sub", "t", "-c", "c", "-n", "2", "--json", "--broker", url).Output()
	if err != nil || !bytes.Contains(out, []byte(`{"id":"0000000000000002","sequence":2,"attempt":1,`)) || !bytes.Contains(out, []byte(`"body":"b"}`)) {
		t.Errorf("%v %s", err, out)
	}
}

func TestSubTakesNoMoreThanItPrints(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	var all strings.Builder
	for i := range 1000 {
		fmt.Fprintln(&all, i)
	}
	if exit, stderr := pub(t, s, all.String(), "t"); exit != 0 {
		t.Fatal(stderr)
	}
	// Who takes a message and gives it back has delivered it.
	out, err := millraceCommand(t, "sub", "t", "-c", "c", "-n", "300", "--broker", s.url()).Output()
	if err != nil || bytes.Count(out, []byte("\n")) != 300 {
		t.Errorf("%v: %d lines", err, bytes.Count(out, []byte("\n")))
	}
	printed := strings.Fields(string(out))
	var rest []string
	described, err := millraceCommand(t, "sub", "t", "-c", "c", "-n", "700", "--json", "--broker", s.url()).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(described) {
		var d description
		if err := json.Unmarshal(line, &d); err != nil {
			t.Fatal(err)
		}
		if d.Attempt != 1 {
			t.Fatalf("it took what it did not print: %s", line)
		}
		rest = append(rest, string(d.bytes()))
	}
	if got := slices.Concat(printed, rest); len(slices.Compact(slices.Sorted(slices.Values(got)))) != 1000 {
		t.Error("messages were lost, or came twice")
	}
}

func TestSubFollowsUntilItIsToldToEnd(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	cmd := millraceCommand(t, "sub", "t", "-0", "--broker", s.url())
	out := new(lockedBuffer)
	cmd.Stdout = out
	stderr := background(t, cmd)
	eventually(t, func() bool {
		_, body := s.get("/stats?format=json&topic=t")
		return strings.Contains(body, "ephemeral")
	}, "it does not subscribe")
	if exit, stderr := pub(t, s, "a\nb\n", "t"); exit != 0 {
		t.Fatal(stderr)
	}
	eventually(t, func() bool { return out.String() == "a\x00b\x00" }, "it does not print what was published")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v %s", err, stderr.String())
	}
	eventually(t, func() bool {
		_, body := s.get("/stats?format=json&topic=t")
		return !strings.Contains(body, "ephemeral")
	}, "its channel stays")
}

// A broker that goes and comes again is found again.
func TestSubOutlivesTheBroker(t *testing.T) {
	t.Parallel()
	args := []string{"--data-path", t.TempDir(), "--tcp-address", freeAddress(t)}
	s := serveProcess(t, "millrace", args...)
	cmd := millraceCommand(t, "sub", "t", "-c", "c", "-n", "2", "--broker", s.url())
	out := new(lockedBuffer)
	cmd.Stdout = out
	background(t, cmd)
	if exit, stderr := pub(t, s, "a\n", "t"); exit != 0 {
		t.Fatal(stderr)
	}
	eventually(t, func() bool { return out.String() == "a\n" }, "it does not print")
	eventually(t, func() bool {
		_, body := s.get("/stats?format=json&topic=t")
		return strings.Contains(body, `"depth":0`) && strings.Contains(body, `"in_flight_count":0`)
	}, "it does not ack")
	s.end(syscall.SIGTERM) // in order: the ack is kept, or else the message would come again
	s = serveProcess(t, "millrace", args...)
	if exit, stderr := pub(t, s, "b\n", "t"); exit != 0 {
		t.Fatal(stderr)
	}
	if err := cmd.Wait(); err != nil || out.String() != "a\nb\n" {
		t.Errorf("%v %q", err, out.String())
	}
}
