package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// served serves the door on a port of its own, and returns that and what stops it.
func served(t *testing.T, d *Door) (addr string, stop func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.ServeHTTP(ctx, ln) }()
	stop = func() error {
		cancel()
		return <-ended
	}
	t.Cleanup(cancel)
	return ln.Addr().String(), stop
}

func send(t *testing.T, conn net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(conn, s); err != nil {
		t.Fatal(err)
	}
}

func TestServeHTTPEndsWhenItsRequestsHave(t *testing.T) {
	addr, stop := served(t, opened(t, Config{}))
	half, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	send(t, half, "POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	begun := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	if _, err := io.ReadFull(half, begun); err != nil {
		t.Fatal(err)
	}
	idle := http.Client{}
	defer idle.CloseIdleConnections()
	resp, err := idle.Get("http://" + addr + "/ping")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	select {
	case err := <-ended:
		t.Fatalf("it ended before a request that had begun: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	send(t, half, "abcd")
	if answer, _ := io.ReadAll(half); !strings.Contains(string(answer), "200 OK") {
		t.Errorf("the request that had begun got %q", answer)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestConnectionsBeyondTheLimitAreClosed(t *testing.T) {
	addr, stop := served(t, opened(t, Config{MaxConnections: 2}))
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	var open []net.Conn
	for range 2 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ping(t, conn)
		open = append(open, conn)
	}
	refused, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer refused.Close()
	if err := refused.SetReadDeadline(time.Now().Add(headerWithin / 2)); err != nil {
		t.Fatal(err)
	}
	if n, err := refused.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a third connection is open: %d, %v", n, err)
	}
	open[0].Close()
	for range 1000 { // the server has to notice
		if conn, err := net.Dial("tcp", addr); err == nil {
			_, _ = io.WriteString(conn, "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n") // it may be closed already
			n, _ := conn.Read(make([]byte, 100))
			conn.Close()
			if n > 0 {
				return
			}
		}
	}
	t.Error("one that had closed still counts")
}

func ping(t *testing.T, conn net.Conn) {
	t.Helper()
	send(t, conn, "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
	if n, err := conn.Read(make([]byte, 1000)); n == 0 {
		t.Fatal(err)
	}
}

func TestHeadersWithoutEndAreRefused(t *testing.T) {
	addr, stop := served(t, opened(t, Config{}))
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		_, _ = io.WriteString(conn, "GET /ping HTTP/1.1\r\n")
		for range 4 * maxHeader / 100 {
			if _, err := fmt.Fprintf(conn, "X-%s: y\r\n", strings.Repeat("x", 94)); err != nil {
				return
			}
		}
	}()
	answer := make([]byte, 100)
	n, _ := conn.Read(answer)
	if !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 431 ") {
		t.Errorf("answered %q", answer[:n])
	}
}
