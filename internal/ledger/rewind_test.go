package ledger

import "testing"

func TestARewindBringsBackWhatWasDoneAndLeavesWhatIsBelow(t *testing.T) {
	l := New(1)
	for seq := uint64(1); seq <= 10_000; seq++ {
		l.Deliver(seq, 100, 7)
		if seq != 40 {
			l.Ack(seq, 1)
		}
	}
	l.Exclude(20_000, 30_000)
	lost := 0
	l.Rewind(5000, func(uint32) { lost++ })
	if l.Cursor() != 5000 || l.Floor() != 40 || lost != 0 {
		t.Errorf("cursor %d, floor %d, %d leases lost", l.Cursor(), l.Floor(), lost)
	}
	if l.Done(5000, 5001) || !l.Done(41, 5000) || !l.Wanted(20_000) {
		t.Error("what is done is not what is below 5000")
	}
	if !l.Ack(40, 1) {
		t.Error("a lease below is lost")
	}
	l.Rewind(2, nil)
	if l.Cursor() != 2 || l.Floor() != 2 {
		t.Errorf("cursor %d, floor %d", l.Cursor(), l.Floor())
	}
	if got := l.Deliver(40, 100, 8); got != 1 {
		t.Errorf("attempt %d after a rewind", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("a rewind forwards is taken")
		}
	}()
	l.Rewind(42, nil)
}
