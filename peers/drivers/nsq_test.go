package drivers_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
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

// nsqFleet starts an nsqd and a millrace serve that have found each other by the real
// nsqlookupd, which it returns.
func nsqFleet(t *testing.T) *node.Lookupd {
	t.Helper()
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
	if err := lookupd.Await(2); err != nil {
		t.Fatal(err)
	}
	return lookupd
}

// registers waits until nsqlookupd knows something.
func registers(t *testing.T, what string, known func() bool) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); !known(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("nsqlookupd does not learn of %s", what)
		}
	}
}

func TestAFleetConforms(t *testing.T) {
	t.Parallel()
	url := "nsqlookupd://" + nsqFleet(t).HTTP
	drivertest.Run(t, func(*testing.T) drivertest.Harness { return nsqHarness(url, fleetDiffers) })
}

// An nsqlookupd goes on to name a topic that no node has any more, and has its channels made
// again by whoever makes the topic again, unless it is told.
func TestWhatIsDeletedIsForgottenByNSQLookupd(t *testing.T) {
	t.Parallel()
	lookupd := nsqFleet(t)
	b, err := millrace.Open(t.Context(), "nsqlookupd://"+lookupd.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	for _, channel := range []string{"stays", "goes"} {
		if err := b.Declare(t.Context(), "forgotten", channel); err != nil {
			t.Fatal(err)
		}
		registers(t, channel, func() bool { return slices.Contains(channelsOf(t, lookupd.HTTP, "forgotten"), channel) })
	}
	if err := b.Delete(t.Context(), "forgotten", "goes"); err != nil {
		t.Fatal(err)
	}
	if got := channelsOf(t, lookupd.HTTP, "forgotten"); !slices.Equal(got, []string{"stays"}) {
		t.Errorf("nsqlookupd names the channels %q", got)
	}
	if err := b.Delete(t.Context(), "forgotten", ""); err != nil {
		t.Fatal(err)
	}
	if got := channelsOf(t, lookupd.HTTP, "forgotten"); len(got) > 0 {
		t.Errorf("nsqlookupd names the channels %q", got)
	}
	if err := b.Publish(t.Context(), "forgotten", millrace.Message{Body: []byte("late")}); err != nil {
		t.Fatal(err)
	}
	if d, err := b.Depth(t.Context(), "forgotten", "stays"); !errors.Is(err, millrace.ErrNotFound) {
		t.Errorf("the channel is there again: %+v, %v", d, err)
	}
}

// channelsOf are the channels of a topic that an nsqlookupd names; none when it does not know
// the topic.
func channelsOf(t *testing.T, lookupd, topic string) []string {
	t.Helper()
	resp, err := http.Get("http://" + lookupd + "/channels?topic=" + topic)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var told struct{ Channels []string }
	if err := json.NewDecoder(resp.Body).Decode(&told); err != nil {
		t.Fatal(err)
	}
	slices.Sort(told.Channels)
	return told.Channels
}
