package drivers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsio "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/driver/drivertest"
	"github.com/millrace/millrace/driver/nats"
	"github.com/millrace/millrace/peers/node"
)

// natsPayload is the max_payload of the servers here: messages of 1 MiB are to fit, with
// their headers.
const natsPayload = 8 << 20

// startNATS starts a server that goes with the test.
func startNATS(t *testing.T, change func(*server.Options)) *node.NATS {
	t.Helper()
	n, err := node.NATSServer(t.TempDir(), func(o *server.Options) {
		o.MaxPayload = natsPayload
		if change != nil {
			change(o)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// natsUser is a connection to a broker on NATS, with words for what tests do.
type natsUser struct {
	*testing.T
	millrace.Broker
}

func useNATS(t *testing.T, url string) natsUser {
	t.Helper()
	b, err := millrace.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return natsUser{t, b}
}

func (u natsUser) must(err error) {
	u.Helper()
	if err != nil {
		u.Fatal(err)
	}
}

func (u natsUser) publish(topic string, bodies ...string) {
	u.Helper()
	msgs := make([]millrace.Message, len(bodies))
	for i, body := range bodies {
		msgs[i].Body = []byte(body)
	}
	u.must(u.Publish(u.Context(), topic, msgs...))
}

func (u natsUser) subscribe(topic, channel string, opts millrace.SubscribeOptions) millrace.Subscription {
	u.Helper()
	sub, err := u.Subscribe(u.Context(), topic, channel, opts)
	u.must(err)
	return sub
}

// receive receives n messages within some seconds.
func (u natsUser) receive(sub millrace.Subscription, n int) []millrace.Delivery {
	u.Helper()
	ctx, cancel := context.WithTimeout(u.Context(), 20*time.Second)
	defer cancel()
	buf := make([]millrace.Delivery, n)
	for at := 0; at < n; {
		k, err := sub.Receive(ctx, buf[at:])
		if err != nil {
			u.Fatalf("after %d of %d messages: %v", at, n, err)
		}
		at += k
	}
	return buf
}

func natsBodies(ds []millrace.Delivery) []string {
	var all []string
	for _, d := range ds {
		all = append(all, string(d.Body))
	}
	slices.Sort(all)
	return all
}

func (u natsUser) wantBodies(ds []millrace.Delivery, want ...string) {
	u.Helper()
	slices.Sort(want)
	if got := natsBodies(ds); !slices.Equal(got, want) {
		u.Errorf("got %q, want %q", got, want)
	}
}

// natsStreams is a view of the server beside Millrace's.
func natsStreams(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	nc, err := natsio.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestNATSConforms(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, func(t *testing.T) drivertest.Harness {
		t.Parallel()
		n := startNATS(t, nil)
		return drivertest.Harness{
			Open: func(t *testing.T) millrace.Broker { return useNATS(t, n.URL).Broker },
			Differs: map[drivertest.Claim]string{
				drivertest.Depth: "JetStream counts what was given back as in flight until it is delivered again: see TestNATSDepth",
				drivertest.SurvivesRestart: "after a restart, JetStream redelivers what was given back when its lease is over, and what was " +
					"deferred up to a second early: see TestNATSRestart",
			},
			TooLarge: natsPayload + 1,
		}
	})
}

func TestNATSDepth(t *testing.T) {
	t.Parallel()
	u := useNATS(t, startNATS(t, nil).URL)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 4})
	depth := func(what string, is func(millrace.Depth) bool) {
		t.Helper()
		var got millrace.Depth
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			var err error
			got, err = u.Depth(t.Context(), "t", "c")
			u.must(err)
			if is(got) {
				return
			}
		}
		t.Errorf("depth is %+v, want %s", got, what)
	}
	exactly := func(want millrace.Depth) {
		t.Helper()
		depth(fmt.Sprintf("%+v", want), func(d millrace.Depth) bool { return d == want })
	}
	exactly(millrace.Depth{})
	u.publish("t", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
	ds := u.receive(sub, 4)
	exactly(millrace.Depth{Ready: 6, InFlight: 4})
	u.must(sub.Ack(t.Context(), ds[:3]...))
	u.must(sub.Close())
	// What it gave back, or took meanwhile and gave back, is no more in flight than it is
	// ready; but it is there.
	depth("7 in all", func(d millrace.Depth) bool { return d.Ready+d.InFlight == 7 })
	for _, name := range [][2]string{{"t", "other"}, {"other", "c"}} {
		if _, err := u.Depth(t.Context(), name[0], name[1]); !errors.Is(err, millrace.ErrNotFound) {
			t.Errorf("depth of %s: %v", name, err)
		}
	}
}

// What was acked does not come again after a restart, and everything else does: what waited
// at once, what was held when its lease is over, what was deferred when that is over.
func TestNATSRestart(t *testing.T) {
	t.Parallel()
	const lease, delay = 2 * time.Second, 4 * time.Second
	n := startNATS(t, nil)
	u := useNATS(t, n.URL)
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease, Prefetch: 3})
	u.must(u.Declare(t.Context(), "t", "idle"))
	u.publish("t", "acked", "held", "deferred", "waiting")
	ds := u.receive(sub, 3)
	u.must(sub.Nack(t.Context(), delay, ds[2]))
	u.must(sub.Ack(t.Context(), ds[0]))
	start := time.Now()
	u.must(u.Close())
	u.must(n.Stop())
	u.must(n.Start())
	u = useNATS(t, n.URL)
	sub = u.subscribe("t", "c", millrace.SubscribeOptions{Lease: time.Minute})
	ds = u.receive(sub, 2)
	u.wantBodies(ds, "held", "waiting")
	u.must(sub.Ack(t.Context(), ds...))
	u.wantBodies(u.receive(sub, 1), "deferred")
	if took := time.Since(start); took < delay-time.Second || took > delay+2*time.Second {
		t.Errorf("the deferred message came after %v, want %v", took, delay)
	}
	u.wantBodies(u.receive(u.subscribe("t", "idle", millrace.SubscribeOptions{}), 4), "acked", "held", "deferred", "waiting")
}

// A topic's stream is empty again when every channel is done, whatever the order of things,
// and nothing but its channels is left in it.
func TestNATSKeepsNothingThatIsDone(t *testing.T) {
	t.Parallel()
	n := startNATS(t, nil)
	u := useNATS(t, n.URL)
	js := natsStreams(t, n.URL)
	state := func() string {
		s, err := js.Stream(t.Context(), nats.Stream("a.topic"))
		u.must(err)
		var names []string
		for name := range s.ConsumerNames(t.Context()).Name() {
			if strings.HasPrefix(name, "~") {
				name = "~"
			}
			names = append(names, name)
		}
		slices.Sort(names)
		return fmt.Sprint(s.CachedInfo().State.Msgs, names)
	}
	want := func(want string) {
		t.Helper()
		got := state()
		for end := time.Now().Add(2 * time.Second); got != want && time.Now().Before(end); got = state() {
			time.Sleep(10 * time.Millisecond)
		}
		if got != want {
			t.Errorf("the stream has %s, want %s", got, want)
		}
	}
	u.publish("a.topic", "1", "2", "3")
	want("3 [~]")
	sub := u.subscribe("a.topic", "the.first", millrace.SubscribeOptions{})
	want("3 [the=first]")
	other := u.subscribe("a.topic", "other", millrace.SubscribeOptions{})
	u.must(sub.Ack(t.Context(), u.receive(sub, 3)...))
	want("0 [other the=first]")
	u.publish("a.topic", "4")
	u.must(sub.Ack(t.Context(), u.receive(sub, 1)...))
	want("1 [other the=first]")
	u.must(other.Ack(t.Context(), u.receive(other, 1)...))
	want("0 [other the=first]")
	u.must(u.Delete(t.Context(), "a.topic", "other"))
	want("0 [the=first]")
	u.publish("a.topic", "5")
	u.must(u.Delete(t.Context(), "a.topic", "the.first"))
	want("0 [~]")
	u.publish("a.topic", "6")
	u.wantBodies(u.receive(u.subscribe("a.topic", "again", millrace.SubscribeOptions{}), 1), "6")
	want("1 [again]")
	u.must(u.Delete(t.Context(), "a.topic", ""))
	if _, err := js.Stream(t.Context(), nats.Stream("a.topic")); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the stream of the deleted topic: %v", err)
	}
}
