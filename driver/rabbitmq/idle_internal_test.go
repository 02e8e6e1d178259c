package rabbitmq

import (
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace/millrace"
)

// asksAgain returns after how many seconds, each time, a subscription asks again to which nothing
// comes.
func asksAgain(s *subscription, c *consuming) (after []int) {
	now := time.Now()
	began := now
	s.idle.since = began
	for range 200 {
		now = now.Add(time.Second)
		if s.idles(c, now) {
			after = append(after, int(now.Sub(began)/time.Second))
			began = now
			s.idle.since = began // as connecting does
		}
	}
	return after
}

func TestASubscriptionThatGetsNothingAsksAgain(t *testing.T) {
	fresh := func() *subscription {
		b := &Broker{addr: &address{hosts: []string{"one:5672", "two:5672"}}}
		return &subscription{b: b, target: 10}
	}
	for name, c := range map[string]struct {
		change func(*subscription, *consuming)
		want   []int
	}{
		"in a cluster": {func(*subscription, *consuming) {}, []int{10, 20, 40, 60, 60}},
		"to one node":  {func(s *subscription, _ *consuming) { s.b.addr.hosts = s.b.addr.hosts[:1] }, nil},
		"paused":       {func(s *subscription, _ *consuming) { s.target = 0 }, nil},
		"ephemeral":    {func(s *subscription, _ *consuming) { s.ephemeral = true }, nil},
		"that holds something": {func(s *subscription, _ *consuming) {
			h := s.held.fresh()
			s.held.add(h)
			s.held.hand(make([]millrace.Delivery, 1), time.Now().Add(time.Hour))
		}, nil},
		"with a long task": {func(_ *subscription, c *consuming) { c.long = new(moving) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, on := fresh(), new(consuming)
			c.change(s, on)
			if got := asksAgain(s, on); !slices.Equal(got, c.want) {
				t.Errorf("it asks again after %v s, want %v", got, c.want)
			}
		})
	}
}

func TestASubscriptionThatGotSomethingBeginsToWaitAnew(t *testing.T) {
	on, now := new(consuming), time.Now()
	s := &subscription{b: &Broker{addr: &address{hosts: []string{"one:5672", "two:5672"}}}, target: 10, c: on}
	s.idle = idleness{now.Add(-9 * time.Second), 5}
	s.arrived(on, new(consumer), &amqp.Delivery{DeliveryTag: 1})
	s.held.lose() // it is settled
	for range 10 {
		if s.idles(on, now) {
			t.Fatal("it asks again too soon")
		}
		now = now.Add(time.Second)
	}
	if !s.idles(on, now) {
		t.Error("it does not ask again")
	}
}
