package door

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// pipes is a listener whose connections are pipes, so that time can be virtual.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// virtually runs a test in virtual time. dial connects a client, and sends the magic. A
// pipe holds nothing: what the broker sends has to be read before more can be sent.
func virtually(t *testing.T, cfg Config, test func(t *testing.T, d *tcpDoor, dial func() *client)) {
	synctest.Test(t, func(t *testing.T) {
		b, err := broker.Open(broker.Options{Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = b.Close() }()
		cfg.Logger = quiet()
		d := &tcpDoor{Door: New(b, cfg), t: t}
		ln := &pipes{make(chan net.Conn), make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.ServeTCP(ctx, ln) }()
		defer func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}()
		test(t, d, func() *client {
			mine, its := net.Pipe()
			ln.accepted <- its
			c := &client{Conn: mine, t: t, in: bufio.NewReader(mine)}
			c.send(magic)
			return c
		})
	})
}

// wantIn fails the test unless a frame with the data comes after so long.
func (c *client) wantIn(data string, after time.Duration) {
	c.t.Helper()
	start := time.Now()
	_, got, err := c.raw()
	if took := time.Since(start); err != nil || string(got) != data || took != after {
		c.t.Fatalf("after %v: %q, %v; want %q after %v", took, got, err, data, after)
	}
}

// wantEndIn fails the test unless the connection is closed after so long.
func (c *client) wantEndIn(after time.Duration) {
	c.t.Helper()
	start := time.Now()
	kind, data, err := c.raw()
	if took := time.Since(start); !errors.Is(err, io.EOF) || took != after {
		c.t.Fatalf("after %v: frame %d %q, %v; want the end after %v", took, kind, data, err, after)
	}
}

func TestAClientGetsHeartbeatsAndHasToSpeakWithinTwo(t *testing.T) {
	virtually(t, Config{}, func(_ *testing.T, _ *tcpDoor, dial func() *client) {
		c := dial()
		for range 3 {
			c.wantIn("_heartbeat_", 30*time.Second)
			c.send("NOP\n")
		}
		c.wantIn("_heartbeat_", 30*time.Second)
		c.wantEndIn(30 * time.Second)
	})
}

func TestAClientChoosesItsHeartbeat(t *testing.T) {
	virtually(t, Config{}, func(_ *testing.T, _ *tcpDoor, dial func() *client) {
		c := dial()
		time.Sleep(29 * time.Second)
		c.send(identify(`{"heartbeat_interval":5000}`))
		c.want("OK")
		c.wantIn("_heartbeat_", 5*time.Second)
		c.send("NOP\n")
		time.Sleep(time.Second)
		c.wantIn("_heartbeat_", 4*time.Second) // whatever it says in between
		c.wantEndIn(5 * time.Second)
	})
}

func TestAClientThatNeverStopsInBetweenCommandsIsNotSilent(t *testing.T) {
	virtually(t, Config{}, func(_ *testing.T, _ *tcpDoor, dial func() *client) {
		c := dial()
		go func() { _, _ = io.Copy(io.Discard, c.Conn) }()
		c.send("NO")
		for range 300 {
			time.Sleep(time.Second)
			c.send("P\nNO")
		}
	})
}

func TestAClientThatSpeaksAllTheTimeGetsItsHeartbeats(t *testing.T) {
	virtually(t, Config{}, func(t *testing.T, _ *tcpDoor, dial func() *client) {
		c := dial()
		start := time.Now()
		go func() {
			for time.Since(start) < 5*time.Minute {
				_, _ = io.WriteString(c.Conn, "NOP\n")
				time.Sleep(10 * time.Millisecond)
			}
			_ = c.Close()
		}()
		beats := 0
		for {
			if _, data, err := c.raw(); err != nil {
				break
			} else if string(data) == "_heartbeat_" {
				beats++
			}
		}
		if beats < 9 || beats > 10 {
			t.Errorf("%d heartbeats in 5 minutes, want one each 30 s", beats)
		}
	})
}

func TestWithoutHeartbeatsAClientMayBeSilent(t *testing.T) {
	virtually(t, Config{}, func(_ *testing.T, _ *tcpDoor, dial func() *client) {
		c := dial()
		c.send(identify(`{"heartbeat_interval":-1}`))
		c.want("OK")
		time.Sleep(24 * time.Hour)
		c.send(pub("t", "x"))
		c.want("OK")
		_ = c.Close()
	})
}

func TestABodyThatTricklesInIsNoSignOfLife(t *testing.T) {
	virtually(t, Config{}, func(t *testing.T, _ *tcpDoor, dial func() *client) {
		c := dial()
		c.send("PUB t\n", be32(100))
		start := time.Now()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				if _, err := io.WriteString(c.Conn, "x"); err != nil {
					return
				}
				time.Sleep(2 * time.Second)
			}
		}()
		c.wantIn("_heartbeat_", 30*time.Second)
		kind, data, err := c.raw()
		if took := time.Since(start); kind != 1 || string(data) != "E_BAD_MESSAGE PUB failed to read message body" || took < time.Minute || took > 62*time.Second {
			t.Errorf("after %v: frame %d %q, %v", took, kind, data, err)
		}
		_ = c.Close()
		<-ended
	})
}

func TestAClientThatSaysNothingAtAllIsLeft(t *testing.T) {
	virtually(t, Config{}, func(_ *testing.T, d *tcpDoor, _ func() *client) {
		mine, its := net.Pipe()
		c := &client{Conn: mine, t: d.t, in: bufio.NewReader(mine)}
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.newConn(d.t.Context(), its).serve()
		}()
		c.wantEndIn(time.Minute)
		<-done
	})
}

func TestAClientThatDoesNotReadIsLeftAndItsMessagesAreGivenBack(t *testing.T) {
	virtually(t, Config{}, func(t *testing.T, d *tcpDoor, dial func() *client) {
		slow, good := dial(), dial()
		slow.send("SUB t c\n")
		slow.want("OK")
		good.send("SUB t c\n")
		good.want("OK")
		slow.send("RDY 10\n")
		synctest.Wait()
		if err := d.broker.Publish("t", []millrace.Message{{Body: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		good.send("RDY 10\n")
		start := time.Now()
		m := good.message() // passes over heartbeats without answering them: in time all the same
		if took := time.Since(start); took < 30*time.Second || took > 40*time.Second || m.attempts != 2 {
			t.Errorf("attempt %d after %v", m.attempts, took)
		}
		_ = slow.Close()
		_ = good.Close()
	})
}

// messageAfter says NOP when a lease has just ended, because a client that is silent
// beyond that is sent nothing, and returns what comes then.
func (c *client) messageAfter(lease time.Duration) delivered {
	time.Sleep(lease + 10*time.Millisecond)
	c.send("NOP\n")
	return c.message()
}

func TestASilentClientWhoseLeaseHasEndedIsSentNothingUntilItSpeaks(t *testing.T) {
	virtually(t, Config{MsgTimeout: 5 * time.Second}, func(t *testing.T, _ *tcpDoor, dial func() *client) {
		p, silent, other := dial(), dial(), dial()
		for _, c := range []*client{silent, other} {
			c.send("SUB t c\n")
			c.want("OK")
		}
		silent.send("RDY 1\n")
		p.send(pub("t", "x"))
		p.want("OK")
		silent.want("1:x")
		time.Sleep(10 * time.Second) // it could have had it again, and nobody else wants it
		other.send("RDY 1\n")
		other.want("2:x")
		p.send(pub("t", "y"))
		p.want("OK")
		time.Sleep(time.Second)
		silent.send("NOP\n")
		silent.want("1:y")
		_, _, _ = p.Close(), silent.Close(), other.Close()
	})
}

func TestAMessageComesBackWhenItsTimeoutEnds(t *testing.T) {
	virtually(t, Config{}, func(t *testing.T, _ *tcpDoor, dial func() *client) {
		p, c := dial(), dial()
		c.send(identify(`{"msg_timeout":7000}`))
		c.want("OK")
		c.send("SUB t c\n")
		c.want("OK")
		c.send("RDY 1\n")
		p.send(pub("t", "x"))
		p.want("OK")
		first := c.message()
		start := time.Now()
		time.Sleep(6 * time.Second)
		c.send("TOUCH ", first.id, "\n")
		second := c.messageAfter(7 * time.Second)
		if took := time.Since(start); took < 13*time.Second || took > 13*time.Second+100*time.Millisecond {
			t.Errorf("it came back after %v, want 7 s after the touch", took)
		}
		if first.attempts != 1 || second.attempts != 2 || first.id != second.id || first.timestamp != second.timestamp || second.body != "x" {
			t.Errorf("got %+v and then %+v", first, second)
		}
		c.send("FIN ", first.id, "\n") // the id names the lease that is held now
		c.send("FIN ", first.id, "\n")
		c.want("!E_FIN_FAILED FIN " + first.id + " failed ID not in flight")
		_, _ = p.Close(), c.Close()
	})
}

func TestAClientChoosesItsTimeout(t *testing.T) {
	virtually(t, Config{MsgTimeout: 20 * time.Second}, func(t *testing.T, _ *tcpDoor, dial func() *client) {
		for json, want := range map[string]time.Duration{`{}`: 20 * time.Second, `{"msg_timeout":7000}`: 7 * time.Second} {
			p, c := dial(), dial()
			c.send(identify(json))
			c.want("OK")
			c.send("SUB t c\n")
			c.want("OK")
			c.send("RDY 1\n")
			p.send(pub("t", "x"))
			p.want("OK")
			c.want("1:x")
			start := time.Now()
			m := c.messageAfter(want)
			if took := time.Since(start); took < want || took > want+100*time.Millisecond {
				t.Errorf("with %s it came back after %v, want %v", json, took, want)
			}
			c.send("FIN ", m.id, "\n")
			_, _ = p.Close(), c.Close()
		}
	})
}

func TestTouchEndsAtMaxMsgTimeoutAfterDelivery(t *testing.T) {
	virtually(t, Config{MsgTimeout: 10 * time.Second, MaxMsgTimeout: 25 * time.Second}, func(t *testing.T, _ *tcpDoor, dial func() *client) {
		p, c := dial(), dial()
		c.send("SUB t c\n")
		c.want("OK")
		c.send("RDY 1\n")
		p.send(pub("t", "x"))
		p.want("OK")
		m := c.message()
		start := time.Now()
		for range 4 {
			time.Sleep(5 * time.Second)
			c.send("TOUCH ", m.id, "\n")
		}
		if m := c.messageAfter(5 * time.Second); m.attempts != 2 || time.Since(start) > 26*time.Second {
			t.Errorf("attempt %d came after %v", m.attempts, time.Since(start))
		}
		_, _ = p.Close(), c.Close()
	})
}

func TestDeferredMessagesComeWhenTheyAreDue(t *testing.T) {
	virtually(t, Config{MaxReqTimeout: time.Hour}, func(t *testing.T, _ *tcpDoor, dial func() *client) {
		p, c := dial(), dial()
		c.send(identify(`{"heartbeat_interval":60000}`))
		c.want("OK")
		c.send("SUB t c\n")
		c.want("OK")
		c.send("RDY 5\n")
		p.send("DPUB t 20000\n", sized("later"))
		p.want("OK")
		start := time.Now()
		took := func(want time.Duration) {
			t.Helper()
			if took := time.Since(start); took < want || took > want+50*time.Millisecond {
				t.Errorf("it came after %v, want %v", took, want)
			}
			start = time.Now()
		}
		m := c.message()
		took(20 * time.Second)
		c.send("REQ ", m.id, " 30000\n")
		m = c.message()
		took(30 * time.Second)
		c.send("REQ ", m.id, " 0\n")
		m = c.message()
		took(0)
		c.send("REQ ", m.id, " 18446744073709551615\n") // as much as is allowed
		for {
			kind, _, err := c.raw()
			if err != nil {
				t.Fatal(err)
			}
			if kind == 2 {
				break
			}
			c.send("NOP\n")
		}
		took(time.Hour)
		_, _ = p.Close(), c.Close()
	})
}
