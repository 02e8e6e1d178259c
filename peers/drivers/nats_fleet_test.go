//go:build fleet

package drivers_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/driver/drivertest"
	"github.com/millrace/millrace/driver/nats"
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/peers/node"
)

// startNATSFleet starts a cluster of three that goes with the test. Its URL keeps each
// topic on all of them.
func startNATSFleet(t *testing.T) *node.NATSFleet {
	t.Helper()
	path, err := node.BuildNATSServer(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f, err := node.StartNATSFleet(path, t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Stop(); err != nil {
			t.Error(err)
		}
	})
	f.URL += "?replicas=3"
	return f
}

func TestNATSFleetConforms(t *testing.T) {
	f := startNATSFleet(t)
	drivertest.Run(t, func(*testing.T) drivertest.Harness {
		return drivertest.Harness{
			Open: func(t *testing.T) millrace.Broker { return useNATS(t, f.URL).Broker },
			Differs: map[drivertest.Claim]string{
				drivertest.Depth: "JetStream counts what was given back as in flight until it is delivered again: see TestNATSDepth",
				drivertest.Large: "max_payload is what it is by default, 1 MiB with the headers",
			},
			TooLarge: 1<<20 + 1,
			Slack:    5 * time.Second,
		}
	})
}

// A job of 20 000 tasks with three workers loses and doubles nothing while the node that
// leads the queue's stream dies, comes back, and another one dies.
func TestNATSFleetOutlivesItsNodes(t *testing.T) {
	f := startNATSFleet(t)
	u := useNATS(t, f.URL)
	for range 3 {
		natsWorker(t, f.URL, "square", time.Millisecond)
	}
	streams := natsStreams(t, f.URL)
	leader := func() *node.NATSNode {
		for until := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) { // an election may be going on, in which nobody answers
			s, err := streams.Stream(t.Context(), nats.Stream("square"))
			for _, n := range f.Nodes {
				if err == nil && n.Name == s.CachedInfo().Cluster.Leader {
					return n
				}
			}
			if time.Now().After(until) {
				t.Fatalf("the stream has no leader: %v", err)
			}
		}
	}
	var first *node.NATSNode
	start := time.Now()
	natsSquares(t, u, "square", 20_000, gather.Config{Resend: 10 * time.Second}, func(count int) {
		switch count {
		case 5_000:
			first = leader()
			t.Logf("%s dies after %v", first.Name, time.Since(start))
			u.must(first.Kill())
		case 10_000:
			t.Logf("it comes back after %v", time.Since(start))
			u.must(first.Start())
			u.must(first.Healthy())
		case 15_000:
			second := leader()
			t.Logf("%s dies after %v", second.Name, time.Since(start))
			u.must(second.Kill())
		}
	})
	t.Logf("all is done after %v", time.Since(start))
	u.wantIdle("square")
}
