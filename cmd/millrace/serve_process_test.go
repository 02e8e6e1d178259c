package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nsqio/go-nsq"

	"github.com/millrace/millrace"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// served is a broker in a process of its own.
type served struct {
	t                *testing.T
	cmd              *exec.Cmd
	tcp, http, https string // addresses
	exited           chan error
	stderr           io.Closer // our end

	mu  sync.Mutex // guards log
	log bytes.Buffer
}

// serveProcess starts a program, millrace or nsqd, with ports that the system picks, and
// returns when it listens.
func serveProcess(t *testing.T, program string, args ...string) *served {
	t.Helper()
	s := startServe(t, program, args...)
	deadline := time.After(patience)
	for {
		if tcp, http := s.address("tcp"), s.address("http"); tcp != "" && http != "" {
			s.tcp, s.http, s.https = tcp, http, s.address("https")
			return s
		}
		select {
		case err := <-s.exited:
			t.Fatalf("%s %v ended: %v\n%s", program, args, err, s.logged())
		case <-deadline:
			t.Fatalf("%s %v does not listen\n%s", program, args, s.logged())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func startServe(t *testing.T, program string, args ...string) *served {
	t.Helper()
	cmd := millraceCommand(t)
	if program == "nsqd" {
		cmd.Args = []string{"/usr/bin/nsqd"}
	} else {
		cmd.Args = append(cmd.Args, "serve")
	}
	all := strings.Join(args, " ")
	for _, flag := range []string{"-tcp-address", "-http-address", "-https-address"} {
		if !strings.Contains(all, flag) {
			cmd.Args = append(cmd.Args, "-"+flag+"=127.0.0.1:0")
		}
	}
	cmd.Args = append(cmd.Args, args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, cmd: cmd, exited: make(chan error, 1), stderr: stderr}
	go func() {
		lines := bufio.NewReader(stderr)
		for {
			line, err := lines.ReadBytes('\n')
			s.mu.Lock()
			s.log.Write(line)
			s.mu.Unlock()
			if err != nil {
				s.exited <- cmd.Wait()
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if t.Failed() {
			t.Logf("%s logged:\n%s", program, s.logged())
		}
	})
	return s
}

func (s *served) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// address is where a door listens, "" before it does.
func (s *served) address(door string) string {
	found := regexp.MustCompile(`msg=listening door=` + door + ` address=(\S+)`).FindStringSubmatch(s.logged())
	if found == nil {
		return ""
	}
	return found[1]
}

// end sends a signal, waits for the end, and returns the exit status; -1 for a signal.
func (s *served) end(sig syscall.Signal) int {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	return s.status()
}

func (s *served) status() int {
	s.t.Helper()
	select {
	case err := <-s.exited:
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			return exit.ExitCode()
		case err != nil:
			s.t.Fatal(err)
		}
		return 0
	case <-time.After(patience):
		s.t.Fatalf("it does not end\n%s", s.logged())
		return 0
	}
}

// awaitLog waits for a text in the log.
func (s *served) awaitLog(text string) {
	s.t.Helper()
	eventually(s.t, func() bool { return strings.Contains(s.logged(), text) }, "the log does not say "+text)
}

// get returns the answer to a GET of the HTTP door.
func (s *served) get(path string) (status int, body string) {
	s.t.Helper()
	return do(s.t, http.MethodGet, "http://"+s.http+path, "")
}

// post returns the answer to a POST.
func (s *served) post(path, body string) (status int, answer string) {
	s.t.Helper()
	return do(s.t, http.MethodPost, "http://"+s.http+path, body)
}

func do(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// publisher is a client that nobody here wrote.
func (s *served) publisher() *nsq.Producer {
	s.t.Helper()
	p, err := nsq.NewProducer(s.tcp, nsq.NewConfig())
	if err != nil {
		s.t.Fatal(err)
	}
	p.SetLogger(nil, nsq.LogLevelMax)
	s.t.Cleanup(p.Stop)
	return p
}

// take consumes and returns the bodies of n messages.
func (s *served) take(topic, channel string, n int) (bodies []string) {
	s.t.Helper()
	s.consume(topic, channel, func(body string) bool {
		bodies = append(bodies, body)
		return len(bodies) < n
	})
	return bodies
}

// consume consumes messages until one of them was the last.
func (s *served) consume(topic, channel string, more func(body string) bool) {
	s.t.Helper()
	c, stop := s.subscribe(topic, channel, 100)
	defer stop()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	buf := make([]millrace.Delivery, 100)
	for {
		n, err := c.Receive(ctx, buf)
		if err != nil {
			s.t.Fatalf("nothing more comes: %v", err)
		}
		for i, d := range buf[:n] {
			if !more(string(d.Body)) {
				_ = c.Ack(ctx, buf[:i+1]...)
				return
			}
		}
		if err := c.Ack(ctx, buf[:n]...); err != nil {
			s.t.Fatal(err)
		}
	}
}

// subscribe subscribes over a connection of its own, until stop is called.
func (s *served) subscribe(topic, channel string, prefetch int) (_ millrace.Subscription, stop func()) {
	s.t.Helper()
	b, err := millrace.Open(s.t.Context(), s.url())
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := b.Subscribe(s.t.Context(), topic, channel, millrace.SubscribeOptions{Prefetch: prefetch})
	if err != nil {
		s.t.Fatal(errors.Join(err, b.Close()))
	}
	return c, func() { _ = b.Close() }
}

// eventually waits until something is so.
func eventually(t *testing.T, so func() bool, otherwise string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(otherwise)
		}
	}
}

// freeAddress is one that nobody listens on, as far as that can be known.
func freeAddress(t *testing.T) string {
	t.Helper()
	var config net.ListenConfig
	ln, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

// fileWith writes a file into a directory of the test's, and returns its path.
func fileWith(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
