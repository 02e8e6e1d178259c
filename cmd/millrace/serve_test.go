package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestWhatWasPublishedIsThereAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := serveProcess(t, "millrace", "--data-path", dir)
	if err := s.publisher().Publish("orders", []byte("over TCP")); err != nil {
		t.Fatal(err)
	}
	if status, answer := s.post("/pub?topic=orders", "over HTTP"); status != 200 || answer != "OK" {
		t.Fatalf("POST /pub: %d %s", status, answer)
	}
	if status := s.end(syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}
	s.awaitLog("msg=ended")

	s = serveProcess(t, "millrace", "--data-path", dir)
	if got := s.take("orders", "c", 2); !slices.Equal(got, []string{"over TCP", "over HTTP"}) {
		t.Errorf("messages %q", got)
	}
}

// Clients that are connected, and consumers that wait, do not keep the broker from ending.
func TestItEndsWithClientsConnected(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	_, stop := s.subscribe("orders", "c", 10)
	defer stop()
	began := time.Now()
	if status := s.end(syscall.SIGINT); status != 0 {
		t.Errorf("exit status %d after SIGINT", status)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v to end", took)
	}
}

func TestNothingAcknowledgedIsLostWhenItIsKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var mu sync.Mutex
	acknowledged := make(map[string]bool)
	for round := range 3 {
		s := serveProcess(t, "millrace", "--data-path", dir)
		var publishers sync.WaitGroup
		for client := range 4 {
			p := s.publisher()
			publishers.Go(func() {
				for i := 0; ; i++ {
					body := fmt.Sprintf("%d-%d-%d", round, client, i)
					if p.Publish("orders", []byte(body)) != nil {
						return
					}
					mu.Lock()
					acknowledged[body] = true
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(50+rand.IntN(200)) * time.Millisecond)
		s.end(syscall.SIGKILL)
		publishers.Wait()
	}
	s := serveProcess(t, "millrace", "--data-path", dir)
	if len(acknowledged) < 100 {
		t.Errorf("only %d messages were acknowledged", len(acknowledged))
	}
	s.consume("orders", "c", func(body string) bool {
		delete(acknowledged, body)
		return len(acknowledged) > 0
	})
}

func TestADirectoryIsServedOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serveProcess(t, "millrace", "--data-path", dir)
	second := startServe(t, "millrace", "--data-path", dir)
	if status := second.status(); status != 255 {
		t.Errorf("exit status %d", status)
	}
	want := "millrace: --data-path: " + dir + " is in use by another process: does another broker run?\n"
	if got := second.logged(); got != want {
		t.Errorf("it said %q\nwant     %q", got, want)
	}
}

func TestAnAddressInUseIsNamed(t *testing.T) {
	t.Parallel()
	first := serveProcess(t, "millrace", "--data-path", t.TempDir())
	second := startServe(t, "millrace", "--data-path", t.TempDir(), "--http-address", first.tcp)
	want := "millrace: --http-address: " + first.tcp + " is in use: does another broker run, or nsqd?\n"
	if status, got := second.status(), second.logged(); status != 255 || got != want {
		t.Errorf("exit status %d; it said %q\nwant %q", status, got, want)
	}
}

// The socket that a killed broker left behind is in nobody's way; one in use is.
func TestUnixSockets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	args := []string{"--data-path", dir, "--tcp-address", socket}
	serveProcess(t, "millrace", args...).end(syscall.SIGKILL)
	s := serveProcess(t, "millrace", args...)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	second := startServe(t, "millrace", "--data-path", t.TempDir(), "--tcp-address", socket)
	if status := second.status(); status != 255 || !strings.Contains(second.logged(), socket+" is in use") {
		t.Errorf("exit status %d: %s", status, second.logged())
	}
	s.end(syscall.SIGTERM)
}

// Only what is open to other machines without protection is warned of.
func TestItWarnsWhenItIsOpenToAll(t *testing.T) {
	t.Parallel()
	const warning = "open to other machines"
	closed := serveProcess(t, "millrace", "--data-path", t.TempDir())
	if strings.Contains(closed.logged(), warning) {
		t.Error("it warns of a loopback address")
	}
	opened := serveProcess(t, "millrace", "--data-path", t.TempDir(), "--tcp-address", ":0")
	opened.awaitLog(warning + " without a token")
	tokens := fileWith(t, "tokens", "secret ops admin:*\n")
	guarded := serveProcess(t, "millrace", "--data-path", t.TempDir(), "--tcp-address", ":0", "--auth-token-file", tokens)
	guarded.awaitLog(warning + " without TLS")
}

func TestItOutlivesWhoeverReadsItsLog(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	if err := s.stderr.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if status, answer := s.post("/topic/create?topic=t", ""); status != 200 {
			t.Errorf("%d %s", status, answer)
		}
	}
}

// A flag of nsqd's that does nothing is accepted, and the log says so.
func TestFlagsWithoutMeaningAreNoted(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir(), "--mem-queue-size", "7", "--sync-timeout=1s",
		"--e2e-processing-latency-percentile=0.99,0.95", "--worker-id")
	for _, flag := range []string{"mem-queue-size", "sync-timeout", "e2e-processing-latency-percentile", "worker-id"} {
		s.awaitLog("--" + flag + " has no effect: ")
	}
	if strings.Contains(s.logged(), "sync-every") {
		t.Error("a flag that was not given is noted")
	}
	if _, value := s.get("/config/mem_queue_size"); value != "7" {
		t.Errorf("/config tells %s", value)
	}
}

func TestATokenOpensTheDoor(t *testing.T) {
	t.Parallel()
	tokens := fileWith(t, "tokens", "secret shop publish:orders\n")
	s := serveProcess(t, "millrace", "--data-path", t.TempDir(), "--auth-token-file", tokens)
	pub := millraceCommand(t, "pub", "orders", "--broker", s.url())
	pub.Stdin = strings.NewReader("a\n")
	if out, err := pub.CombinedOutput(); err == nil || !strings.Contains(string(out), "wants a token: set $MILLRACE_TOKEN") {
		t.Errorf("without a token: %v %s", err, out)
	}
	pub = millraceCommand(t, "pub", "orders", "--broker", s.url())
	pub.Env = append(pub.Env, tokenVariable+"=wrong")
	if out, err := pub.CombinedOutput(); err == nil || !strings.Contains(string(out), "does not accept our token") {
		t.Errorf("with a wrong token: %v %s", err, out)
	}
	pub = millraceCommand(t, "pub", "orders", "--broker", s.url())
	pub.Env = append(pub.Env, tokenVariable+"=secret")
	pub.Stdin = strings.NewReader("a\n")
	if out, err := pub.CombinedOutput(); err != nil {
		t.Errorf("with a token: %v %s", err, out)
	}
	pub = millraceCommand(t, "pub", "others", "--broker", s.url())
	pub.Env = append(pub.Env, tokenVariable+"=secret")
	pub.Stdin = strings.NewReader("a\n")
	said := background(t, pub)
	if err := pub.Wait(); err == nil || !strings.Contains(said.String(), "the broker refuses it: ") || !strings.Contains(said.String(), "; 1 line was read but not published") {
		t.Errorf("to a topic that the token is not for: %v %s", err, said.String())
	}
	if status, _ := s.post("/pub?topic=orders", "b"); status != 401 {
		t.Errorf("HTTP without a token: %d", status)
	}
}
