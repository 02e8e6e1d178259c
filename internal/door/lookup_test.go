package door

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
			conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...))
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
		var size uint32
		binary.Read(body, binary.BigEndian, &size)
		who := make([]byte, size)
		io.ReadFull(body, who)
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
			f.registrar.serve(ctx)
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

// soon lets the registrar look around once.
func soon() {
	time.Sleep(lookAround + time.Millisecond)
	synctest.Wait()
}

func TestEveryNsqlookupdKnowsTheTopicsAndChannels(t *testing.T) {
	inFleet(t, func(f *fleet) {
		expect := func(want ...string) {
			t.Helper()
			soon()
			for addr, l := range f.lookupds {
				if got := l.names(); !slices.Equal(got, want) {
					t.Fatalf("%s knows %q, want %q", addr, got, want)
				}
			}
		}
		f.channel(t, "orders", "billing")
		f.channel(t, "orders", "tail#ephemeral")
		f.channel(t, "audit", "archive")
		expect("audit", "audit archive", "orders", "orders billing", "orders tail#ephemeral")
		if err := f.broker.DeleteChannel("orders", "billing"); err != nil {
			t.Fatal(err)
		}
		expect("audit", "audit archive", "orders", "orders tail#ephemeral")
		if err := f.broker.DeleteTopic("audit"); err != nil {
			t.Fatal(err)
		}
		expect("orders", "orders tail#ephemeral")
		for _, l := range f.lookupds {
			said := strings.Join(l.said, "\n") + "\n"
			if strings.Index(said, "UNREGISTER audit archive") > strings.Index(said, "UNREGISTER audit\n") {
				t.Error("the topic was taken away before its channel")
			}
			if want := `IDENTIFY {"broadcast_address":"me.example","hostname":`; !strings.HasPrefix(said, want) ||
				!strings.Contains(l.said[0], `"http_port":4151,"tcp_port":4150,"version":"1.3.0"}`) {
				t.Errorf("said %q first", l.said[0])
			}
			if n := l.count("REGISTER orders"); n != 1 {
				t.Errorf("told of a topic %d times", n)
			}
		}
	})
}

func TestManyTopicsAreRegisteredManyAtOnce(t *testing.T) {
	inFleet(t, func(f *fleet) {
		for i := range 2*askAtOnce + 10 {
			f.channel(t, fmt.Sprintf("topic%04d", i), "c")
		}
		soon()
		if got := len(f.lookupds["a:4160"].names()); got != 2*(2*askAtOnce+10) {
			t.Errorf("%d names are known", got)
		}
	})
}

func TestNsqlookupdHearsEvery15SecondsThatTheBrokerIsAlive(t *testing.T) {
	inFleet(t, func(f *fleet) {
		time.Sleep(time.Minute + time.Second)
		if got := f.lookupds["a:4160"].count("PING"); got != 4 {
			t.Errorf("%d pings in a minute", got)
		}
	})
}

func TestABrokenConnectionIsMadeAgainAtOnceAndEverythingRegistered(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.channel(t, "orders", "billing")
		soon()
		f.lookupds["a:4160"].set(false)
		soon()
		if got := f.lookupds["a:4160"].names(); len(got) != 2 {
			t.Errorf("knows %q again", got)
		}
		if total, _ := f.lookupds["b:4160"].dials(); total != 1 {
			t.Errorf("the other was connected to %d times", total)
		}
	})
}

func TestAnNsqlookupdThatIsDownIsAskedLessAndLessOften(t *testing.T) {
	inFleet(t, func(f *fleet) {
		l := f.lookupds["a:4160"]
		synctest.Wait()
		var tries atomic.Int32
		f.set(func(ctx context.Context, addr string) (net.Conn, error) {
			tries.Add(1) // b has its connection
			return l.dial(ctx)
		})
		l.set(true)
		time.Sleep(10 * time.Minute)
		if n := tries.Load(); n < 40 || n > 100 { // 7.5 to 15 s apart once they have grown
			t.Errorf("%d tries in ten minutes", n)
		}
		l.set(false)
		f.channel(t, "orders", "billing")
		time.Sleep(lastRetry + time.Second)
		if got := l.names(); len(got) != 2 {
			t.Errorf("knows %q when it is back", got)
		}
		// Once it has been well for a while, it is tried again at once.
		time.Sleep(time.Minute)
		l.set(false)
		time.Sleep(2 * firstRetry)
		if got := l.names(); len(got) != 2 {
			t.Errorf("knows %q after it was well and broke", got)
		}
	})
}

func TestAddressesChangeWhileTheBrokerRuns(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.channel(t, "orders", "billing")
		soon()
		f.mu.Lock()
		f.lookupds["c:4160"] = &nsqlookupd{}
		f.mu.Unlock()
		f.registrar.setAddresses([]string{"b:4160", "c:4160", "c:4160"})
		soon()
		for addr, want := range map[string][2]int{"a:4160": {1, 0}, "b:4160": {1, 1}, "c:4160": {1, 1}} {
			if total, open := f.lookupds[addr].dials(); [2]int{total, open} != want {
				t.Errorf("%s: %d connections, %d open, want %v", addr, total, open, want)
			}
		}
		if got := f.lookupds["c:4160"].names(); len(got) != 2 {
			t.Errorf("the new one knows %q", got)
		}
		if got := f.registrar.addresses(); !slices.Equal(got, []string{"b:4160", "c:4160"}) {
			t.Errorf("the addresses are %q", got)
		}
	})
}

func TestANewTopicHasTheChannelsOfTheFleetBeforeAnybodyGetsIt(t *testing.T) {
	inFleet(t, func(f *fleet) {
		var asked atomic.Int32
		f.channels = func(r *http.Request) (string, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			if r.URL.Host != "lookup.example:4161" || r.URL.Path != "/channels" || r.URL.Query().Get("topic") != "orders#ephemeral" {
				return "", fmt.Errorf("asked for %s", r.URL)
			}
			channels, _ := json.Marshal(map[string][]string{"channels": {"billing", "tail#ephemeral", "archive", "not a name", "billing"}})
			return string(channels), nil
		}
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				topic, err := f.Topic("orders#ephemeral")
				if err != nil {
					t.Error(err)
					return
				}
				var names []string
				for _, ch := range topic.Channels() {
					names = append(names, ch.Name())
				}
				if slices.Sort(names); !slices.Equal(names, []string{"archive", "billing"}) {
					t.Errorf("the topic has the channels %q", names)
				}
			})
			time.Sleep(10 * time.Millisecond)
		}
		callers.Wait()
		began := time.Now()
		if _, err := f.Topic("orders#ephemeral"); err != nil || time.Since(began) > 0 {
			t.Errorf("a topic that is there: %v after %s", err, time.Since(began))
		}
		if n := asked.Load(); n != 2 {
			t.Errorf("two nsqlookupds were asked %d times", n)
		}
		if _, err := f.Topic("not a name"); err == nil {
			t.Error("a bad name was taken")
		}
	})
}

func TestOneNsqlookupdThatAnswersIsEnough(t *testing.T) {
	inFleet(t, func(f *fleet) {
		asked := 0
		var mu sync.Mutex
		f.channels = func(r *http.Request) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			if asked++; asked == 1 {
				return "<html>", nil
			}
			return `{"channels":["billing"]}`, nil
		}
		topic, err := f.Topic("orders")
		if err != nil || len(topic.Channels()) != 1 {
			t.Errorf("%v, %d channels", err, len(topic.Channels()))
		}
	})
}

func TestNsqlookupdsThatDoNotAnswerHoldANewTopicUpButNotForLong(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.channels = func(r *http.Request) (string, error) {
			<-r.Context().Done()
			return "", r.Context().Err()
		}
		began := time.Now()
		if _, err := f.Topic("orders"); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestAnNsqlookupdThatMakesNoSenseIsLeftAndTriedAgain(t *testing.T) {
	for name, answer := range map[string]func(string) string{
		"an error to IDENTIFY": func(string) string { return "E_INVALID client must IDENTIFY" },
		"an error to REGISTER": func(c string) string {
			if strings.HasPrefix(c, "IDENTIFY") {
				return "{}"
			}
			return "E_BAD_TOPIC"
		},
		"far too much": func(string) string { return strings.Repeat("x", maxLookupAnswer+1) },
	} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, func(f *fleet) {
				f.channel(t, "orders", "billing")
				f.lookupds["a:4160"].say(answer)
				time.Sleep(time.Minute)
				if total, _ := f.lookupds["a:4160"].dials(); total < 4 || total > 20 {
					t.Errorf("%d connections in a minute", total)
				}
				if got := f.lookupds["b:4160"].names(); len(got) != 2 {
					t.Errorf("the other knows %q", got)
				}
			})
		})
	}
}

func TestAnNsqlookupdThatIsSilentIsGivenUp(t *testing.T) {
	inFleet(t, func(f *fleet) {
		var dials atomic.Int32
		f.set(func(context.Context, string) (net.Conn, error) {
			dials.Add(1)
			ours, theirs := net.Pipe()
			go io.Copy(io.Discard, ours)
			return theirs, nil
		})
		f.registrar.setAddresses([]string{"silent:1"})
		time.Sleep(time.Minute)
		if n := dials.Load(); n < 4 || n > 12 {
			t.Errorf("%d connections in a minute", n)
		}
	})
}

func TestNsqlookupdsThatCannotBeReachedDoNotHoldANewTopicUp(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.set(func(context.Context, string) (net.Conn, error) { return nil, errors.New("connection refused") })
		f.registrar.setAddresses([]string{"down:1", "down:2"})
		began := time.Now()
		if _, err := f.Topic("orders"); err != nil || time.Since(began) > 0 {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

func TestAnAnswerIsNotBelievedToBeHuge(t *testing.T) {
	if _, err := readAnswer(strings.NewReader("\xff\xff\xff\xff")); err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("four gigabytes: %v", err)
	}
}
