package clients

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsqio/go-nsq"

	"github.com/millrace/millrace/peers/node"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// Most tests wait rather than work: many run at a time, whatever the number of cores.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// onBoth runs the test on nsqd, which shows that the test is right, and on Millrace.
func onBoth(t *testing.T, change func(*node.Options), test func(*testing.T, *node.Node)) {
	t.Helper()
	t.Parallel()
	for name, with := range map[string]node.Start{"nsqd": node.NSQD, "millrace": node.Millrace} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t, with, t.TempDir(), change))
		})
	}
}

func start(t *testing.T, with node.Start, dir string, change func(*node.Options)) *node.Node {
	t.Helper()
	n, err := with(dir, change)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Errorf("stop %s: %v", n.Name, err)
		}
	})
	return n
}

// inbox is where a consumer's messages are counted, by their bodies.
type inbox struct {
	mu    sync.Mutex // guards times
	times map[string]int
	do    func(*nsq.Message) error // what the handler does besides; may be nil
}

// HandleMessage implements nsq.Handler.
func (in *inbox) HandleMessage(m *nsq.Message) error {
	in.mu.Lock()
	if in.times == nil {
		in.times = make(map[string]int)
	}
	in.times[string(m.Body)]++
	in.mu.Unlock()
	if in.do != nil {
		return in.do(m)
	}
	return nil
}

// has returns the bodies that have come, sorted.
func (in *inbox) has() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	var bodies []string
	for body := range in.times {
		bodies = append(bodies, body)
	}
	slices.Sort(bodies)
	return bodies
}

// count is how often a message has come.
func (in *inbox) count(body string) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.times[body]
}

// want waits until exactly these messages have come.
func (in *inbox) want(t *testing.T, bodies ...string) {
	t.Helper()
	want := slices.Sorted(slices.Values(bodies))
	eventually(t, func() error {
		if got := in.has(); !slices.Equal(got, want) {
			return fmt.Errorf("got %d messages %s, want %d %s", len(got), some(got), len(want), some(want))
		}
		return nil
	})
}

func some(bodies []string) string {
	if len(bodies) > 10 {
		return strings.Join(bodies[:10], " ") + " …"
	}
	return strings.Join(bodies, " ")
}

// eventually waits until the claim holds.
func eventually(t *testing.T, claim func() error) {
	t.Helper()
	for until := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := claim()
		if err == nil {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("after %v: %v", patience, err)
		}
	}
}

// bodies are n different ones.
func bodies(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%05d", prefix, i)
	}
	return out
}

// silence is a logger that says nothing.
type silence struct{}

// Output implements go-nsq's logger.
func (silence) Output(int, string) error { return nil }

// settings are those of a client that does not take its time.
func settings(change func(*nsq.Config)) *nsq.Config {
	cfg := nsq.NewConfig()
	cfg.MaxInFlight = 100
	cfg.OutputBufferTimeout = 25 * time.Millisecond
	cfg.LookupdPollInterval = 100 * time.Millisecond
	cfg.LookupdPollJitter = 0
	cfg.DefaultRequeueDelay = 0
	cfg.BackoffMultiplier = 10 * time.Millisecond
	cfg.MaxBackoffDuration = 20 * time.Millisecond
	cfg.MaxAttempts = 0 // no limit
	if change != nil {
		change(cfg)
	}
	return cfg
}

func producer(t *testing.T, n *node.Node, change func(*nsq.Config)) *nsq.Producer {
	t.Helper()
	p, err := nsq.NewProducer(n.TCP, settings(change))
	if err != nil {
		t.Fatal(err)
	}
	p.SetLogger(silence{}, nsq.LogLevelMax)
	t.Cleanup(p.Stop)
	return p
}

// consumer makes one that is not connected yet.
func consumer(t *testing.T, topic, channel string, in *inbox, concurrency int, change func(*nsq.Config)) *nsq.Consumer {
	t.Helper()
	c, err := nsq.NewConsumer(topic, channel, settings(change))
	if err != nil {
		t.Fatal(err)
	}
	c.SetLogger(silence{}, nsq.LogLevelMax)
	c.AddConcurrentHandlers(in, concurrency)
	t.Cleanup(func() { stop(c) })
	return c
}

func connect(t *testing.T, n *node.Node, c *nsq.Consumer) *nsq.Consumer {
	t.Helper()
	if err := c.ConnectToNSQD(n.TCP); err != nil {
		t.Fatal(err)
	}
	return c
}

func stop(c *nsq.Consumer) {
	c.Stop()
	<-c.StopChan
}

// channelStats are what /stats says of a channel.
type channelStats struct {
	Name     string `json:"channel_name"`
	Depth    int    `json:"depth"`
	InFlight int    `json:"in_flight_count"`
	Deferred int    `json:"deferred_count"`
	Messages int    `json:"message_count"`
	Requeued int    `json:"requeue_count"`
	TimedOut int    `json:"timeout_count"`
	Clients  int    `json:"client_count"`
	Paused   bool   `json:"paused"`
}

// web is a client that keeps no connection: that of an nsqd which was stopped in this
// process would go on to answer.
func web() *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
}

// stats asks the node for a topic's channels.
func stats(n *node.Node, topic string) (map[string]channelStats, error) {
	resp, err := web().Get("http://" + n.HTTP + "/stats?format=json&include_clients=0&include_mem=0&topic=" + topic)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Topics []struct {
			Channels []channelStats `json:"channels"`
		} `json:"topics"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	channels := make(map[string]channelStats)
	for _, t := range answer.Topics {
		for _, ch := range t.Channels {
			channels[ch.Name] = ch
		}
	}
	return channels, nil
}

// wantDone waits until the channel holds nothing any more.
func wantDone(t *testing.T, n *node.Node, topic, channel string) channelStats {
	t.Helper()
	var ch channelStats
	eventually(t, func() error {
		channels, err := stats(n, topic)
		if err != nil {
			return err
		}
		ch = channels[channel]
		if ch.Name == "" || ch.Depth+ch.InFlight+ch.Deferred > 0 {
			return fmt.Errorf("channel %s: %+v", channel, ch)
		}
		return nil
	})
	return ch
}

// post asks the node to do something.
func post(t *testing.T, n *node.Node, path, body string) {
	t.Helper()
	resp, err := web().Post("http://"+n.HTTP+path, "", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("POST %s: %s", path, resp.Status)
	}
}

// put changes a setting of the node.
func put(t *testing.T, n *node.Node, path, body string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, "http://"+n.HTTP+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := web().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("PUT %s: %s", path, resp.Status)
	}
}
