package steer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace"
	_ "github.com/millrace/millrace/driver/nats"
	_ "github.com/millrace/millrace/driver/nsq"
	_ "github.com/millrace/millrace/driver/rabbitmq"
	"github.com/millrace/millrace/fleet"
	"github.com/millrace/millrace/peers/node"
	"github.com/millrace/millrace/worker"
)

const (
	queue = "steer"
	// within is how long something may take that takes no time.
	within = 20 * time.Second
)

// brokers are the brokers; start starts one, until the test ends, and returns its URL, and
// what names all topics that it has, or nil where that is not known.
var brokers = []struct {
	name  string
	start func(t *testing.T) (url string, topics func() []string)
}{
	{"millrace serve", func(t *testing.T) (string, func() []string) { return single(t, node.Millrace) }},
	{"nsqd", func(t *testing.T) (string, func() []string) { return single(t, node.NSQD) }},
	{"two nsqds that nsqlookupd knows", twoNodes},
	{"nats-server", natsServer},
	{"RabbitMQ", func(t *testing.T) (string, func() []string) {
		r, err := node.NewRabbitMQ(t.TempDir(), nil)
		must(t, err)
		must(t, r.Start())
		t.Cleanup(func() { must(t, r.Kill()) })
		return r.URL("/"), nil
	}},
}

func single(t *testing.T, start node.Start) (string, func() []string) {
	n, err := start(t.TempDir(), nil)
	must(t, err)
	t.Cleanup(func() { must(t, n.Stop()) })
	_, port, _ := strings.Cut(n.HTTP, ":")
	return "nsq://" + n.TCP + "?http=" + port, func() []string { return nsqTopics(t, n.HTTP) }
}

func nsqTopics(t *testing.T, address string) (names []string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/stats?format=json", nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	var told struct {
		Topics []struct {
			Name string `json:"topic_name"`
		} `json:"topics"`
	}
	must(t, json.NewDecoder(resp.Body).Decode(&told))
	for _, topic := range told.Topics {
		names = append(names, topic.Name)
	}
	slices.Sort(names)
	return names
}

func natsServer(t *testing.T) (string, func() []string) {
	n, err := node.NATSServer(t.TempDir(), nil)
	must(t, err)
	t.Cleanup(func() { must(t, n.Stop()) })
	return n.URL, func() (names []string) {
		accounts, err := n.Server().Jsz(&server.JSzOptions{Streams: true, Accounts: true})
		must(t, err)
		for _, account := range accounts.AccountDetails {
			for _, stream := range account.Streams {
				names = append(names, strings.ReplaceAll(strings.TrimPrefix(stream.Name, "MILLRACE_"), "=", "."))
			}
		}
		slices.Sort(names)
		return names
	}
}

func twoNodes(t *testing.T) (string, func() []string) {
	var addresses []string
	l, err := node.NSQLookupd()
	must(t, err)
	t.Cleanup(func() { must(t, l.Stop()) })
	for i := range 2 {
		// Nodes are told apart by host and port; a host each keeps the ports theirs.
		host := fmt.Sprintf("127.98.0.%d", i+1)
		n, err := node.NSQD(t.TempDir(), func(o *node.Options) {
			o.TCPAddress, o.HTTPAddress, o.BroadcastAddress = host+":0", host+":0", host
			o.NSQLookupdTCPAddresses = []string{l.TCP}
		})
		must(t, err)
		t.Cleanup(func() { must(t, n.Stop()) })
		addresses = append(addresses, n.HTTP)
	}
	must(t, l.Await(2))
	return "nsqlookupd://" + l.HTTP, func() (names []string) {
		for _, address := range addresses {
			names = append(names, nsqTopics(t, address)...)
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWorkersAreSteeredThroughEveryBroker(t *testing.T) {
	for _, b := range brokers {
		t.Run(b.name, func(t *testing.T) {
			if strings.HasPrefix(b.name, "RabbitMQ") && testing.Short() {
				t.Skip("RabbitMQ takes seconds to start")
			}
			t.Parallel() // each mostly waits
			s := &site{T: t, gate: make(chan struct{}, 100)}
			var topics func() []string
			s.url, topics = b.start(t)
			s.broker = s.open()
			must(t, s.broker.Declare(t.Context(), queue, millrace.WorkChannel))
			var err error
			s.fleet, err = fleet.Open(t.Context(), s.broker, queue)
			must(t, err)
			steer(s)
			must(t, s.fleet.Close(t.Context()))
			if topics != nil {
				s.want("topics that are left", topics(), []string{queue, queue + ".control"})
			}
			must(t, s.broker.Close())
		})
	}
}

// steer does everything that can be done.
func steer(s *site) {
	ctx := s.Context()
	_, err := s.fleet.Retire(ctx)
	s.wantError("without a worker", err, fleet.ErrNoWorker)

	one, two := s.hire(1), s.hire(2)
	s.ask(4)
	s.await("both are seen at work", func(r fleet.Report) bool {
		return r.Answered() == 2 && r.Busy() == 3 && len(r.Workers[0].Replicas[0].Task) > 0
	})
	scaled, err := s.fleet.Scale(ctx, fleet.By(+3))
	must(s, err)
	s.want("scaled", fmt.Sprint(scaled.Before, scaled.After), "3 6")
	s.await("the fourth task runs", func(r fleet.Report) bool { return r.Busy() == 4 && r.Size() == 6 })
	retired, err := s.fleet.Retire(ctx)
	must(s, err)
	s.want("the retired one is idle", retired.Finishes, false)
	scaled, err = s.fleet.Scale(ctx, fleet.To(1))
	must(s, err)
	s.want("scaled", fmt.Sprint(scaled.Before, scaled.After), "5 1")
	s.want("they finish their tasks", scaled.Leaving() >= 3, true)
	s.finish(4)
	s.await("they have left", func(r fleet.Report) bool { return r.Busy() == 0 && r.Size() == 1 && r.Workers[0].Leaving() == 0 })

	confirmed, err := s.fleet.Pause(ctx)
	must(s, err)
	s.want("paused", len(confirmed), 2)
	three := s.hire(1)
	s.ask(3)
	s.await("who comes later is paused too", func(r fleet.Report) bool {
		return r.Paused && r.Answered() == 3 && r.Workers[0].Paused && r.Workers[1].Paused && r.Workers[2].Paused
	})
	time.Sleep(300 * time.Millisecond)
	s.await("nobody takes a task", func(r fleet.Report) bool { return r.Busy() == 0 })
	confirmed, err = s.fleet.Resume(ctx)
	must(s, err)
	s.want("resumed", len(confirmed), 3)
	s.finish(3)

	drained, err := s.fleet.Drain(ctx)
	must(s, err)
	s.want("ended", len(drained.Ended), 3)
	for _, h := range []*hand{one, two, three} {
		if err := <-h.served; err != nil {
			s.Errorf("a drained worker ended with %v", err)
		}
		must(s, h.broker.Close())
	}
	s.await("nobody is left, and nothing to do", func(r fleet.Report) bool {
		return len(r.Workers) == 0 && !r.Paused && r.DepthErr == nil && r.Depth == millrace.Depth{}
	})
	if _, err := s.broker.Depth(ctx, queue+".paused", "paused"); !errors.Is(err, millrace.ErrNotFound) {
		s.Errorf("the mark of the pause: %v", err)
	}
}

// site is a broker with workers.
type site struct {
	*testing.T
	url    string
	broker millrace.Broker
	fleet  *fleet.Fleet
	gate   chan struct{} // holds one token for each task that may end
}

func (s *site) open() millrace.Broker {
	s.Helper()
	b, err := millrace.Open(s.Context(), s.url)
	must(s, err)
	return b
}

// hand is a worker with a connection of its own.
type hand struct {
	broker millrace.Broker
	served chan error
}

func (s *site) hire(replicas int) *hand {
	s.Helper()
	h := &hand{broker: s.open(), served: make(chan error, 1)}
	handle := worker.HandlerFunc(func(ctx context.Context, _ *worker.Task) ([]byte, error) {
		select {
		case <-s.gate:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	})
	started := make(chan struct{}, 100)
	w, err := worker.New(h.broker, queue, handle, worker.Config{
		Replicas: replicas, Prefetch: worker.NoPrefetch, Grace: time.Second,
		OnEvent: func(e worker.Event) {
			if e.Kind == worker.ReplicaStarted {
				started <- struct{}{}
			}
		},
	})
	must(s, err)
	go func() { h.served <- w.Serve(context.WithoutCancel(s.Context())) }()
	for range replicas {
		<-started
	}
	return h
}

func (s *site) ask(n int) {
	s.Helper()
	for i := range n {
		m := millrace.Message{Headers: millrace.Headers(nil).Append(millrace.HeaderID, fmt.Sprintf("job-%d", i)), Body: []byte("x")}
		must(s, s.broker.Publish(s.Context(), queue, m))
	}
}

func (s *site) finish(n int) {
	for range n {
		s.gate <- struct{}{}
	}
}

// await waits until a report says so.
func (s *site) await(what string, so func(fleet.Report) bool) {
	s.Helper()
	var r fleet.Report
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		var err error
		r, err = s.fleet.Report(s.Context())
		must(s, err)
		if so(r) {
			return
		}
	}
	s.Fatalf("%s: never, but %+v", what, r)
}

func (s *site) want(what string, got, want any) {
	s.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("%s: %v, want %v", what, got, want)
	}
}

func (s *site) wantError(what string, err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: %v, want %v", what, err, want)
	}
}
