package clients

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/peers/node"
)

func lookupd(t *testing.T) *node.Lookupd {
	t.Helper()
	l, err := node.NSQLookupd()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Errorf("stop nsqlookupd: %v", err)
		}
	})
	return l
}

// ask gets JSON.
func ask(addr, path string, answer any) error {
	resp, err := web().Get("http://" + addr + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

// producers are the nodes that an nsqlookupd, or who acts as one, has for a topic.
func producers(addr, topic string) ([]string, []string, error) {
	var answer struct {
		Channels  []string `json:"channels"`
		Producers []struct {
			BroadcastAddress string `json:"broadcast_address"`
			TCPPort          int    `json:"tcp_port"`
			HTTPPort         int    `json:"http_port"`
			Version          string `json:"version"`
		} `json:"producers"`
	}
	err := ask(addr, "/lookup?topic="+topic, &answer)
	var nodes []string
	for _, p := range answer.Producers {
		nodes = append(nodes, fmt.Sprintf("%s:%d", p.BroadcastAddress, p.TCPPort))
	}
	slices.Sort(answer.Channels)
	return nodes, answer.Channels, err
}

func TestConsumersFindTheBrokerByNSQLookupd(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]node.Start{"nsqd": node.NSQD, "millrace": node.Millrace} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one, two := lookupd(t), lookupd(t)
			n := start(t, with, t.TempDir(), func(o *node.Options) { o.NSQLookupdTCPAddresses = []string{one.TCP, two.TCP} })
			publish(t, n, "t", bodies("m", 100)...)
			for _, l := range []*node.Lookupd{one, two} {
				registered(t, l, n, "t", nil)
			}
			in := new(inbox)
			c := consumer(t, "t", "c", in, 1, nil)
			if err := c.ConnectToNSQLookupds([]string{one.HTTP, two.HTTP}); err != nil {
				t.Fatal(err)
			}
			in.want(t, bodies("m", 100)...)
			registered(t, one, n, "t", []string{"c"})

			post(t, n, "/channel/create?topic=t&channel=d%23ephemeral", "")
			registered(t, two, n, "t", []string{"c", "d#ephemeral"})
			post(t, n, "/channel/delete?topic=t&channel=d%23ephemeral", "")
			registered(t, two, n, "t", []string{"c"})
			post(t, n, "/topic/delete?topic=t", "")
			eventually(t, func() error {
				if nodes, _, err := producers(one.HTTP, "t"); err == nil && len(nodes) > 0 {
					return fmt.Errorf("nsqlookupd still has %v for the deleted topic", nodes)
				}
				return nil
			})
		})
	}
}

// registered waits until the nsqlookupd knows the node for the topic, with the channels.
func registered(t *testing.T, l *node.Lookupd, n *node.Node, topic string, channels []string) {
	t.Helper()
	eventually(t, func() error {
		nodes, has, err := producers(l.HTTP, topic)
		if err != nil {
			return err
		}
		if !slices.Equal(nodes, []string{n.TCP}) || !slices.Equal(has, channels) {
			return fmt.Errorf("nsqlookupd has %v with channels %v, want %s with %v", nodes, has, n.TCP, channels)
		}
		return nil
	})
}

func TestANewTopicHasTheChannelsThatNSQLookupdKnows(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]node.Start{"nsqd": node.NSQD, "millrace": node.Millrace} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := lookupd(t)
			joined := func(o *node.Options) { o.NSQLookupdTCPAddresses = []string{l.TCP} }
			old := start(t, node.NSQD, t.TempDir(), joined)
			post(t, old, "/topic/create?topic=t", "")
			for _, channel := range []string{"a", "b", "c%23ephemeral"} {
				post(t, old, "/channel/create?topic=t&channel="+channel, "")
			}
			eventually(t, func() error {
				if _, channels, err := producers(l.HTTP, "t"); err != nil || len(channels) != 3 {
					return fmt.Errorf("%v %w", channels, err)
				}
				return nil
			})
			n := start(t, with, t.TempDir(), joined)
			known(t, l, n)
			publish(t, n, "t", "m")
			eventually(t, func() error {
				channels, err := stats(n, "t")
				if err != nil || len(channels) != 2 || channels["a"].Depth != 1 || channels["b"].Depth != 1 {
					return fmt.Errorf("%+v %w", channels, err)
				}
				return nil
			})
		})
	}
}

// known waits until the nsqlookupd knows the node, and the node that it does.
func known(t *testing.T, l *node.Lookupd, n *node.Node) {
	t.Helper()
	eventually(t, func() error {
		var answer struct {
			Producers []struct {
				TCPPort int `json:"tcp_port"`
			} `json:"producers"`
		}
		if err := ask(l.HTTP, "/nodes", &answer); err != nil {
			return err
		}
		for _, p := range answer.Producers {
			if fmt.Sprintf("127.0.0.1:%d", p.TCPPort) == n.TCP {
				time.Sleep(200 * time.Millisecond) // for the answer to reach it
				return nil
			}
		}
		return fmt.Errorf("nsqlookupd knows %v, not %s", answer, n.TCP)
	})
}

func TestNSQLookupdMayComeLater(t *testing.T) {
	t.Parallel()
	l := lookupd(t)
	n := start(t, node.Millrace, t.TempDir(), nil)
	publish(t, n, "t", "m")
	put(t, n, "/config/nsqlookupd_tcp_addresses", fmt.Sprintf("[%q]", l.TCP))
	registered(t, l, n, "t", nil)
}

// Millrace alone is its own nsqlookupd.
func TestConsumersNeedNoNSQLookupd(t *testing.T) {
	t.Parallel()
	n := start(t, node.Millrace, t.TempDir(), nil)
	publish(t, n, "t", bodies("m", 100)...)
	in := new(inbox)
	if err := consumer(t, "t", "c", in, 1, nil).ConnectToNSQLookupd(n.HTTP); err != nil {
		t.Fatal(err)
	}
	if c := consumer(t, "t", "c2", in, 1, nil); c.ConnectToNSQLookupd(n.HTTP) != nil {
		t.Error("a second consumer cannot look the topic up")
	}
	in.want(t, bodies("m", 100)...)
	// What KEDA's scaler asks, first of a lookup and then of each node that it names.
	if nodes, channels, err := producers(n.HTTP, "t"); err != nil || !slices.Equal(nodes, []string{n.TCP}) || !slices.Contains(channels, "c") {
		t.Errorf("it names %v with channels %v: %v", nodes, channels, err)
	}
}
