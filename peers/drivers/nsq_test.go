package drivers_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/driver/drivertest"
	_ "github.com/millrace/millrace/driver/nsq"
	"github.com/millrace/millrace/peers/node"
)

// nsqNode is a broker of NSQ's protocol that can be restarted at its addresses.
type nsqNode struct {
	*node.Node
	t     testing.TB
	start node.Start
	dir   string
	set   func(*node.Options)
	host  string
}

var nsqHosts atomic.Uint32

// nsqHost is an address of loopback that no other node has: nobody else gets the ports of
// one that is down.
func nsqHost() string {
	n := nsqHosts.Add(1)
	return fmt.Sprintf("127.99.%d.%d", n/250, 1+n%250)
}

func startNSQ(t testing.TB, start node.Start, set func(*node.Options)) *nsqNode {
	t.Helper()
	n := &nsqNode{t: t, start: start, dir: t.TempDir(), set: set, host: nsqHost()}
	n.up()
	t.Cleanup(n.down)
	return n
}

// up starts the node, where it was before.
func (n *nsqNode) up() {
	n.t.Helper()
	before := n.Node
	started, err := n.start(n.dir, func(o *node.Options) {
		o.TCPAddress, o.HTTPAddress, o.BroadcastAddress = n.host+":0", n.host+":0", n.host
		if n.set != nil {
			n.set(o)
		}
		if before != nil {
			o.TCPAddress, o.HTTPAddress = before.TCP, before.HTTP
		}
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.Node = started
}

func (n *nsqNode) down() {
	n.t.Helper()
	if err := n.Stop(); err != nil {
		n.t.Errorf("stop %s: %v", n.Name, err)
	}
}

// nsqURL is the URL of nodes.
func nsqURL(nodes ...*nsqNode) string {
	var tcp, http []string
	for _, n := range nodes {
		tcp = append(tcp, n.TCP)
		http = append(http, n.HTTP)
	}
	return "nsq://" + strings.Join(tcp, ",") + "?http=" + strings.Join(http, ",")
}

func openNSQ(t *testing.T, url string) millrace.Broker {
	t.Helper()
	b, err := millrace.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// nsqHarness is for the conformance suite.
func nsqHarness(url string, differs map[drivertest.Claim]string) drivertest.Harness {
	return drivertest.Harness{
		Open:    func(t *testing.T) millrace.Broker { return openNSQ(t, url) },
		Lease:   time.Second,
		Delay:   500 * time.Millisecond,
		Differs: differs,
	}
}

func TestMillraceServeConforms(t *testing.T) {
	t.Parallel()
	n := startNSQ(t, node.Millrace, nil)
	drivertest.Run(t, func(t *testing.T) drivertest.Harness {
		h := nsqHarness(nsqURL(n), nil)
		h.Restart = func(*testing.T) { n.down(); n.up() }
		return h
	})
}

// What nsqd does not promise.
var nsqdDiffers = map[drivertest.Claim]string{
	drivertest.SurvivesRestart: "nsqd delivers what was deferred at once when it has been restarted",
}

func TestNsqdConforms(t *testing.T) {
	t.Parallel()
	n := startNSQ(t, node.NSQD, nil)
	drivertest.Run(t, func(*testing.T) drivertest.Harness { return nsqHarness(nsqURL(n), nsqdDiffers) })
}

// What does not hold when a topic is on several nodes, of whichever kind.
var fleetDiffers = map[drivertest.Claim]string{
	drivertest.Order: "each batch is published to one of the nodes, which know nothing of each other",
}

func TestTwoNodesConform(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]node.Start{"millrace": node.Millrace, "nsqd": node.NSQD} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := startNSQ(t, start, nil), startNSQ(t, start, nil)
			drivertest.Run(t, func(*testing.T) drivertest.Harness { return nsqHarness(nsqURL(a, b), fleetDiffers) })
		})
	}
}

// An nsqd, and a millrace serve, that have found each other by the real nsqlookupd.
func TestAFleetConforms(t *testing.T) {
	t.Parallel()
	lookupd, err := node.NSQLookupd()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lookupd.Stop(); err != nil {
			t.Error(err)
		}
	})
	register := func(o *node.Options) { o.NSQLookupdTCPAddresses = []string{lookupd.TCP} }
	startNSQ(t, node.Millrace, register)
	startNSQ(t, node.NSQD, register)
	url := "nsqlookupd://" + lookupd.HTTP
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if nodes := len(nodesOf(t, lookupd.HTTP)); nodes == 2 {
			break
		} else if time.Now().After(until) {
			t.Fatalf("%d nodes have registered", nodes)
		}
	}
	drivertest.Run(t, func(*testing.T) drivertest.Harness { return nsqHarness(url, fleetDiffers) })
}

func nodesOf(t *testing.T, lookupd string) []any {
	t.Helper()
	resp, err := http.Get("http://" + lookupd + "/nodes")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var told struct{ Producers []any }
	if err := json.NewDecoder(resp.Body).Decode(&told); err != nil {
		t.Fatal(err)
	}
	return told.Producers
}
