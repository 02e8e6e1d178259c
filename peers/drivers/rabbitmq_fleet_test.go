//go:build fleet

package drivers_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/driver/rabbitmq"
	"github.com/millrace/millrace/peers/node"
)

// Whoever is connected to the other nodes of a cluster gets everything done while the one that
// leads all queues is down, from the moment on when it dies.
func TestRabbitMQFleetLosesALeader(t *testing.T) {
	const topics = 10
	f, err := node.StartRabbitFleet(t.Context(), t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Stop(); err != nil {
			t.Error(err)
		}
	})
	var r rabbit
	dies := f.Nodes[0]
	near := r.user(t, dies.URL("/"))
	elsewhere := strings.Replace(f.URL("/"), dies.AMQP+",", "", 1)
	far, fresh := r.user(t, elsewhere), r.user(t, elsewhere)
	name := func(i int) string { return fmt.Sprint("t", i) }
	for i := range topics { // the node that makes a queue leads it
		near.must(near.Declare(t.Context(), name(i), "c"))
	}
	const ephemeral = "e" + millrace.EphemeralSuffix
	near.subscribe("e", ephemeral, millrace.SubscribeOptions{})
	e := far.subscribe("e", ephemeral, millrace.SubscribeOptions{}) // its queue is on the other one's node
	near.subscribe(name(0), "c", millrace.SubscribeOptions{})       // so is the roster of these two
	sub := far.subscribe(name(0), "c", millrace.SubscribeOptions{})
	time.Sleep(2 * time.Second) // RabbitMQ 3.10 itself can lose a queue that is younger than that

	near.must(dies.Kill())
	died := time.Now()
	var all sync.WaitGroup
	for i := range topics {
		all.Go(func() {
			ctx := soonCtx(t, 20*time.Second)
			if err := fresh.Publish(ctx, name(i), millrace.Message{Body: []byte("x")}); err != nil {
				t.Errorf("publish to %s: %v", name(i), err)
			}
		})
	}
	all.Wait()
	t.Logf("all is published after %v", time.Since(died))
	far.wantBodies(far.receive(sub, 1), "x")
	for i := 1; i < topics; i++ {
		rabbitEventually(t, name(i)+" has one message", func() bool {
			d, err := fresh.Depth(t.Context(), name(i), "c")
			return err == nil && d == millrace.Depth{Ready: 1}
		})
	}
	fresh.must(fresh.Publish(soonCtx(t, 10*time.Second), name(0), millrace.Message{Body: []byte("late"), Delay: time.Second}))
	far.wantBodies(far.receive(sub, 1), "late")
	rabbitEventually(t, "the other's subscription says what it holds", func() bool {
		// RabbitMQ counts the consumer that died as long as its node is down.
		d, err := fresh.Depth(t.Context(), name(0), "c")
		return (err == nil || errors.Is(err, rabbitmq.ErrUncounted)) && d == millrace.Depth{InFlight: 2}
	})
	rabbitEventually(t, "the ephemeral channel is made again", func() bool {
		fresh.must(fresh.Publish(soonCtx(t, 10*time.Second), "e", millrace.Message{Body: []byte("x")}))
		n, _ := e.Receive(soonCtx(t, 100*time.Millisecond), make([]millrace.Delivery, 1))
		return n > 0
	})
	t.Logf("all works after %v", time.Since(died))
}
