package nsq

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/door"
	"github.com/millrace/millrace/internal/nsqwire"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

// served is a broker of ours behind its doors. The real nsqd is in peers/drivers.
type served struct {
	*broker.Broker
	tcp, http, url string
	stop           func()
}

func serve(t *testing.T, cfg door.Config) served {
	t.Helper()
	b, err := broker.Open(broker.Options{Logger: slog.Default()})
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := door.New(b, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = d.ServeTCP(ctx, tcp) })
	serving.Go(func() { _ = d.ServeHTTP(ctx, web) })
	stop := sync.OnceFunc(func() {
		cancel()
		serving.Wait()
		_ = b.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	t.Cleanup(stop)
	return served{Broker: b, stop: stop, tcp: tcp.Addr().String(), url: "nsq://" + tcp.Addr().String() + "?http=" + web.Addr().String(), http: web.Addr().String()}
}

func opened(t *testing.T, url string) *Broker {
	t.Helper()
	b, err := millrace.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b.(*Broker)
}

func subscribed(t *testing.T, b *Broker, opts millrace.SubscribeOptions) *subscription {
	t.Helper()
	s, err := b.Subscribe(t.Context(), "t", "c", opts)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*subscription)
}

func receive(t *testing.T, s *subscription, n int) (all []millrace.Delivery) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(all) < n {
		buf := make([]millrace.Delivery, n-len(all))
		k, err := s.Receive(ctx, buf)
		if err != nil {
			t.Fatalf("after %d of %d: %v", len(all), n, err)
		}
		all = append(all, buf[:k]...)
	}
	return all
}

func publish(t *testing.T, b *Broker, msgs ...millrace.Message) {
	t.Helper()
	if err := b.Publish(t.Context(), "t", msgs...); err != nil {
		t.Fatal(err)
	}
}

// What was sent while this process was stopped can have been ours for no more than what is
// left of its lease: it is given up, and delivered again.
func TestWhatCameWhileThisProcessWasStoppedIsNotTrusted(t *testing.T) {
	b := opened(t, serve(t, door.Config{}).url)
	s := subscribed(t, b, millrace.SubscribeOptions{Lease: 10 * time.Second})
	publish(t, b, millrace.Message{Body: []byte("before")})
	before := receive(t, s, 1)

	s.mu.Lock()
	s.keeper.last -= int64(s.lease) / 2 // nobody has looked for so long
	s.mu.Unlock()
	publish(t, b, millrace.Message{Body: []byte("after")})
	var lost *millrace.LeaseError
	for until := time.Now().Add(10 * time.Second); !errors.As(s.Extend(t.Context(), before...), &lost); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the lease is still there")
		}
	}
	again := map[string]uint32{}
	for _, d := range receive(t, s, 2) {
		again[string(d.Body)] = d.Attempt
	}
	if again["before"] != 2 || again["after"] == 0 {
		t.Errorf("attempts: %v", again)
	}
}

// NSQ tells that a lease is lost when it is to be extended, a moment later.
func TestALeaseThatTheBrokerHasEndedIsLost(t *testing.T) {
	on := serve(t, door.Config{})
	b := opened(t, on.url)
	s := subscribed(t, b, millrace.SubscribeOptions{})
	publish(t, b, millrace.Message{Body: []byte("1")}, millrace.Message{Body: []byte("2")})
	ds := receive(t, s, 2)
	resp, err := http.Post("http://"+on.http+"/channel/empty?topic=t&channel=c", "", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := s.Extend(t.Context(), ds...)
		var lost *millrace.LeaseError
		if errors.As(err, &lost) && len(lost.Lost) == 2 {
			return
		}
		if err != nil && !errors.Is(err, millrace.ErrLeaseLost) || time.Now().After(until) {
			t.Fatalf("extend: %v", err)
		}
	}
}

// The broker gives what a connection had to others when it ends, however long the lease.
func TestLeasesEndWithTheirConnection(t *testing.T) {
	on := serve(t, door.Config{})
	b := opened(t, on.url)
	s := subscribed(t, b, millrace.SubscribeOptions{Lease: time.Hour})
	publish(t, b, millrace.Message{})
	ds := receive(t, s, 1)
	on.stop()
	for until := time.Now().Add(10 * time.Second); !errors.Is(s.Extend(t.Context(), ds...), millrace.ErrLeaseLost); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the lease is still there, and the broker is not")
		}
	}
}

func TestALeaseIsExtendedUpToWhatTheBrokerAllows(t *testing.T) {
	b := opened(t, serve(t, door.Config{MaxMsgTimeout: 2 * time.Second}).url)
	if _, err := b.Subscribe(t.Context(), "t", "c", millrace.SubscribeOptions{Lease: time.Minute}); err == nil || !strings.Contains(err.Error(), "does not give a lease of 1m0s: see its --max-msg-timeout") {
		t.Errorf("a lease of a minute: %v", err)
	}
	s := subscribed(t, b, millrace.SubscribeOptions{Lease: 1500 * time.Millisecond})
	publish(t, b, millrace.Message{})
	ds := receive(t, s, 1)
	start := time.Now()
	for time.Since(start) < 1900*time.Millisecond {
		if err := s.Extend(t.Context(), ds...); err != nil {
			t.Fatalf("after %v: %v", time.Since(start), err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(2100*time.Millisecond - time.Since(start))
	if err := s.Ack(t.Context(), ds...); !errors.Is(err, millrace.ErrLeaseLost) {
		t.Errorf("after 2.1 s: %v", err)
	}
}

// Nodes take turns, a call each, and what they hold is added up.
func TestNodesTakeTurnsAndTheirDepthsAreAddedUp(t *testing.T) {
	one, two := serve(t, door.Config{}), serve(t, door.Config{})
	b := opened(t, "nsq://"+one.tcp+","+two.tcp+"?http="+one.http+","+two.http)
	if err := b.Declare(t.Context(), "t", "c"); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		publish(t, b, millrace.Message{})
	}
	for i, n := range []served{one, two} {
		if d, err := n.Depth("t", "c"); err != nil || d.Ready != 5 {
			t.Errorf("node %d holds %+v (%v), want 5 of 10", i, d, err)
		}
	}
	if d, err := b.Depth(t.Context(), "t", "c"); err != nil || d.Ready != 10 {
		t.Errorf("together they hold %+v (%v)", d, err)
	}
}

// A call may have more messages than the broker takes at a time; one that is too large is
// found before any is sent.
func TestABatchIsSentInPartsThatTheBrokerTakes(t *testing.T) {
	cfg := door.Config{MaxMsgSize: 1000, MaxBodySize: 3000}
	b := opened(t, serve(t, cfg).url)
	s := subscribed(t, b, millrace.SubscribeOptions{Prefetch: 1000})
	var msgs []millrace.Message
	for i := range 100 {
		m := millrace.Message{Body: bytes.Repeat([]byte{byte(i)}, 1+i*10)}
		switch i % 5 {
		case 1:
			m.Delay = time.Millisecond
		case 2:
			m.Headers = m.Headers.Append("number", fmt.Sprint(i))
			m.Body = m.Body[:len(m.Body)/2]
		}
		msgs = append(msgs, m)
	}
	large := millrace.Message{Headers: millrace.Headers(nil).Append("k", strings.Repeat("\x00", 160)), Body: make([]byte, 30)}
	if err := b.Publish(t.Context(), "t", append(slices.Clone(msgs), large)...); !errors.Is(err, millrace.ErrTooLarge) || !strings.Contains(err.Error(), "takes 1000") {
		t.Errorf("a message too large among 100: %v", err)
	}
	publish(t, b, msgs...)
	got := receive(t, s, len(msgs))
	seen := map[string]bool{}
	for _, d := range got {
		seen[fmt.Sprintf("%q %q", d.Headers, d.Body)] = true
	}
	for i, m := range msgs {
		if !seen[fmt.Sprintf("%q %q", m.Headers, m.Body)] {
			t.Errorf("message %d is not there", i)
		}
	}
	if d, err := b.Depth(t.Context(), "t", "c"); err != nil || d.Ready+d.Deferred > 0 {
		t.Errorf("more than that is there: %+v, %v", d, err)
	}
}

// One publish that is refused, which ends the connection, costs the others nothing.
func TestPublishesBesideOneThatIsRefusedSucceed(t *testing.T) {
	b := opened(t, serve(t, door.Config{MaxReqTimeout: time.Hour}).url)
	s := subscribed(t, b, millrace.SubscribeOptions{Prefetch: 1000})
	var publishing sync.WaitGroup
	for p := range 8 {
		publishing.Go(func() {
			for i := range 20 {
				if err := b.Publish(t.Context(), "t", millrace.Message{Body: fmt.Append(nil, p*20+i)}); err != nil {
					t.Error(err)
				}
			}
		})
		publishing.Go(func() {
			err := b.Publish(t.Context(), "t", millrace.Message{Delay: 2 * time.Hour})
			if err == nil || !strings.Contains(err.Error(), "longer than the broker takes (its --max-req-timeout)") || !errors.Is(err, millrace.ErrRefused) {
				t.Errorf("a delay of two hours: %v", err)
			}
		})
	}
	publishing.Wait()
	seen := map[string]int{}
	for _, d := range receive(t, s, 160) {
		seen[string(d.Body)]++
	}
	if len(seen) != 160 {
		t.Errorf("%d of 160 came", len(seen))
	}
}

// hanging is a node that lets us in and subscribe, and then says nothing more.
func hanging(t *testing.T) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	t.Cleanup(func() {
		_ = ln.Close()
		conns.Wait()
	})
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				heard := bufio.NewScanner(c)
				for heard.Scan() {
					switch line := heard.Text(); {
					case strings.HasSuffix(line, "IDENTIFY"):
						_, _ = c.Write(nsqwire.AppendFrame(nil, nsqwire.FrameResponse, `{"max_rdy_count":2500}`))
					case strings.Contains(line, "SUB "):
						_, _ = c.Write(nsqwire.AppendFrame(nil, nsqwire.FrameResponse, "OK"))
					}
				}
			})
		}
	})
	return ln.Addr().String()
}

// A node that hangs does not keep a subscription from closing, and what it may not have heard
// is said.
func TestClosingSaysThatANodeMayNotHaveHeardTheLastAcks(t *testing.T) {
	t.Parallel()
	b := opened(t, "nsq://"+hanging(t)+"?http=127.0.0.1:1")
	s := subscribed(t, b, millrace.SubscribeOptions{})
	begun := time.Now()
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "does not answer: what was acked last may be delivered again") {
		t.Errorf("%v", err)
	}
	if took := time.Since(begun); took > 2*farewell {
		t.Errorf("it took %v", took)
	}
	b = opened(t, serve(t, door.Config{}).url)
	if err := subscribed(t, b, millrace.SubscribeOptions{}).Close(); err != nil {
		t.Errorf("of a node that answers: %v", err)
	}
}

// What is refused is refused the next time too; a full disk is not.
func TestOnlyWhatIsRefusedForGoodIsRefused(t *testing.T) {
	for code, want := range map[string]bool{nsqwire.PubFailed: false, nsqwire.MPubFailed: false, nsqwire.Unauthorized: true, nsqwire.BadTopic: true} {
		if err := error(&nodeError{code: code, text: code}); errors.Is(err, millrace.ErrRefused) != want {
			t.Errorf("%s: %v", code, !want)
		}
	}
	if !errors.Is(refused("does not let us in"), millrace.ErrRefused) {
		t.Error("a node that does not let us in")
	}
}

// A node that is not there is an error of Open's, and nothing else; one that goes away later is
// logged, with the reason.
func TestWhatIsWrongWhileOpeningIsSaidOnce(t *testing.T) {
	var log logged
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	_, err := millrace.Open(t.Context(), "nsq://127.0.0.1:1")
	if err == nil || err.Error() != "open broker nsq://127.0.0.1:1: no broker answers at 127.0.0.1:1: connection refused" || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
	if said := log.String(); said != "" {
		t.Errorf("it logs %s", said)
	}
	on := serve(t, door.Config{})
	opened(t, on.url)
	on.stop()
	for until := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), "the connection to the broker at "+on.tcp+" was lost"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("it logs %s", log.String())
		}
	}
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestNothingIsAllocatedForEachMessageThatComes(t *testing.T) {
	b := opened(t, serve(t, door.Config{}).url)
	s := subscribed(t, b, millrace.SubscribeOptions{Prefetch: 2000})
	const n = 20_000
	msgs := make([]millrace.Message, n)
	for i := range msgs {
		msgs[i].Headers = millrace.Headers(nil).Append(millrace.HeaderID, "job-12345").Append(millrace.HeaderReplyTo, "reply.x")
		msgs[i].Body = make([]byte, 100)
	}
	allocated := testing.AllocsPerRun(1, func() {
		publish(t, b, msgs...)
		buf := make([]millrace.Delivery, 500)
		for got := 0; got < n; {
			k, err := s.Receive(t.Context(), buf)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Ack(t.Context(), buf[:k]...); err != nil {
				t.Fatal(err)
			}
			got += k
		}
	})
	// Broker and driver together; both allocate for blocks and batches.
	if t.Logf("%.0f allocations for %d messages", allocated, n); allocated > n/2 {
		t.Error("that is too many")
	}
}
