package door

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/broker"
)

// nsqlookupd is one of the test's own, which is spoken to through pipes.
type nsqlookupd struct {
	mu          sync.Mutex
	answer      func(command string) string // instead of what it would say
	known       map[string]bool             // "topic" and "topic channel"
	said        []string                    // commands, in order
	connections int
	open        map[net.Conn]bool
	down        bool
}

func (l *nsqlookupd) dial(context.Context) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return nil, errors.New("connection refused")
	}
	l.connections++
	ours, theirs := net.Pipe()
	if l.open == nil {
		l.open = make(map[net.Conn]bool)
	}
	l.open[ours] = true
	l.known = make(map[string]bool)
	go l.serve(ours)
	return theirs, nil
}

func (l *nsqlookupd) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		l.mu.Lock()
		delete(l.open, conn)
		if len(l.open) == 0 {
			clear(l.known) // as nsqlookupd does
		}
		l.mu.Unlock()
	}()
	from := bufio.NewReader(conn)
	var magic [4]byte
	if _, err := io.ReadFull(from, magic[:]); err != nil || string(magic[:]) != "  V1" {
		return
	}
	// A pipe has no room: what is answered waits in the list until it is read.
	answers := make(chan string, 10_000)
	defer close(answers)
	go func() {
		for answer := range answers {
			framed := append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...) //nolint:gosec // short
			if _, err := conn.Write(framed); err != nil {
				continue // so that nobody waits to put an answer into the list
			}
		}
	}()
	for {
		line, err := from.ReadString('\n')
		if err != nil {
			return
		}
		answers <- l.hear(strings.TrimSuffix(line, "\n"), from)
	}
}

func (l *nsqlookupd) hear(command string, body io.Reader) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	answer := "OK"
	verb, what, _ := strings.Cut(command, " ")
	switch verb {
	case "IDENTIFY":
		var size [4]byte
		if _, err := io.ReadFull(body, size[:]); err != nil {
			return ""
		}
		who := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(body, who); err != nil {
			return ""
		}
		command += " " + string(who)
		answer = `{"broadcast_address":"lookup.example","hostname":"h","http_port":4161,"tcp_port":4160,"version":"1.3.0"}`
	case "REGISTER":
		l.known[what] = true
	case "UNREGISTER":
		delete(l.known, what)
	}
	l.said = append(l.said, command)
	if l.answer != nil {
		return l.answer(command)
	}
	return answer
}

func (l *nsqlookupd) names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for name := range l.known {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (l *nsqlookupd) count(command string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, said := range l.said {
		if said == command {
			n++
		}
	}
	return n
}

// say makes it answer otherwise, on new connections.
func (l *nsqlookupd) say(answer func(string) string) {
	l.mu.Lock()
	l.answer = answer
	l.mu.Unlock()
	l.set(false)
}

// set breaks all connections, and refuses new ones while it is down.
func (l *nsqlookupd) set(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
	for conn := range l.open {
		conn.Close()
	}
}

func (l *nsqlookupd) dials() (total, open int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connections, len(l.open)
}

// fleet is a door with nsqlookupds, in virtual time.
type fleet struct {
	*Door
	lookupds map[string]*nsqlookupd // by address
	channels func(*http.Request) (string, error)

	mu      sync.Mutex
	dialing func(ctx context.Context, addr string) (net.Conn, error) // in place of what it would do
}

func (f *fleet) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	f.mu.Lock()
	dialing, l := f.dialing, f.lookupds[addr]
	f.mu.Unlock()
	if dialing != nil {
		return dialing(ctx, addr)
	}
	return l.dial(ctx)
}

func (f *fleet) set(dialing func(ctx context.Context, addr string) (net.Conn, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dialing = dialing
}

// inFleet runs a test with a door that registers with nsqlookupds a and b.
func inFleet(t *testing.T, test func(f *fleet)) {
	synctest.Test(t, func(t *testing.T) {
		b, err := broker.Open(broker.Options{})
		if err != nil {
			t.Fatal(err)
		}
		f := &fleet{lookupds: map[string]*nsqlookupd{"a:4160": {}, "b:4160": {}}}
		f.Door = New(b, Config{
			BroadcastAddress: "me.example", TCPPort: 4150, HTTPPort: 4151,
			LookupdTCPAddresses: []string{"a:4160", "b:4160"},
			Logger:              slog.New(slog.DiscardHandler),
		})
		f.registrar.dial = f.dial
		f.registrar.client.Transport = f
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := f.Serve(ctx); err != nil {
				t.Error(err)
			}
		}()
		defer func() {
			cancel()
			<-ended
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}()
		test(f)
	})
}

// RoundTrip answers what is asked of the nsqlookupds over HTTP.
func (f *fleet) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.channels == nil {
		return nil, errors.New("nobody there")
	}
	body, err := f.channels(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body))}, nil
}

func (f *fleet) channel(t *testing.T, topic, channel string) {
	t.Helper()
	if _, err := f.broker.Channel(topic, channel); err != nil {
		t.Fatal(err)
	}
}

// discard reads until there is no more.
func discard(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// soon lets what has just changed be told.
func soon() {
	time.Sleep(2*burst + time.Millisecond)
	synctest.Wait()
}
