package drivers_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace"
)

// A URL may name several nodes. One that refuses connections, and one that takes them and says
// nothing, keep nobody from the others.
func rabbitHosts(t *testing.T, r *rabbit) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the system takes connections in its place
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	url := r.vhost(t)
	for _, hosts := range []string{"127.0.0.1:1," + r.AMQP, r.AMQP + "," + silent.Addr().String()} {
		for range 4 { // which one is tried first is chance
			start := time.Now()
			u := r.user(t, strings.Replace(url, r.AMQP, hosts, 1))
			u.publish("t", "x")
			u.must(u.Close())
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%s: it took %v", hosts, took)
			}
		}
	}
	start := time.Now()
	_, err = millrace.Open(soonCtx(t, 3*time.Second), "amqp://127.0.0.1:1,"+silent.Addr().String()+"/")
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1: ") || time.Since(start) > 5*time.Second {
		t.Errorf("no node is there, which is said after %v: %v", time.Since(start), err)
	}
}

// Who is connected to a node that goes goes on with another one, with all that is on its way.
func rabbitOtherHost(t *testing.T, r *rabbit) {
	one, two := newNATSProxy(t, r.AMQP), newNATSProxy(t, r.AMQP)
	hosts := strings.TrimPrefix(one.URL, "nats://") + "," + strings.TrimPrefix(two.URL, "nats://")
	u := r.user(t, strings.Replace(r.vhost(t), r.AMQP, hosts, 1))
	sub := u.subscribe("t", "c", millrace.SubscribeOptions{})
	for i, down := range []*natsProxy{one, two, one} {
		down.Cut(true)
		body := fmt.Sprint("without ", i)
		u.must(u.Publish(soonCtx(t, 10*time.Second), "t", millrace.Message{Body: []byte(body)}))
		for { // what was not acked in time comes again
			d := u.receive(sub, 1)[0]
			if err := sub.Ack(t.Context(), d); err != nil && !errors.Is(err, millrace.ErrLeaseLost) {
				t.Fatal(err)
			}
			if string(d.Body) == body {
				break
			}
		}
		down.Cut(false)
	}
}

// A server that permits no transient queues has ephemeral channels all the same: each goes with its
// last consumer, soon when that leaves and some seconds later when it dies.
func rabbitNoTransients(t *testing.T, r *rabbit) {
	const ephemeral = "e" + millrace.EphemeralSuffix
	url := r.vhost(t) + "&transient_queues=false"
	u := r.user(t, url)
	u.must(u.Declare(t.Context(), "t", "c"))
	one := u.subscribe("t", ephemeral, millrace.SubscribeOptions{})
	proxy := newNATSProxy(t, r.AMQP)
	far := r.user(t, strings.Replace(url, r.AMQP, strings.TrimPrefix(proxy.URL, "nats://"), 1))
	two := far.subscribe("t", ephemeral, millrace.SubscribeOptions{})
	u.must(one.Close())
	u.publish("t", "x")
	far.wantBodies(far.receive(two, 1), "x") // it stays for the other one
	u.must(two.Close())
	gone := func() bool {
		_, err := u.Depth(t.Context(), "t", ephemeral)
		return errors.Is(err, millrace.ErrNotFound)
	}
	if !gone() {
		t.Error("its last consumer has left, and it is still there")
	}
	far.subscribe("t", ephemeral, millrace.SubscribeOptions{})
	proxy.Cut(true)
	rabbitWithin(t, 20*time.Second, "the channel goes with who died", gone)
}
