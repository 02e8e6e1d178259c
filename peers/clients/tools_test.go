package clients

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/millrace/millrace/peers/node"
)

// tool is one of NSQ's programs, running.
type tool struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	said bytes.Buffer // on stderr
}

// run starts the tool. It ends with the test, or sooner.
func run(t *testing.T, name string, stdin io.Reader, stdout io.Writer, args ...string) *tool {
	t.Helper()
	path, err := node.Tool(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	p := &tool{t: t, name: name, cmd: exec.CommandContext(ctx, path, args...)}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, stdout, &p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = p.cmd.Wait() // where the test has waited already
	})
	return p
}

// wait waits until it has ended well.
func (p *tool) wait() {
	p.t.Helper()
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("%s: %v: %s", p.name, err, p.said.String())
	}
}

// stop asks it to end, and waits for that.
func (p *tool) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	p.wait()
}

// output is what a tool prints while it runs.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// lines are the lines so far, sorted.
func (o *output) lines() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return sortedLines(o.buf.String())
}

func sortedLines(text string) []string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	slices.Sort(lines)
	return lines
}

func TestToNSQAndNSQTail(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		all := bodies("line", 500)
		post(t, n, "/topic/create?topic=t", "")
		post(t, n, "/channel/create?topic=t&channel=c", "")
		var tailed output
		tail := run(t, "nsq_tail", nil, &tailed, "--topic=t", "--channel=c", "-n=500", "--nsqd-tcp-address="+n.TCP)
		run(t, "to_nsq", strings.NewReader(strings.Join(all, "\n")+"\n"), io.Discard, "--topic=t", "--nsqd-tcp-address="+n.TCP).wait()
		tail.wait()
		if got := tailed.lines(); !slices.Equal(got, all) {
			t.Errorf("nsq_tail printed %d lines %s", len(got), some(got))
		}
	})
}

func TestNSQToFile(t *testing.T) {
	for _, way := range []string{"nsqd-tcp-address", "lookupd-http-address"} {
		t.Run(way, func(t *testing.T) {
			onBoth(t, nil, func(t *testing.T, n *node.Node) {
				address := n.TCP
				if way == "lookupd-http-address" {
					if n.Name == "nsqd" {
						address = withLookupd(t, n)
					} else {
						address = n.HTTP // it is its own nsqlookupd
					}
				}
				all := bodies("line", 1000)
				publish(t, n, "t", all...)
				dir := t.TempDir()
				p := run(t, "nsq_to_file", nil, io.Discard, "--topic=t", "--channel=archive", "--output-dir="+dir, "--gzip", "--max-in-flight=300", "--"+way+"="+address)
				eventually(t, func() error {
					channels, err := stats(n, "t")
					if ch := channels["archive"]; err != nil || ch.Messages != len(all) || ch.Depth > 0 {
						return fmt.Errorf("%+v %w", ch, err)
					}
					return nil
				})
				p.stop()
				if got := zipped(t, dir); !slices.Equal(got, all) {
					t.Errorf("%d lines in its files: %s", len(got), some(got))
				}
				wantDone(t, n, "t", "archive")
			})
		})
	}
}

// withLookupd tells the node of an nsqlookupd, whose HTTP address it returns.
func withLookupd(t *testing.T, n *node.Node) string {
	t.Helper()
	l := lookupd(t)
	put(t, n, "/config/nsqlookupd_tcp_addresses", fmt.Sprintf("[%q]", l.TCP))
	return l.HTTP
}

// zipped are the lines of the files in dir, sorted.
func zipped(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	var text strings.Builder
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err == nil {
			_, err = io.Copy(&text, z)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return sortedLines(text.String())
}

func TestNSQStat(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		publish(t, n, "t", bodies("m", 42)...)
		post(t, n, "/channel/create?topic=t&channel=c", "")
		eventually(t, func() error {
			if channels, err := stats(n, "t"); err != nil || channels["c"].Depth != 42 {
				return fmt.Errorf("%+v %w", channels, err)
			}
			return nil
		})
		var out output
		run(t, "nsq_stat", nil, &out, "--topic=t", "--channel=c", "--nsqd-http-address="+n.HTTP, "--interval=50ms", "--count=1").wait()
		if !regexp.MustCompile(`\| +42 +\d+ +\d+ +0 +0 \| +0 +0 +42 +0`).MatchString(strings.Join(out.lines(), "\n")) {
			t.Errorf("it says:\n%s", strings.Join(out.lines(), "\n"))
		}
	})
}

// What the tools need to find is on the node itself.
func TestNSQStatByLookup(t *testing.T) {
	t.Parallel()
	n := start(t, node.Millrace, t.TempDir(), nil)
	publish(t, n, "t", "m")
	post(t, n, "/channel/create?topic=t&channel=c", "")
	var out output
	run(t, "nsq_stat", nil, &out, "--topic=t", "--channel=c", "--lookupd-http-address="+n.HTTP, "--interval=50ms", "--count=1").wait()
	if lines := out.lines(); len(lines) < 3 {
		t.Errorf("it says:\n%s", strings.Join(lines, "\n"))
	}
}
