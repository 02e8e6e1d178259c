package ledger

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// full is a ledger with something of everything: 10 in flight, 11 and 12 done, 13 ready
// again after two attempts, 14 deferred after one, 15 to 19 holes, 20 deferred from the
// beginning, 21 in flight for the second time.
func full() *Ledger {
	l := New(10)
	for seq := range uint64(5) {
		l.Deliver(10+seq, 100, 1)
	}
	l.Ack(11, 1)
	l.Ack(12, 1)
	l.Nack(13, 1, 0, 0)
	l.Nack(14, 1, 0, 1000)
	l.Defer(20, 300)
	l.Deliver(21, 100, 1)
	l.Nack(21, 1, 0, 0)
	l.Redeliver(0, 100, 2)
	l.Nack(13, 2, 0, 0)
	l.Redeliver(0, 100, 2)
	return l
}

// The format is final: what it says today is read by every version to come.
func TestTheBytesOfAnEntry(t *testing.T) {
	want := func(kind string) string {
		return strings.Join([]string{
			"02", hex.EncodeToString([]byte(kind)), "0a", "0c", // floor 10, cursor 22
			"02", "0102", "0205", // done: 11 and 12, and 15 to 19
			"02", "0302", "0802", // ready again or in flight after two attempts: 13 and 21
			"02", "ac020a00", "bc050401", // deferred: 20 until 300, 14 until 1000
		}, "")
	}
	l := full()
	if got := hex.EncodeToString(l.AppendSnapshot(nil)); got != want("s") {
		t.Errorf("snapshot\n%s, want\n%s", got, want("s"))
	}
	if got := hex.EncodeToString(l.AppendJournal(nil)); got != want("j") {
		t.Errorf("journal\n%s, want\n%s", got, want("j"))
	}
	// Ahead of the cursor: 25 is deferred, 27 ready again, 28 done. 30 is excluded.
	takeAhead(l)
	tail := strings.Join([]string{
		"03", "0102", "0205", "0801", // done: also 28
		"03", "0303", "0802", "0601", // ready: also 27
		"03", "ac020a00", "640f00", "d8040401", // deferred: also 25 until 400
		"01", "0801", "28", // excluded: 30; surveyed up to 40
	}, "")
	if got, want := hex.EncodeToString(l.AppendSnapshot(nil)), "0273"+"0a0c"+tail; got != want {
		t.Errorf("snapshot\n%s, want\n%s", got, want)
	}
	// Far are 14, until 1000, and 90 to 94 and 96 of the next block, until 2000 and more.
	spill(l)
	tail = strings.Join([]string{
		"03", "0102", "0205", "0801",
		"03", "0303", "0802", "0601",
		"02", "ac020a00", "640f00", // deferred and near: 20 and 25
		"01", "0801", "9060", // surveyed up to 12304
		"02", "07", "00", "02", "e803000000000000", "0000000000000000", "00", // one run, number 7, of 2 blocks
		"02", "00", "01", "0e01", // far: 14
		"03", "02", "0205", "0101", // 12290 to 12294 and 12296
	}, "")
	if got, want := hex.EncodeToString(l.AppendSnapshot(nil)), "0273"+"0a0c"+tail; got != want {
		t.Errorf("snapshot\n%s, want\n%s", got, want)
	}
	if got, want := restarted(t, 20000, l.AppendSnapshot(nil)).AppendSnapshot(nil), l.AppendSnapshot(nil); !bytes.Equal(got, want) {
		t.Errorf("after a restart\n%x, want\n%x", got, want)
	}
}

// spill makes far what is due at 1000 or later.
func spill(l *Ledger) {
	ds := []Deferral{{Seq: 14, Due: 1000, Attempt: 1}}
	for seq := uint64(12290); seq < 12297; seq++ {
		if seq != 12295 {
			l.DeferAhead(seq, int64(seq))
			ds = append(ds, Deferral{Seq: seq, Due: int64(seq)})
		}
	}
	l.Survey(12304)
	l.Spilled(Run{ID: 7, Left: 2, Due: 1000}, ds)
}

func takeAhead(l *Ledger) {
	l.DeferAhead(25, 400)
	l.DeferAhead(27, 0)
	l.DeferAhead(28, 0)
	l.Survey(40)
	for range 3 {
		l.Redeliver(10, 100, 1)
	}
	l.Ack(28, 1)
	l.Nack(27, 1, 10, 0)
	l.Exclude(30, 31)
}

func TestARestartDeliversAgainWhatWasNotAcked(t *testing.T) {
	l := restarted(t, 100, full().AppendSnapshot(nil))
	if got := slices.Collect(l.Live(0, 100)); !slices.Equal(got, []uint64{10, 13, 14, 20, 21}) {
		t.Errorf("live are %v", got)
	}
	if l.Cursor() != 22 || l.NextDue() != 300 {
		t.Errorf("cursor %d, NextDue %d", l.Cursor(), l.NextDue())
	}
	wantRedelivery(t, l, 0, 10, 2)
	wantRedelivery(t, l, 0, 13, 3)
	wantRedelivery(t, l, 0, 21, 3)
	wantRedelivery(t, l, 0, 0, 0)
	wantRedelivery(t, l, 2000, 20, 1)
	wantRedelivery(t, l, 2000, 14, 2)
}

// A task that kills the whole broker must come to its last attempt one day.
func TestAttemptsGoOnOverRestarts(t *testing.T) {
	l := New(1)
	l.Deliver(1, 100, 1)
	journal := [][]byte{l.AppendJournal(nil)}
	for attempt := uint32(2); attempt < 10; attempt++ {
		l = restarted(t, 100, journal...)
		wantRedelivery(t, l, 0, 1, attempt)
		journal = append(journal, l.AppendJournal(nil))
	}
}

func TestADeferralIsOverOnceItWasRedelivered(t *testing.T) {
	l := New(1)
	l.Defer(1, 50)
	journal := [][]byte{l.AppendJournal(nil)}
	wantRedelivery(t, l, 50, 1, 1)
	journal = append(journal, l.AppendJournal(nil))
	wantRedelivery(t, restarted(t, 100, journal...), 0, 1, 2)
	wantRedelivery(t, restarted(t, 100, journal[0], l.AppendSnapshot(nil)), 0, 1, 2)
	wantRedelivery(t, restarted(t, 100, journal[0]), 0, 0, 0)
}

func TestAnAckAtTheFloorIsForTheJournal(t *testing.T) {
	l := delivered(1, 2)
	journal := [][]byte{l.AppendJournal(nil)}
	l.Ack(1, 1)
	journal = append(journal, l.AppendJournal(nil))
	if got := restarted(t, 100, journal...).Floor(); got != 2 {
		t.Errorf("the floor is %d after a restart, want 2", got)
	}
}

func TestAnOlderEntryTakesNothingBack(t *testing.T) {
	l := delivered(1, 2, 3)
	l.Ack(2, 1)
	first := l.AppendJournal(nil)
	l.Deliver(4, 100, 1)
	l.Ack(1, 1)
	l.Ack(4, 1)
	second := l.AppendJournal(nil)
	want := restarted(t, 100, first, second).AppendSnapshot(nil)
	if got := restarted(t, 100, first, second, first).AppendSnapshot(nil); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestAcksInOrderTakeAFewBytesACall(t *testing.T) {
	l := New(1)
	for seq := uint64(1); seq <= 100_000; seq++ {
		l.Deliver(seq, 1, 1)
		if seq > 5000 {
			l.Ack(seq-5000, 1)
		}
	}
	if b := l.AppendJournal(nil); len(b) > 12 {
		t.Errorf("%d bytes: %x", len(b), b)
	}
	if b := l.AppendJournal(nil); b != nil {
		t.Errorf("nothing happened, but: %x", b)
	}
	l.Extend(96_000, 1, 1000)
	if b := l.AppendJournal(nil); b != nil {
		t.Errorf("leases are not for the journal, but: %x", b)
	}
}

func TestWhatTheLogHasLostIsForgotten(t *testing.T) {
	l := New(1)
	for seq := uint64(1); seq <= 20; seq++ {
		l.Deliver(seq, 100, 1)
		if seq%2 == 0 {
			l.Ack(seq, 1)
		}
	}
	l.Nack(15, 1, 0, 500)
	l.Nack(17, 1, 0, 0)
	entry := l.AppendJournal(nil)

	l = New(1)
	if err := l.Replay(entry); err != nil {
		t.Fatal(err)
	}
	if n := l.Recovered(15); n != 6 {
		t.Errorf("discarded %d sequence numbers, want 15 to 20", n)
	}
	if l.Cursor() != 15 || l.NextDue() != 0 || l.Counts().Ready != 7 {
		t.Errorf("cursor %d, NextDue %d, %+v", l.Cursor(), l.NextDue(), l.Counts())
	}

	// And not only for now: it must not come back with the next restart, when the log
	// is longer.
	l = restarted(t, 100, entry, l.AppendJournal(nil))
	if got := slices.Collect(l.Live(0, 100)); !slices.Equal(got, []uint64{1, 3, 5, 7, 9, 11, 13}) {
		t.Errorf("live are %v after another restart", got)
	}
}

// Entries may be damaged, or be there twice: of what was not acked nothing is lost.
func TestNoEntryIsNeededToKeepAMessage(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		l := New(1)
		var entries [][]byte
		for range 15 {
			for range r.IntN(300) {
				if l.Deliver(l.Cursor()+uint64(r.IntN(3)), 100, 1); r.IntN(20) == 0 {
					l.Skip(l.Cursor() + uint64(r.IntN(5000)))
				}
			}
			for _, seq := range slices.Collect(l.Live(0, l.Cursor())) {
				switch r.IntN(3) {
				case 0:
					l.Ack(seq, 1)
				case 1:
					l.Nack(seq, 1, 0, int64(r.IntN(2)))
				}
			}
			if b := l.AppendJournal(nil); len(b) > 0 {
				entries = append(entries, b)
			}
		}
		var kept [][]byte
		for _, b := range entries {
			for range r.IntN(3) {
				kept = append(kept, b)
			}
		}
		after := restarted(t, math.MaxInt64, kept...)
		for seq := range l.Live(0, l.Cursor()) {
			if after.Done(seq, seq+1) {
				t.Fatalf("seed %d: %d was not acked, and is done after a restart", seed, seq)
			}
		}
	}
}

func TestABadEntryIsRefusedAndChangesNothing(t *testing.T) {
	good := full().AppendJournal(nil)
	for name, test := range map[string]struct {
		bytes string // in hexadecimal
		want  error
	}{
		"nothing":                       {"", ErrCorrupt},
		"no kind":                       {"01", ErrCorrupt},
		"a newer version":               {"03" + hex.EncodeToString(good)[2:], ErrVersion},
		"version 0":                     {"00" + hex.EncodeToString(good)[2:], ErrCorrupt},
		"an unknown kind":               {"0178" + hex.EncodeToString(good)[4:], ErrCorrupt},
		"cut off":                       {hex.EncodeToString(good[:len(good)-1]), ErrCorrupt},
		"the first version":             {"01" + hex.EncodeToString(good)[2:], nil},
		"a byte too many":               {hex.EncodeToString(good) + "00000000", ErrCorrupt},
		"an excluded run at the cursor": {hex.EncodeToString(good) + "010001", ErrCorrupt},
		"a cursor beyond all numbers":   {"016a" + "02" + "ffffffffffffffff7f" + "000000", ErrCorrupt},
		"a number that does not end":    {"016a" + "ffffffffffffffffffff01" + "00000000", ErrCorrupt},
		"a run up to the cursor":        {"016a" + "0104" + "010301" + "0000", nil},
		"a run with the cursor":         {"016a" + "0104" + "010302" + "0000", ErrCorrupt},
		"an empty run":                  {"016a" + "0104" + "010100" + "0000", ErrCorrupt},
		"a run at the floor":            {"016a" + "0104" + "010001" + "0000", ErrCorrupt},
		"two runs that touch":           {"016a" + "0109" + "0201010001" + "0000", ErrCorrupt},
		"ready at the cursor":           {"016a" + "0104" + "00" + "010401" + "00", ErrCorrupt},
		"ready twice":                   {"016a" + "0104" + "00" + "0201010001" + "00", ErrCorrupt},
		"deferred at the cursor":        {"016a" + "0104" + "00" + "00" + "01050401", ErrCorrupt},
		"deferred, not in their order":  {"016a" + "0104" + "00" + "00" + "02050101" + "ffffffffffffffffff010201", ErrCorrupt},
		"more items than bytes":         {"016a" + "0104" + "ffffffff0f" + "0000", ErrCorrupt},
	} {
		b, err := hex.DecodeString(test.bytes)
		if err != nil {
			t.Fatal(name, err)
		}
		l := full()
		before := l.AppendSnapshot(nil)
		if err := l.Replay(b); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
		if test.want != nil && !bytes.Equal(l.AppendSnapshot(nil), before) {
			t.Errorf("%s: the ledger changed", name)
		}
	}
}

// seeds are entries as they come, of both kinds. FuzzReplay starts from them.
func seeds() [][]byte {
	l := full()
	many := New(1)
	for seq := uint64(1); seq <= 20_000; seq++ {
		if many.Deliver(seq, 1, 1); seq%5000 != 7 {
			many.Ack(seq, 1)
		}
	}
	ahead := full()
	takeAhead(ahead)
	far := full()
	spill(far)
	return [][]byte{
		far.AppendSnapshot(nil),
		far.AppendJournal(nil),
		ahead.AppendSnapshot(nil),
		ahead.AppendJournal(nil),
		New(1).AppendSnapshot(nil),
		l.AppendSnapshot(nil),
		l.AppendJournal(nil),
		many.AppendSnapshot(nil),
		many.AppendJournal(nil),
	}
}

func TestTheFuzzSeedsAreGoodEntries(t *testing.T) {
	for i, b := range seeds() {
		if err := New(1).Replay(b); err != nil {
			t.Errorf("seed %d, %x: %v", i, b, err)
		}
	}
}

// Whatever is replayed, it is refused, or makes a state that survives a restart.
func FuzzReplay(f *testing.F) {
	for _, b := range seeds() {
		f.Add(b, b)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		l := New(5)
		for _, b := range [][]byte{first, second} {
			if err := l.Replay(b); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("Replay: %v", err)
			}
		}
		end := l.Floor() + 100_000 // what is not done up to there becomes ready again
		l.Recovered(end)
		if l.Floor() > l.Cursor() || l.Cursor() > end {
			t.Fatalf("floor %d, cursor %d, end %d", l.Floor(), l.Cursor(), end)
		}
		counts, live := l.Counts(), l.LiveCount(0, end)
		for _, s := range l.ahead.runs(0, end) {
			for seq := s.lo; seq < s.hi; seq++ {
				if !l.done.has(seq) {
					live++
				}
			}
		}
		if counts.Ready+counts.Deferred != live {
			t.Fatalf("%+v of %d that are live", counts, live)
		}
		snapshot := l.AppendSnapshot(nil)
		if again := restarted(t, end, snapshot).AppendSnapshot(nil); !bytes.Equal(again, snapshot) {
			t.Fatalf("%x became %x by a restart", snapshot, again)
		}
	})
}

// restarted is a ledger from these entries, over a log that ends at end.
func restarted(t *testing.T, end uint64, entries ...[]byte) *Ledger {
	t.Helper()
	l := New(1)
	for i, b := range entries {
		if err := l.Replay(b); err != nil {
			t.Fatalf("entry %d, %x: %v", i, b, err)
		}
	}
	l.Recovered(end)
	return l
}
