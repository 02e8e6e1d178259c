package ledger

import "testing"

func TestHolderTellsTheLeaseThatIsHeld(t *testing.T) {
	l := New(1)
	if _, _, _, ok := l.Holder(1); ok {
		t.Error("somebody holds a message that was never delivered")
	}
	l.Deliver(1, 100, 7)
	l.Deliver(2, 200, 8)
	owner, attempt, deadline, ok := l.Holder(1)
	if !ok || owner != 7 || attempt != 1 || deadline != 100 {
		t.Errorf("message 1 is held by %d as attempt %d until %d (%v), want 7, 1, 100", owner, attempt, deadline, ok)
	}
	l.Nack(1, 1, 50, 50)
	if _, _, _, ok := l.Holder(1); ok {
		t.Error("somebody holds a message that was given back")
	}
	l.Redeliver(60, 300, 8)
	if owner, attempt, _, ok := l.Holder(1); !ok || owner != 8 || attempt != 2 {
		t.Errorf("message 1 is held by %d as attempt %d (%v), want 8, 2", owner, attempt, ok)
	}
	l.Ack(2, 1)
	if _, _, _, ok := l.Holder(2); ok {
		t.Error("somebody holds a message that was acked")
	}
	if _, _, _, ok := l.Holder(1 << 40); ok {
		t.Error("somebody holds a message that does not exist")
	}
}
