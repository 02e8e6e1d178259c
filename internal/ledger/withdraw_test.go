package ledger

import (
	"testing"

	"pgregory.net/rapid"
)

func TestAWithdrawnDeliveryIsNoAttempt(t *testing.T) {
	l := delivered(1)
	l.Nack(1, 1, 0, 0)
	seq, attempt, _ := l.Redeliver(0, 100, 7)
	if !l.Withdraw(seq, attempt, 50, 80) || l.Withdraw(seq, attempt, 50, 80) {
		t.Error("withdrawn twice, or not at all")
	}
	if _, ok := l.NextRedelivery(79); ok || l.NextDue() != 80 {
		t.Error("it does not wait for its time")
	}
	if _, again, ok := l.Redeliver(80, 100, 7); !ok || again != attempt {
		t.Errorf("the next attempt is %d, %v; want %d", again, ok, attempt)
	}
	if n := l.Counts().Nacked; n != 1 {
		t.Errorf("%d nacks were counted", n)
	}
}

// What was passed on is not given back with what else its first owner held.
func TestALeaseThatWasPassedOnIsAnothersAlone(t *testing.T) {
	l := delivered(1, 2)
	owner, _, _ := l.InFlight(1, 1)
	if !l.Pass(1, 1, 5000, 0) || l.Pass(1, 2, 5000, 0) {
		t.Error("passed on without a lease, or not with one")
	}
	if n := l.Release(owner); n != 1 {
		t.Errorf("%d messages were given back", n)
	}
	if n := l.Expire(4999, nil); n != 0 {
		t.Errorf("%d leases ran out", n)
	}
	if !l.Ack(1, 1) {
		t.Error("it is not held")
	}
}

func (c *machine) pass(t *rapid.T) {
	seq, msg := c.pick(t)
	msg.deadline = c.now + rapid.Int64Range(-50, 300).Draw(t, "lease")
	msg.owner = rapid.Uint32Range(0, 3).Draw(t, "owner")
	if !c.l.Pass(seq, msg.attempt, msg.deadline, msg.owner) {
		t.Fatalf("Pass(%d, %d) of a lease that is held", seq, msg.attempt)
	}
	c.m.live[seq] = msg
}

func (c *machine) withdraw(t *rapid.T) {
	seq, msg := c.pick(t)
	due := c.now + rapid.Int64Range(-50, 100).Draw(t, "delay")
	if !c.l.Withdraw(seq, msg.attempt, c.now, due) {
		t.Fatalf("Withdraw(%d, %d) of a lease that is held", seq, msg.attempt)
	}
	msg.attempt--
	c.m.live[seq] = msg
	if due <= c.now {
		c.m.giveBack(seq)
	} else {
		c.m.deferUntil(seq, msg.attempt, due)
	}
}
