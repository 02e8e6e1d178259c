package door

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// virtualHTTP runs a test in virtual time, with a connection over which sends was said to
// the door. stop ends ServeHTTP and waits for it.
func virtualHTTP(t *testing.T, sends string, test func(t *testing.T, conn net.Conn, stop func() error)) {
	synctest.Test(t, func(t *testing.T) {
		d := opened(t, Config{})
		defer d.broker.Close()
		ln := &pipes{make(chan net.Conn), make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- d.ServeHTTP(ctx, ln) }()
		ours, theirs := net.Pipe()
		defer ours.Close()
		ln.accepted <- theirs
		if _, err := io.WriteString(ours, sends); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		test(t, ours, func() error {
			cancel()
			return <-ended
		})
	})
}

// A client that is slow is given up, however it is slow, and ends with nobody waiting for
// it: the bubble would not end otherwise.
func TestASlowClientIsGivenUp(t *testing.T) {
	for _, c := range []struct {
		name, sends string
		after       time.Duration
		says        string // what it is told before the end
	}{
		{"that says nothing", "", headerWithin, ""},
		{"whose headers do not end", "GET /ping HTTP/1.1\r\nHost: x\r\n", headerWithin, ""},
		{"whose body does not come", "POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab", bodyWithin, "INTERNAL_ERROR"},
		{"whose body nobody wants", "POST /topic/create?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab", bodyWithin, "200 OK"},
		{"that asks nothing more", "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n", idleWithin, "200 OK"},
	} {
		t.Run(c.name, func(t *testing.T) {
			virtualHTTP(t, c.sends, func(t *testing.T, conn net.Conn, stop func() error) {
				began := time.Now()
				answer, err := io.ReadAll(conn)
				if took := time.Since(began); err != nil || took != c.after {
					t.Errorf("the connection ended after %s, want %s: %v", took, c.after, err)
				}
				if !strings.Contains(string(answer), c.says) {
					t.Errorf("it was told %q", answer)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestAClientThatDoesNotTakeItsAnswerIsGivenUp(t *testing.T) {
	virtualHTTP(t, "GET /stats HTTP/1.1\r\nHost: x\r\n\r\n", func(t *testing.T, conn net.Conn, stop func() error) {
		time.Sleep(answerTaken + time.Second)
		if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
			t.Errorf("the answer is still there: %d, %v", n, err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// A handler that goes on after its connection was closed is waited for all the same.
func TestServeHTTPLeavesNoHandlerBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := opened(t, Config{})
		defer d.broker.Close()
		ln := &pipes{make(chan net.Conn), make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- d.serveHTTP(ctx, ln, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Minute) }))
		}()
		ours, theirs := net.Pipe()
		defer ours.Close()
		ln.accepted <- theirs
		if _, err := io.WriteString(ours, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		cancel()
		if err := <-ended; err != nil || time.Since(began) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

func TestServeHTTPDoesNotWaitLongForARequestThatDoesNotEnd(t *testing.T) {
	half := "POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab"
	virtualHTTP(t, half, func(t *testing.T, conn net.Conn, stop func() error) {
		go discard(conn)
		began := time.Now()
		if err := stop(); err != nil || time.Since(began) < drainWithin || time.Since(began) > drainWithin+time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}
