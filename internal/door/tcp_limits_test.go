package door

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace"
)

func TestConnectionsCanBeLimited(t *testing.T) {
	d := serveTCP(t, Config{MaxConnections: 2})
	one, two := d.dial(), d.dial()
	for _, c := range []*client{one, two} {
		c.send(pub("t", "x"))
		c.want("OK")
	}
	three := d.connect()
	three.want("!E_INVALID too many connections, the limit is 2")
	three.wantEnd()
	_ = one.Close()
	eventually(t, "there is a place again", func() bool {
		c := d.connect()
		defer func() { _ = c.Close() }()
		if _, err := io.WriteString(c.Conn, magic+pub("t", "x")); err != nil {
			return false
		}
		return c.frame() == "OK"
	})
}

// The client is still sending its message when it is refused. Were the connection just
// closed, it would see a reset instead of the reason.
func TestWhoSendsTooMuchIsToldWhy(t *testing.T) {
	d := serveTCP(t, Config{})
	for range 5 {
		c := d.dial()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = io.WriteString(c.Conn, "PUB t\n"+be32(4<<20)+strings.Repeat("x", 4<<20))
		}()
		c.want("!E_BAD_MESSAGE PUB message too big 4194304 > 1048576")
		if _, err := c.in.ReadByte(); err != io.EOF {
			t.Errorf("after the error came %v, want the end", err)
		}
		<-sent
	}
}

func TestClosingTheDoorEndsEveryConnection(t *testing.T) {
	before := goleak.IgnoreCurrent()
	d := serveTCP(t, Config{})
	p, c := d.dial(), d.dial()
	c.send("SUB t c\nRDY 100\n")
	c.want("OK")
	idle, half := d.connect(), d.dial()
	half.send("PUB t\n", be32(100), "half")
	go func() { // all the time, without reading answers
		for {
			if _, err := io.WriteString(p.Conn, pub("t", "x")); err != nil {
				return
			}
		}
	}()
	c.message()
	d.stop()
	d.eachClient(func(s clientStats) { t.Errorf("a client is left: %+v", s) })
	if depth := d.depth("t", "c"); depth.InFlight != 0 {
		t.Errorf("%d messages are still in flight", depth.InFlight)
	}
	for _, c := range []*client{p, idle, half, c} {
		if _, err := io.Copy(io.Discard, c.in); err != nil && !isReset(err) {
			t.Error(err)
		}
		_ = c.Close()
	}
	if _, err := net.Dial("tcp", d.addr); err == nil {
		t.Error("the door is still open")
	}
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("github.com/millrace/millrace/broker.(*housekeeper).run"))
}

func isReset(err error) bool {
	return strings.Contains(err.Error(), "reset by peer")
}

func TestAListenerThatFailsIsReported(t *testing.T) {
	d := serveTCP(t, Config{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if err := d.ServeTCP(context.Background(), ln); err == nil {
		t.Error("serving a closed listener is fine")
	}
}

func TestStatisticsTellOfEachClient(t *testing.T) {
	d := serveTCP(t, Config{})
	p, c := d.dial(), d.dial()
	p.send(identify(`{"client_id":"p","hostname":"h","user_agent":"agent/1"}`), mpub("t", "1", "2", "3"), pub("u", "x"), "DPUB u 60000\n", sized("x"))
	p.want("OK", "OK", "OK", "OK")
	c.send("SUB t c\nRDY 2\n")
	c.want("OK")
	one, two := c.message(), c.message()
	c.send("FIN ", one.id, "\nREQ ", two.id, " 60000\n")
	three := c.message()
	got := d.onlyClient(func(s clientStats) bool { return s.producer })
	if fmt.Sprint(got.PubCounts) != "[{t 3} {u 2}]" || got.ClientID != "p" || got.Hostname != "h" || got.UserAgent != "agent/1" || got.State != stateInit {
		t.Errorf("the producer is %+v", got)
	}
	if line := got.String(); !strings.HasPrefix(line, "[V2 h:") || !strings.Contains(line, "agent/1") || !strings.Contains(line, "] msgs: 5        topics: t=3,u=2 connected: ") {
		t.Errorf("its line is %q", line)
	}
	got = d.onlyClient(func(s clientStats) bool { return !s.producer })
	want := clientStats{
		ClientID: "127.0.0.1", Hostname: "127.0.0.1", Version: "V2", RemoteAddress: c.LocalAddr().String(), State: stateSubscribed,
		ReadyCount: 2, InFlightCount: 1, MessageCount: 3, FinishCount: 1, RequeueCount: 1, ConnectTime: got.ConnectTime, channel: channelName{"t", "c"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the consumer is %+v, want %+v", got, want)
	}
	if line := got.String(); !strings.Contains(line, "] state: 3 inflt: 1    rdy: 2    fin: 1        re-q: 1        msgs: 3        connected: ") {
		t.Errorf("its line is %q", line)
	}
	text, err := json.Marshal(got)
	if err != nil || !strings.HasPrefix(string(text), `{"client_id":"127.0.0.1","hostname":"127.0.0.1","version":"V2","remote_address":"`) ||
		!strings.HasSuffix(string(text), `"deflate":false,"snappy":false,"user_agent":"","tls":false,"tls_cipher_suite":"","tls_version":"","tls_negotiated_protocol":"","tls_negotiated_protocol_is_mutual":false}`) {
		t.Errorf("in JSON it is %s, %v", text, err)
	}
	c.send("FIN ", three.id, "\n")
}

// What a busy connection took does not stay with an idle one.
func TestBuffersShrinkWhenTheyAreNotNeeded(t *testing.T) {
	virtually(t, Config{}, func(t *testing.T, d *tcpDoor, dial func() *client) {
		c := dial()
		c.send(identify(`{"heartbeat_interval":-1}`))
		c.want("OK")
		for range 20 {
			c.send(mpub("t", strings.Repeat("x", 300_000)))
			c.want("OK")
		}
		var of *conn
		synctest.Wait()
		d.mu.Lock()
		for of = range d.conns {
		}
		d.mu.Unlock()
		if n := cap(of.in.buf); n < 300_000 || n > 1<<20 {
			t.Errorf("the buffer has %d bytes, for 300 000 at a time", n)
		}
		for range 3 {
			time.Sleep(inputReview)
			c.send("NOP\n")
		}
		synctest.Wait()
		if n := cap(of.in.buf); n > minInput {
			t.Errorf("the buffer of an idle connection has %d bytes", n)
		}
		_ = c.Close()
	})
}

// A size that is only said costs nothing.
func TestMemoryIsTakenForBytesNotForPromises(t *testing.T) {
	virtually(t, Config{MaxBodySize: 1 << 30, MaxMsgSize: 1 << 30}, func(t *testing.T, d *tcpDoor, dial func() *client) {
		c := dial()
		c.send("PUB t\n", be32(1<<30), "xxxx")
		synctest.Wait()
		d.mu.Lock()
		for of := range d.conns {
			if n := cap(of.in.buf); n > 4096 {
				t.Errorf("the buffer has %d bytes", n)
			}
		}
		d.mu.Unlock()
		_ = c.Close()
	})
}

func TestIdleConnectionsCostFewKilobytes(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own memory counts")
	}
	const clients = 500
	d := serveTCP(t, Config{})
	p := d.dial()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var all []*client
	for i := range clients {
		c := d.dial()
		c.in = nil // the client's memory is not meant
		c.send(identify(`{"client_id":"x"}`), fmt.Sprintf("SUB t%d c\nRDY 100\n", i%10))
		all = append(all, c)
	}
	eventually(t, "all have subscribed", func() bool {
		n := 0
		d.eachClient(func(s clientStats) {
			if s.ReadyCount > 0 {
				n++
			}
		})
		return n == clients
	})
	for i := range 10 { // and have been busy once
		p.send(mpub(fmt.Sprintf("t%d", i), make200()...))
		p.want("OK")
	}
	eventually(t, "all is sent", func() bool { return d.depth("t9", "c").Ready == 0 })
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := int64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse) / clients
	t.Logf("%d bytes a connection", each)
	if each > 40_000 {
		t.Errorf("a connection costs %d bytes, want at most 40 000", each)
	}
	for _, c := range all {
		_ = c.Close()
	}
}

// It may be empty, as none can be that comes over NSQ: then it is as our drivers publish it.
func TestAMessageOfTheEmbeddedBrokerIsDeliveredToo(t *testing.T) {
	d := serveTCP(t, Config{})
	c := d.dial()
	c.send("SUB t c\nRDY 1\n")
	c.want("OK")
	if err := d.broker.Publish("t", []millrace.Message{{Body: nil}}); err != nil {
		t.Fatal(err)
	}
	c.want("1:MR1 {}\n")
}
