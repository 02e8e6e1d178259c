package ledger

import (
	"math"
	"runtime"
	"slices"
	"testing"
)

func TestAMessageThatIsAckedIsDone(t *testing.T) {
	l := New(1)
	if attempt := l.Deliver(1, 100, 7); attempt != 1 {
		t.Errorf("the first delivery is attempt %d", attempt)
	}
	if l.Done(1, 2) || !l.Ack(1, 1) || !l.Done(1, 2) {
		t.Error("done before the ack, or not after it")
	}
	if l.Ack(1, 1) {
		t.Error("acked twice")
	}
}

func TestTheFloorWaitsForTheOldest(t *testing.T) {
	l := delivered(1, 2, 3, 4)
	for _, step := range []struct{ ack, floor uint64 }{{2, 1}, {4, 1}, {1, 3}, {3, 5}} {
		l.Ack(step.ack, 1)
		if got := l.Floor(); got != step.floor {
			t.Errorf("after the ack of %d the floor is %d, want %d", step.ack, got, step.floor)
		}
	}
}

func TestHolesAreDone(t *testing.T) {
	l := New(1)
	l.Deliver(5, 100, 1)
	l.Defer(9, 100)
	l.Skip(20)
	if got := slices.Collect(l.Live(0, 100)); !slices.Equal(got, []uint64{5, 9}) {
		t.Errorf("live are %v, want 5 and 9", got)
	}
	if l.Cursor() != 20 || l.Floor() != 5 {
		t.Errorf("cursor %d, floor %d, want 20 and 5", l.Cursor(), l.Floor())
	}
	if l.Skip(7); l.Cursor() != 20 {
		t.Error("the cursor went back")
	}
}

func TestWhatIsAtTheCursorIsNotDone(t *testing.T) {
	l := New(10)
	if !l.Done(1, 10) || l.Done(1, 11) || l.Done(10, 11) || !l.Done(10, 10) {
		t.Error("the cursor, 10, is not where Done ends")
	}
	if n := l.LiveCount(0, 100); n != 0 {
		t.Errorf("%d are live that were not delivered", n)
	}
}

func TestADeliveryBeforeTheCursorIsAMistake(t *testing.T) {
	for name, call := range map[string]func(*Ledger){
		"Deliver": func(l *Ledger) { l.Deliver(9, 1, 1) },
		"Defer":   func(l *Ledger) { l.Defer(9, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			call(New(10))
		})
	}
}

func TestANackedMessageComesAgain(t *testing.T) {
	l := delivered(1, 2, 3)
	if !l.Nack(2, 1, 1000, 1000) || !l.Nack(1, 1, 1000, 0) || !l.Nack(3, 1, 1000, 1001) {
		t.Fatal("a lease was not held")
	}
	wantRedelivery(t, l, 1000, 2, 2) // in the order in which they were given back
	wantRedelivery(t, l, 1000, 1, 2)
	wantRedelivery(t, l, 1000, 0, 0)
	wantRedelivery(t, l, 1001, 3, 2)
	if l.Ack(3, 1) || l.Nack(3, 1, 0, 0) || l.Extend(3, 1, 9999) || !l.Ack(3, 2) {
		t.Error("attempt 1 is still held, or attempt 2 is not")
	}
	if got := l.Counts(); got.Redelivered != 3 || got.Nacked != 3 || got.InFlight != 2 {
		t.Errorf("counts: %+v", got)
	}
}

func TestDeferredMessagesComeInTheOrderOfTheirTimes(t *testing.T) {
	l := New(1)
	for seq, due := range []int64{0, 50, 30, 50, 10, 70} {
		if seq > 0 {
			l.Defer(uint64(seq), due)
		}
	}
	for _, want := range []struct{ now, due, seq int64 }{
		{9, 10, 0}, {60, 10, 4}, {60, 70, 2}, {60, 70, 1}, {60, 70, 3}, {60, 70, 0}, {70, 70, 5}, {70, 0, 0},
	} {
		if got := l.NextDue(); got != want.due {
			t.Errorf("NextDue is %d, want %d", got, want.due)
		}
		wantRedelivery(t, l, want.now, uint64(want.seq), min(1, uint32(want.seq)))
	}
}

func TestMessagesThatAreDueAtTheSameTimeComeInOrder(t *testing.T) {
	l := New(1)
	for seq := uint64(1); seq <= 100; seq++ {
		l.Defer(seq, 50)
	}
	for seq := uint64(1); seq <= 100; seq++ {
		wantRedelivery(t, l, 50, seq, 1)
	}
}

func TestALeaseEndsAtItsDeadline(t *testing.T) {
	l := New(1)
	l.Deliver(1, 100, 7)
	l.Deliver(2, 50, 8)
	l.Deliver(3, 200, 9)
	if got := l.NextDeadline(); got != 50 {
		t.Errorf("NextDeadline is %d, want 50", got)
	}
	if n := l.Expire(49, nil); n != 0 {
		t.Errorf("%d leases ran out early", n)
	}
	var lost []uint64
	n := l.Expire(100, func(seq uint64, attempt, owner uint32) {
		lost = append(lost, seq, uint64(attempt), uint64(owner))
	})
	if n != 2 || !slices.Equal(lost, []uint64{1, 1, 7, 2, 1, 8}) {
		t.Errorf("%d leases ran out: %v", n, lost)
	}
	if got := l.NextDeadline(); got != 200 {
		t.Errorf("NextDeadline is %d, want 200", got)
	}
	if l.Ack(1, 1) {
		t.Error("acked after the deadline")
	}
	wantRedelivery(t, l, 100, 1, 2)
	wantRedelivery(t, l, 100, 2, 2)
	if got := l.Counts().Expired; got != 2 {
		t.Errorf("Expired is %d, want 2", got)
	}
}

func TestAnExtendedLeaseLastsLonger(t *testing.T) {
	l := delivered(1)
	if !l.Extend(1, 1, 500) {
		t.Fatal("the lease is not held")
	}
	if n := l.Expire(499, nil); n != 0 {
		t.Error("ran out early")
	}
	if owner, deadline, ok := l.InFlight(1, 1); owner != 1 || deadline != 500 || !ok {
		t.Errorf("InFlight: %d, %d, %v", owner, deadline, ok)
	}
	l.Extend(1, 1, 300) // also the other way, as a client that gives up may ask
	if n := l.Expire(300, nil); n != 1 {
		t.Error("did not run out")
	}
}

// A sweep is what acks are spared of, so it must not come back with each Expire.
func TestExpireLooksAtLeasesOnlyWhenOneMayHaveRunOut(t *testing.T) {
	l := New(1)
	l.Deliver(1, 100, 1)
	l.Deliver(2, 1000, 1)
	l.Ack(1, 1)
	l.Expire(100, nil) // the bound is that of a lease that has gone
	if got := l.NextDeadline(); got != 1000 {
		t.Errorf("NextDeadline is %d after a sweep, want 1000", got)
	}
	l.Ack(2, 1)
	if got := l.NextDeadline(); got != 0 {
		t.Errorf("NextDeadline is %d when nothing is in flight", got)
	}
	l.Deliver(3, 5000, 1)
	if got := l.NextDeadline(); got != 5000 {
		t.Errorf("NextDeadline is %d, want 5000", got)
	}
}

func TestADeadOwnersMessagesAreReadyInOrder(t *testing.T) {
	l := New(1)
	for seq := uint64(1); seq <= 200; seq++ {
		l.Deliver(seq, 1000, uint32(seq%2))
	}
	if n := l.Release(1); n != 100 {
		t.Errorf("released %d, want 100", n)
	}
	for seq := uint64(1); seq <= 200; seq += 2 {
		wantRedelivery(t, l, 0, seq, 2)
	}
	if !l.Ack(2, 1) || l.Ack(1, 1) {
		t.Error("not the owner's leases ended")
	}
}

// The pages that leases are in come and go, and come back for other messages.
func TestALeaseIsFoundInAPageThatWasGone(t *testing.T) {
	l := New(64)
	l.Deliver(64, 100, 1)
	l.Deliver(128, 100, 1)
	l.Deliver(192, 100, 2)
	if _, _, ok := l.InFlight(64, 1); !ok {
		t.Error("not in flight")
	}
	l.Release(1)
	wantRedelivery(t, l, 0, 64, 2)
	if !l.Ack(64, 2) {
		t.Error("the lease is not held")
	}
}

func TestEmptyTakesMessagesInEveryState(t *testing.T) {
	l := delivered(1, 2, 3, 4, 5)
	l.Nack(2, 1, 0, 0)
	l.Nack(3, 1, 0, 100)
	l.Nack(4, 1, 0, 0)
	l.Nack(5, 1, 0, 100)
	l.Empty(4)
	if l.Ack(1, 1) {
		t.Error("a lease below is still held")
	}
	if got := l.Counts(); got.InFlight != 0 || got.Ready != 1 || got.Deferred != 1 {
		t.Errorf("counts: %+v", got)
	}
	wantRedelivery(t, l, 100, 4, 2)
	wantRedelivery(t, l, 100, 5, 2)
	l.Empty(10)
	if l.Floor() != 10 || l.Cursor() != 10 || l.Counts().InFlight != 0 {
		t.Errorf("floor %d, cursor %d, %+v", l.Floor(), l.Cursor(), l.Counts())
	}
}

func TestNoAttemptIsNumberZero(t *testing.T) {
	l := New(1)
	l.Deliver(1, 100, 1)
	l.Nack(1, 1, 0, 0)
	l.ready.ring[l.ready.head].attempt = math.MaxUint32
	wantRedelivery(t, l, 0, 1, math.MaxUint32)
}

// A busy channel with nacks, deferrals and a journal: none of it allocates for long.
func TestTheSteadyStateAllocatesNothing(t *testing.T) {
	l := New(1)
	var journal []byte
	seq := uint64(1)
	batch := func() {
		for range 1000 {
			l.Deliver(seq, int64(seq), 1)
			switch {
			case seq <= 500:
			case seq%100 == 0:
				l.Nack(seq-500, 1, 0, int64(seq%200))
			default:
				l.Ack(seq-500, 1)
			}
			seq++
		}
		for {
			again, attempt, ok := l.Redeliver(1000, 2000, 1)
			if !ok {
				break
			}
			l.Ack(again, attempt)
		}
		journal = l.AppendJournal(journal[:0])
	}
	for range 100 {
		batch()
	}
	if allocs := testing.AllocsPerRun(100, batch); allocs > 1 {
		t.Errorf("%v allocations for a thousand messages", allocs)
	}
}

// A burst is not remembered in memory.
func TestMemoryOfABurstIsGivenBack(t *testing.T) {
	before := heap()
	l := New(0)
	const burst = 200_000
	for seq := range uint64(burst) {
		if seq%2 == 0 {
			l.Deliver(seq, 1, 1)
		} else {
			l.Defer(seq, 1)
		}
	}
	l.Release(1)
	for range burst {
		seq, attempt, _ := l.Redeliver(2, 10, 1)
		if !l.Ack(seq, attempt) {
			t.Fatal("not held")
		}
	}
	l.AppendJournal(nil)
	if got := heap() - before; got > 1<<20 {
		t.Errorf("%d bytes are kept", got)
	}
	runtime.KeepAlive(l)
}

// delivered is a ledger with these messages in flight for owner 1 until 100.
func delivered(seqs ...uint64) *Ledger {
	l := New(seqs[0])
	for _, seq := range seqs {
		l.Deliver(seq, 100, 1)
	}
	return l
}

// wantRedelivery takes the next message, which must be this attempt at seq; none if
// seq is 0.
func wantRedelivery(t *testing.T, l *Ledger, now int64, seq uint64, attempt uint32) {
	t.Helper()
	gotSeq, gotAttempt, ok := l.Redeliver(now, math.MaxInt64, 1)
	if gotSeq != seq || gotAttempt != attempt || ok != (seq != 0) {
		t.Errorf("redelivered %d attempt %d, %v, want %d attempt %d", gotSeq, gotAttempt, ok, seq, attempt)
	}
}
