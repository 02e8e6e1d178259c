package door

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// cutOff counts consumers that never read and were cut off.
var cutOff atomic.Int64

// The clients of nightmares. Each gets a connection and does its worst until it is cut off
// or the context ends.
var hostile = map[string]func(ctx context.Context, c net.Conn){
	"a consumer that never reads": func(ctx context.Context, c net.Conn) {
		_, err := io.WriteString(c, magic+"SUB big c\nRDY 2500\n")
		for err == nil && ctx.Err() == nil {
			breathe()
			_, err = io.WriteString(c, "NOP\n") // it is alive, after all
		}
		if ctx.Err() == nil {
			cutOff.Add(1)
		}
	},
	"a publisher that never reads": func(ctx context.Context, c net.Conn) {
		_, _ = io.WriteString(c, magic)
		for ctx.Err() == nil {
			if _, err := io.WriteString(c, strings.Repeat(pub("flood", "x"), 100)); err != nil {
				return
			}
			breathe()
		}
	},
	"a line without an end": func(ctx context.Context, c net.Conn) {
		_, _ = io.WriteString(c, magic)
		for ctx.Err() == nil {
			if _, err := io.WriteString(c, strings.Repeat("x", 4096)); err != nil {
				return
			}
			breathe()
		}
	},
	"sizes of gigabytes": func(ctx context.Context, c net.Conn) {
		_, _ = io.WriteString(c, magic+"PUB t\n"+be32(1<<31-1)+strings.Repeat("x", 1000))
		<-ctx.Done()
	},
	"a batch of billions": func(ctx context.Context, c net.Conn) {
		_, _ = io.WriteString(c, magic+"MPUB t\n"+be32(5<<20)+be32(1<<31-1)+strings.Repeat(be32(1)+"x", 1000))
		<-ctx.Done()
	},
	"a body that never comes": func(ctx context.Context, c net.Conn) {
		_, _ = io.WriteString(c, magic+"MPUB t\n"+be32(5<<20)+be32(1000)+be32(1<<20)+"half")
		<-ctx.Done()
	},
	"nothing at all": func(ctx context.Context, _ net.Conn) { <-ctx.Done() },
	"a byte now and then": func(ctx context.Context, c net.Conn) {
		for _, b := range []byte(magic + "SUB big d\nRDY 1\n" + strings.Repeat("NOP\n", 1000)) {
			if _, err := c.Write([]byte{b}); err != nil || ctx.Err() != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	},
	"noise": func(ctx context.Context, c net.Conn) {
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := c.Write([]byte(strings.Repeat(string(rune(i%0x10ffff)), 1000))); err != nil {
				return
			}
			breathe()
		}
	},
	"a hang-up in the middle": func(ctx context.Context, c net.Conn) {
		_, _ = io.WriteString(c, magic+"SUB big e\nRDY 100\nFIN 00000")
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	},
	"compression that is none": func(ctx context.Context, c net.Conn) {
		_, _ = io.WriteString(c, magic+identify(`{"feature_negotiation":true,"deflate":true,"deflate_level":6}`)+strings.Repeat("\x00\xff", 10_000))
		<-ctx.Done()
	},
}

// breathe leaves the others some of the processor: that everybody can take.
func breathe() { time.Sleep(time.Millisecond) }

const (
	hostileEach  = 3 // clients of each kind at a time
	hostileFor   = 1000 * time.Millisecond
	mostHeap     = 200 << 20
	mostAnswerIn = 5 * time.Second // for one who is not hostile, on a busy machine
)

// While all of them do their worst, and as many connections as anybody can make beat at the
// door, another client is served as if they were not there; memory is bounded; and when they
// are gone, nothing of them is left.
func TestHostileClientsHarmNobody(t *testing.T) {
	before := goleak.IgnoreCurrent()
	b, err := broker.Open(broker.Options{Dir: t.TempDir(), Sync: broker.SyncNever, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	kinds := len(hostile)
	d := serveTCPOf(t, b, Config{ClientTimeout: 400 * time.Millisecond, MaxConnections: kinds*hostileEach + 50})
	var big []millrace.Message
	for range 400 {
		big = append(big, millrace.Message{Body: make([]byte, 64<<10)})
	}
	for _, channel := range []string{"c", "d", "e"} {
		if _, err := b.Channel("big", channel); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Publish("big", big); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), hostileFor)
	defer cancel()
	var attackers sync.WaitGroup
	var connections atomic.Int64
	attack := func(do func(ctx context.Context, c net.Conn)) {
		attackers.Go(func() {
			for ctx.Err() == nil {
				c, err := net.Dial("tcp", d.addr)
				if err != nil {
					continue
				}
				connections.Add(1)
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				do(ctx, c)
				stop()
				_ = c.Close()
			}
		})
	}
	for _, do := range hostile {
		for range hostileEach {
			attack(do)
		}
	}
	for range 4 { // a storm: connections beyond the limit, one after the other
		attack(func(context.Context, net.Conn) { breathe() })
	}
	heap := watchHeap(ctx)
	served, slowest := serveSomebody(t, ctx, d)
	attackers.Wait()
	most := <-heap
	t.Logf("%d hostile connections; somebody else was answered %d times, at the slowest in %v; at most %d MB of heap", connections.Load(), served, slowest, most>>20)
	if served < 10 || slowest > mostAnswerIn {
		t.Errorf("somebody else was answered %d times, at the slowest in %v", served, slowest)
	}
	if cutOff.Load() == 0 {
		t.Error("who never reads is never cut off")
	}
	if most > mostHeap && !raceEnabled {
		t.Errorf("%d MB of heap", most>>20)
	}
	eventually(t, "all are gone", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.conns) == 0 && len(d.consumers) == 0
	})
	if err := b.DeleteTopic("big"); err != nil {
		t.Error(err)
	}
	d.stop()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, before)
}

// watchHeap tells at the end of the context how much heap there was at most.
func watchHeap(ctx context.Context) <-chan uint64 {
	most := make(chan uint64, 1)
	go func() {
		var m runtime.MemStats
		highest := uint64(0)
		for ctx.Err() == nil {
			runtime.ReadMemStats(&m)
			highest = max(highest, m.HeapInuse)
			time.Sleep(20 * time.Millisecond)
		}
		most <- highest
	}()
	return most
}

// serveSomebody publishes and consumes one message after the other, and tells how often and
// how fast it was answered at the slowest.
func serveSomebody(t *testing.T, ctx context.Context, d *tcpDoor) (served int, slowest time.Duration) { //nolint:revive // t comes first
	c := d.dial()
	defer func() { _ = c.Close() }()
	c.send("SUB good c\nRDY 1\n")
	c.want("OK")
	for ctx.Err() == nil {
		start := time.Now()
		c.send(pub("good", fmt.Sprint(served)))
		for _, frame := range []string{c.frame(), c.frame()} { // in either order
			if frame != "OK" && frame != fmt.Sprintf("1:%d", served) {
				t.Fatalf("got %q", shorten(frame))
			}
		}
		c.send(fmt.Sprintf("FIN %016x\n", served+1))
		served++
		slowest = max(slowest, time.Since(start))
	}
	return served, slowest
}

// The same over HTTP: bodies that never come, headers that do not end, answers that nobody
// takes, and as many connections as anybody can make.
func TestHostileHTTPClientsHarmNobody(t *testing.T) {
	before := goleak.IgnoreCurrent()
	b, err := broker.Open(broker.Options{Dir: t.TempDir(), Sync: broker.SyncNever, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	d := New(b, Config{Logger: quiet(), MaxConnections: 60})
	go func() { ended <- d.ServeHTTP(serving, ln) }()

	ctx, cancel := context.WithTimeout(t.Context(), hostileFor)
	defer cancel()
	var attackers sync.WaitGroup
	for _, says := range []string{
		"", "GET /ping HTTP/1.1\r\nHost: x\r\nX: ", "POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n",
		"POST /mpub?topic=t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n",
		"POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 9223372036854775807\r\n\r\n",
		"GET /" + strings.Repeat("x", 1<<20), strings.Repeat("GET /stats HTTP/1.1\r\nHost: x\r\n\r\n", 1000),
	} {
		for range hostileEach {
			attackers.Go(func() {
				for ctx.Err() == nil {
					c, err := net.Dial("tcp", ln.Addr().String())
					if err != nil {
						continue
					}
					stop := context.AfterFunc(ctx, func() { _ = c.Close() })
					_, _ = io.WriteString(c, says)
					_, _ = io.CopyN(c, filler{}, 1<<20) // and what follows, as long as it is taken
					select {
					case <-ctx.Done():
					case <-time.After(200 * time.Millisecond):
					}
					stop()
					_ = c.Close()
				}
			})
		}
	}
	heap := watchHeap(ctx)
	served, slowest := 0, time.Duration(0)
	web := &http.Client{Timeout: patience, Transport: &http.Transport{}}
	for ctx.Err() == nil {
		start := time.Now()
		resp, err := web.Post("http://"+ln.Addr().String()+"/pub?topic=good", "", strings.NewReader("x"))
		if err != nil {
			continue // it was one too many, or the time is over
		}
		if resp.StatusCode != http.StatusOK {
			t.Error(resp.Status)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		served++
		slowest = max(slowest, time.Since(start))
	}
	attackers.Wait()
	most := <-heap
	t.Logf("somebody else was answered %d times, at the slowest in %v; at most %d MB of heap", served, slowest, most>>20)
	if served < 10 || slowest > mostAnswerIn || most > mostHeap && !raceEnabled {
		t.Errorf("somebody else was answered %d times, at the slowest in %v; %d MB of heap", served, slowest, most>>20)
	}
	web.CloseIdleConnections()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, before)
}

// filler is a reader of as many bytes as anybody wants.
type filler struct{}

// Read implements io.Reader.
func (filler) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
