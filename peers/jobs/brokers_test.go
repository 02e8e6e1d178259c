package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	natsio "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/driver/rabbitmq"
	"github.com/millrace/millrace/peers/node"
)

// system is a broker of one kind, as users run it.
type system struct {
	t    *testing.T // of all claims
	kind string
	url  string
	// kill ends it as nothing else does, a fleet's first node; again starts that again.
	kill, again func() error
	// topics are the names of all there is on it.
	topics func(ctx context.Context) ([]string, error)
	// foreign puts a message into a queue as programs do that know nothing of Millrace; a
	// broken one looks like one of Millrace's own that is damaged.
	foreign func(ctx context.Context, queue, body string, broken bool) error
	// bad are URLs that are wrong in some way, and what is said of each.
	bad map[string]string
	// slow says that a killed worker is noticed by the end of its leases alone.
	slow bool

	direct string   // a URL that names all addresses that clients use
	addrs  []string // these

	busy      bool     // several claims are looked into at once
	ghosts    bool     // it may go on to count consumers that died with their node
	abandoned []string // reply topics of clients that were killed, which will go
}

// systems are the four kinds, with how one is started, which ends with the test.
var systems = []struct {
	name  string
	start func(t *testing.T) *system
}{
	{"millrace", startMillrace},
	{"nsqlookupd", startFleet},
	{"rabbitmq", startRabbitMQ},
	{"nats", startNATS},
}

func startMillrace(t *testing.T) *system {
	t.Helper()
	p, err := node.MillraceProcess(programs.millrace, t.TempDir())
	started(t, p, err)
	url := "nsq://" + p.TCP + "?http=" + p.HTTP
	return &system{
		bad: map[string]string{
			"nsq://" + p.TCP + "?tls=true":           "no TLS",
			"nsq://" + p.TCP + "?cert=nosuch&key=no": "nosuch",
			"nsq://" + p.TCP + "?frobnicate=1":       "frobnicate",
			"nsq://" + p.TCP + "?http=127.0.0.1:1":   "127.0.0.1:1",
			"nsq://127.0.0.1:1":                      "127.0.0.1:1",
			"nsq://nosuch.invalid":                   "nosuch.invalid",
			"http://" + p.HTTP:                       "scheme",
			p.TCP:                                    "nsq://" + p.TCP,
			"localhost:4150":                         "scheme",
		},
		url: url, kill: p.Kill, again: p.Start, direct: url, addrs: []string{p.TCP, p.HTTP}, foreign: foreignNSQ(p.HTTP),
		topics: func(ctx context.Context) ([]string, error) { return nsqTopics(ctx, p.HTTP) },
	}
}

func started(t *testing.T, p *node.Process, err error) {
	t.Helper()
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
}

// startFleet starts two nsqds and an nsqlookupd.
func startFleet(t *testing.T) *system {
	t.Helper()
	lookup, err := node.NSQLookupd()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lookup.Stop() })
	var nodes []*node.Process
	for range 2 {
		p, err := node.NSQDProcess(programs.nsqd, t.TempDir(), "--lookupd-tcp-address="+lookup.TCP, "--broadcast-address=127.0.0.1")
		started(t, p, err)
		nodes = append(nodes, p)
	}
	if err := lookup.Await(2); err != nil {
		t.Fatal(err)
	}
	return &system{
		bad: map[string]string{
			"nsqlookupd://127.0.0.1:1":       "127.0.0.1:1",
			"nsqlookupd://" + lookup.TCP:     lookup.TCP,
			"nsqlookupd://" + nodes[0].HTTP:  nodes[0].HTTP,
			"nsqlookupd://nosuch.invalid:80": "nosuch.invalid",
		},
		url: "nsqlookupd://" + lookup.HTTP, kill: nodes[0].Kill, again: nodes[0].Start, slow: true, foreign: foreignNSQ(nodes[1].HTTP),
		direct: "nsq://" + nodes[0].TCP + "," + nodes[1].TCP + "?http=" + nodes[0].HTTP + "," + nodes[1].HTTP,
		addrs:  []string{nodes[0].TCP, nodes[0].HTTP, nodes[1].TCP, nodes[1].HTTP},
		topics: func(ctx context.Context) ([]string, error) {
			one, err := nsqTopics(ctx, nodes[0].HTTP)
			if err != nil {
				return nil, err
			}
			two, err := nsqTopics(ctx, nodes[1].HTTP)
			return append(one, two...), err
		},
	}
}

func ask(ctx context.Context, url string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(answer)
}

func nsqTopics(ctx context.Context, addr string) (names []string, err error) {
	var told struct {
		Topics []struct {
			Name string `json:"topic_name"`
		} `json:"topics"`
	}
	err = ask(ctx, "http://"+addr+"/stats?format=json", &told)
	for _, topic := range told.Topics {
		names = append(names, topic.Name)
	}
	return names, err
}

func startRabbitMQ(t *testing.T) *system {
	t.Helper()
	r, err := node.NewRabbitMQ(t.TempDir(), nil)
	if err == nil {
		err = r.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Kill() })
	return &system{
		bad: map[string]string{
			"amqp://guest:wrong@" + r.AMQP + "/":           "guest",
			"amqp://nobody:secret@" + r.AMQP + "/":         "nobody",
			"amqp://guest:guest@" + r.AMQP + "/nosuch":     "nosuch",
			"amqps://guest:guest@" + r.AMQP + "/":          r.AMQP,
			"amqp://guest:guest@" + r.AMQP + "/?ca=nosuch": "nosuch",
			"amqp://127.0.0.1:1/":                          "127.0.0.1:1",
		},
		url: r.URL("/"), kill: r.Kill, again: r.Start, direct: r.URL("/"), addrs: []string{r.AMQP}, foreign: foreignAMQP(r.URL("/")),
		topics: func(ctx context.Context) ([]string, error) {
			queues, err := r.Ctl(ctx, "list_queues", "name", "--no-table-headers")
			if err != nil {
				return nil, err
			}
			exchanges, err := r.Ctl(ctx, "list_exchanges", "name", "--no-table-headers")
			return strings.Fields(queues + " " + exchanges), err
		},
	}
}

func startNATS(t *testing.T) *system {
	t.Helper()
	addr, err := node.LowAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	dir := t.TempDir()
	var cmd *exec.Cmd
	bad := map[string]string{
		"nats://127.0.0.1:1":                "127.0.0.1:1",
		"nats://" + addr + "?tls=true":      "TLS",
		"nats://" + addr + "?ca=nosuch":     "nosuch",
		"nats://" + addr + "?creds=nosuch":  "nosuch",
		"nats://" + addr + "?replicas=many": "replicas",
		"nats://nosuch.invalid:4222":        "nosuch.invalid",
	}
	s := &system{bad: bad, url: "nats://" + addr, slow: true, direct: "nats://" + addr, addrs: []string{addr}, foreign: foreignNATS("nats://" + addr)}
	s.kill = func() error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed, as it says
		return nil
	}
	s.again = func() error {
		cmd = exec.Command(programs.self, dir, port)
		cmd.Env = append(cmd.Environ(), roleVariable+"=nats")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return err
		}
		for until := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			conn, err := natsio.Connect(s.url)
			if err == nil {
				conn.Close()
				return nil
			}
			if time.Now().After(until) {
				return fmt.Errorf("nats-server: %w", err)
			}
		}
	}
	s.topics = func(ctx context.Context) ([]string, error) { return natsTopics(ctx, s.url) }
	if err := s.again(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.kill() })
	return s
}

// onNATS does something on a connection beside Millrace's.
func onNATS(url string, do func(jetstream.JetStream) error) error {
	conn, err := natsio.Connect(url, natsio.Timeout(10*time.Second))
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	return do(js)
}

func natsTopics(ctx context.Context, url string) (names []string, err error) {
	err = onNATS(url, func(js jetstream.JetStream) error {
		streams := js.StreamNames(ctx)
		for name := range streams.Name() {
			names = append(names, strings.ReplaceAll(strings.TrimPrefix(name, "MILLRACE_"), "=", "."))
		}
		return streams.Err()
	})
	return names, err
}

// replyTopics are the reply topics that there are, but for those that are excused.
func (s *system) replyTopics(t *testing.T) []string {
	t.Helper()
	names, err := s.topics(t.Context())
	if err != nil {
		t.Fatalf("topics of %s: %v", s.kind, err)
	}
	return slices.DeleteFunc(names, func(name string) bool {
		return !strings.HasPrefix(name, "reply.") || slices.Contains(s.abandoned, name)
	})
}

// wantNothingLeft makes sure that the queue is empty and, unless others ask at the same time,
// no reply topic is there.
func (s *system) wantNothingLeft(t *testing.T, queue string) {
	t.Helper()
	s.wantEmpty(t, queue)
	if left := s.replyTopics(t); len(left) > 0 && !s.busy {
		t.Errorf("%s: left there: %q", s.kind, left)
	}
}

// wantEmpty makes sure that the queue is empty.
func (s *system) wantEmpty(t *testing.T, queue string) {
	t.Helper()
	b := s.open(t)
	var depth millrace.Depth
	for until := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var err error
		depth, err = b.Depth(t.Context(), queue, millrace.WorkChannel)
		if s.ghosts && errors.Is(err, rabbitmq.ErrUncounted) {
			err = nil
		}
		if err == nil && depth == (millrace.Depth{}) {
			break
		}
		// RabbitMQ's driver asks other processes, of which one may just be ending.
		if time.Now().After(until) {
			t.Fatalf("%s: the queue still holds %+v, %v", s.kind, depth, err)
		}
	}
}

// open opens the broker for the test itself.
func (s *system) open(t *testing.T) millrace.Broker {
	t.Helper()
	b, err := millrace.Open(t.Context(), s.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// eventually waits until the check is true.
func eventually(t *testing.T, within time.Duration, what string, check func() bool) {
	t.Helper()
	for until := time.Now().Add(within); !check(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}
