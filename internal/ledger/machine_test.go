package ledger

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// machine does the same to a ledger and to its model.
type machine struct {
	l   *Ledger
	m   model
	now int64

	start   uint64
	runs    map[uint64][][]Deferral // the blocks of all runs that ever were
	told    bool                    // DeferAhead has taken something since the last entry
	entries [][]byte
	stored  []model // the model when the entry of the same index was made
}

func TestTheLedgerIsItsModel(t *testing.T) {
	for _, start := range []uint64{1, 4096, 5000} {
		t.Run(fmt.Sprint("from ", start), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				c := &machine{l: New(start), m: newModel(start), now: 1000, start: start, runs: map[uint64][][]Deferral{}}
				t.Repeat(map[string]func(*rapid.T){
					"":          c.check,
					"deliver":   c.deliver,
					"defer":     c.deferNext,
					"survey":    c.survey,
					"spill":     c.spill,
					"load":      c.load,
					"merge":     c.merge,
					"abandon":   c.abandon,
					"skip":      c.skip,
					"redeliver": c.redeliver,
					"ack":       c.ack,
					"ack many":  c.ackMany,
					"nack":      c.nack,
					"pass":      c.pass,
					"withdraw":  c.withdraw,
					"extend":    c.extend,
					"stale":     c.stale,
					"expire":    c.expire,
					"release":   c.release,
					"empty":     c.empty,
					"exclude":   c.exclude,
					"rewind":    c.rewind,
					"time":      c.time,
					"journal":   c.journal,
					"snapshot":  c.snapshot,
					"crash":     c.crash,
					"ranges":    c.ranges,
				})
			})
		})
	}
}

func (c *machine) time(t *rapid.T) { c.now += rapid.Int64Range(0, 60).Draw(t, "ns") }

// gaps are sizes around those of words, pages and blocks.
var gaps = rapid.SampledFrom([]uint64{0, 0, 0, 0, 1, 2, 63, 64, 65, 700, 4095, 4096, 4097, 8192, 20_000})

func (c *machine) deliver(t *rapid.T) {
	seq := c.m.cursor + gaps.Draw(t, "gap")
	lease := rapid.Int64Range(-5, 200).Draw(t, "lease")
	for range rapid.SampledFrom([]int{1, 1, 5, 200, 3000}).Draw(t, "n") {
		seq = max(seq, c.m.cursor)
		for !c.m.wanted(seq) {
			seq++
		}
		deadline, owner := c.now+lease+int64(seq%7), uint32(seq%3)
		if got := c.l.Deliver(seq, deadline, owner); got != 1 {
			t.Fatalf("first delivery of %d is attempt %d", seq, got)
		}
		c.m.lend(seq, 1, deadline, owner)
		c.m.moveTo(seq + 1)
		seq++
	}
}

func (c *machine) deferNext(t *rapid.T) {
	seq := c.m.cursor + gaps.Draw(t, "gap")
	for !c.m.wanted(seq) {
		seq++
	}
	due := c.now + rapid.Int64Range(-50, 200).Draw(t, "delay")
	c.l.Defer(seq, due)
	c.m.deferUntil(seq, 0, due)
	c.m.moveTo(seq + 1)
}

// survey tells of some messages beyond the cursor, which may not be wanted any more, and
// goes on where it was the last time.
func (c *machine) survey(t *rapid.T) {
	seq := max(c.l.Surveyed(), 5) - rapid.Uint64Range(0, 5).Draw(t, "again")
	step := rapid.SampledFrom([]uint64{1, 1, 1, 2, 64, 1000}).Draw(t, "step")
	delay := rapid.Int64Range(-50, 200).Draw(t, "delay")
	for range rapid.SampledFrom([]int{0, 1, 1, 5, 70, 2000 / int(step)}).Draw(t, "n") {
		seq += step
		due := c.now + delay + int64(seq*31%97)
		wanted := c.m.wanted(seq)
		if got := c.l.DeferAhead(seq, due); got != wanted {
			t.Fatalf("DeferAhead(%d): %v", seq, got)
		}
		if wanted {
			c.told = true
			c.m.ahead[seq] = true
			c.m.deferUntil(seq, 0, due)
			c.m.moveTo(c.m.cursor)
		}
	}
	c.l.Survey(seq + 1)
	c.m.surveyed = max(c.m.surveyed, seq+1)
}

func (c *machine) skip(t *rapid.T) {
	to := c.m.cursor + gaps.Draw(t, "gap")
	if rapid.Bool().Draw(t, "back") {
		to = c.m.floor()
	}
	c.l.Skip(to)
	c.m.moveTo(max(c.m.cursor, to))
}

func (c *machine) redeliver(t *rapid.T) {
	for range rapid.IntRange(1, 20).Draw(t, "n") {
		c.m.promote(c.now)
		next, nextOK := c.l.NextRedelivery(c.now)
		deadline := c.now + rapid.Int64Range(0, 200).Draw(t, "lease")
		seq, attempt, ok := c.l.Redeliver(c.now, deadline, 9)
		if next != seq || nextOK != ok {
			t.Fatalf("NextRedelivery said %d, %v, Redeliver %d, %v", next, nextOK, seq, ok)
		}
		if ok != (len(c.m.ready) > 0) {
			t.Fatalf("Redeliver: %v, ready are %v", ok, c.m.ready)
		}
		if !ok {
			return
		}
		want := c.m.ready[0]
		if seq != want || attempt != c.m.live[want].attempt+1 {
			t.Fatalf("redelivered %d attempt %d, want %d attempt %d", seq, attempt, want, c.m.live[want].attempt+1)
		}
		c.m.ready = c.m.ready[1:]
		c.m.lend(seq, attempt, deadline, 9)
	}
}

// pick is a message in flight; the action is skipped when there is none.
func (c *machine) pick(t *rapid.T) (uint64, message) {
	held := c.m.inState("in flight")
	if len(held) == 0 {
		t.Skip("nothing is in flight")
	}
	seq := rapid.SampledFrom(held).Draw(t, "seq")
	return seq, c.m.live[seq]
}

func (c *machine) ack(t *rapid.T) {
	seq, msg := c.pick(t)
	if !c.l.Ack(seq, msg.attempt) {
		t.Fatalf("Ack(%d, %d) of a lease that is held", seq, msg.attempt)
	}
	delete(c.m.live, seq)
}

// ackMany acks most of what is in flight, so that blocks become full.
func (c *machine) ackMany(t *rapid.T) {
	held := c.m.inState("in flight")
	except := rapid.SampledFrom([]int{0, 7, 1000, 3000}).Draw(t, "all but each")
	if rapid.Bool().Draw(t, "backwards") {
		slices.Reverse(held)
	}
	for i, seq := range held {
		if except > 0 && i%except == 0 {
			continue
		}
		if !c.l.Ack(seq, c.m.live[seq].attempt) {
			t.Fatalf("Ack(%d) of a lease that is held", seq)
		}
		delete(c.m.live, seq)
	}
}

func (c *machine) nack(t *rapid.T) {
	seq, msg := c.pick(t)
	due := c.now + rapid.Int64Range(-50, 100).Draw(t, "delay")
	if !c.l.Nack(seq, msg.attempt, c.now, due) {
		t.Fatalf("Nack(%d, %d) of a lease that is held", seq, msg.attempt)
	}
	if due <= c.now {
		c.m.giveBack(seq)
	} else {
		c.m.deferUntil(seq, msg.attempt, due)
	}
}

func (c *machine) extend(t *rapid.T) {
	seq, msg := c.pick(t)
	msg.deadline = c.now + rapid.Int64Range(-50, 300).Draw(t, "lease")
	if !c.l.Extend(seq, msg.attempt, msg.deadline) {
		t.Fatalf("Extend(%d, %d) of a lease that is held", seq, msg.attempt)
	}
	c.m.live[seq] = msg
	owner, deadline, ok := c.l.InFlight(seq, msg.attempt)
	if !ok || owner != msg.owner || deadline != msg.deadline {
		t.Fatalf("InFlight(%d): %d, %d, %v, want %+v", seq, owner, deadline, ok, msg)
	}
}

// stale tries every way to use a lease that is not held.
func (c *machine) stale(t *rapid.T) {
	seq := rapid.Uint64Range(0, c.m.cursor+5000).Draw(t, "seq")
	if seqs := slices.Sorted(maps.Keys(c.m.live)); len(seqs) > 0 && rapid.Bool().Draw(t, "live") {
		seq = rapid.SampledFrom(seqs).Draw(t, "seq")
	}
	attempt := rapid.Uint32Range(0, 4).Draw(t, "attempt")
	if msg := c.m.live[seq]; msg.state == "in flight" && msg.attempt == attempt {
		attempt++
	}
	_, _, held := c.l.InFlight(seq, attempt)
	if held || c.l.Ack(seq, attempt) || c.l.Nack(seq, attempt, c.now, 0) || c.l.Extend(seq, attempt, math.MaxInt64) {
		t.Fatalf("a lease (%d, %d) is said to be held", seq, attempt)
	}
}

func (c *machine) expire(t *rapid.T) {
	var want, got []uint64
	for _, seq := range c.m.inState("in flight") {
		if c.m.live[seq].deadline <= c.now {
			want = append(want, seq)
		}
	}
	n := c.l.Expire(c.now, func(seq uint64, attempt, owner uint32) {
		if msg := c.m.live[seq]; attempt != msg.attempt || owner != msg.owner {
			t.Fatalf("lost lease (%d, %d) of %d, want %+v", seq, attempt, owner, msg)
		}
		got = append(got, seq)
	})
	if n != len(want) || !slices.Equal(got, want) {
		t.Fatalf("%d leases ran out, %v, want %v", n, got, want)
	}
	for _, seq := range want {
		c.m.giveBack(seq)
	}
}

func (c *machine) release(t *rapid.T) {
	owner := rapid.SampledFrom([]uint32{0, 1, 2, 9}).Draw(t, "owner")
	n := 0
	for _, seq := range c.m.inState("in flight") {
		if c.m.live[seq].owner == owner {
			c.m.giveBack(seq)
			n++
		}
	}
	if got := c.l.Release(owner); got != n {
		t.Fatalf("Release(%d): %d, want %d", owner, got, n)
	}
}

func (c *machine) empty(t *rapid.T) {
	to := rapid.Uint64Range(c.m.floor(), c.m.cursor+100).Draw(t, "to")
	c.l.Empty(to)
	c.m.empty(to)
}

// exclude takes a range out, which may begin below the cursor.
func (c *machine) exclude(t *rapid.T) {
	lo := c.m.floor() + gaps.Draw(t, "from")
	hi := lo + rapid.Uint64Range(0, 9000).Draw(t, "len")
	c.l.Exclude(lo, hi)
	c.m.exclude(lo, hi)
}

// rewind goes back a little or far, also behind the start and the floor.
func (c *machine) rewind(t *rapid.T) {
	to := c.m.cursor - min(c.m.cursor, gaps.Draw(t, "back"))
	var want, got []uint32
	for _, seq := range c.m.inState("in flight") {
		if seq >= to {
			want = append(want, c.m.live[seq].owner)
		}
	}
	stored := c.l.AppendRewound([]byte("before"), to)
	c.check(t) // which has changed nothing
	c.l.Rewind(to, func(owner uint32) { got = append(got, owner) })
	if !slices.Equal(got, want) {
		t.Fatalf("owners %v lost a lease, want %v", got, want)
	}
	if now := c.l.AppendSnapshot([]byte("before")); !slices.Equal(stored, now) {
		t.Fatalf("what was to be stored of the rewinding is %x, a snapshot after it %x", stored, now)
	}
	c.m.rewind(to)
	c.told = false
}

func (c *machine) ranges(t *rapid.T) {
	lo := rapid.Uint64Range(0, c.m.cursor+5000).Draw(t, "lo")
	hi := lo + rapid.Uint64Range(0, 9000).Draw(t, "len")
	var live []uint64
	for _, seq := range slices.Sorted(maps.Keys(c.m.live)) {
		if lo <= seq && seq < min(hi, c.m.cursor) {
			live = append(live, seq)
		}
	}
	if got := slices.Collect(c.l.Live(lo, hi)); !slices.Equal(got, live) {
		t.Fatalf("Live(%d, %d): %v, want %v", lo, hi, got, live)
	}
	if got := c.l.LiveCount(lo, hi); got != len(live) {
		t.Fatalf("LiveCount(%d, %d): %d, want %d", lo, hi, got, len(live))
	}
	want := len(live) == 0
	for seq := max(lo, c.m.cursor); seq < hi; seq++ {
		want = want && c.m.beyond[seq]
		if c.l.Wanted(seq) != c.m.wanted(seq) {
			t.Fatalf("Wanted(%d): %v", seq, c.l.Wanted(seq))
		}
	}
	if got := c.l.Done(lo, hi); got != want && lo < hi {
		t.Fatalf("Done(%d, %d): %v, want %v", lo, hi, got, want)
	}
}

func (c *machine) journal(t *rapid.T) {
	b := c.l.AppendJournal([]byte("before"))
	if string(b[:6]) != "before" {
		t.Fatalf("AppendJournal wrote over what was there: %q", b)
	}
	if c.told {
		c.m.said = max(c.m.said, c.m.surveyed)
		c.told = false
	}
	if b = b[6:]; len(b) > 0 {
		c.entries, c.stored = append(c.entries, b), append(c.stored, c.m.clone())
	} else if before := c.lastStored(); !before.saysLike(&c.m) {
		t.Fatalf("no entry, but before there was %+v, now %+v", before, c.m)
	}
	if again := c.l.AppendJournal(nil); len(again) > 0 {
		t.Fatalf("a second entry when nothing changed: %x", again)
	}
}

// lastStored is the model as the journal has it.
func (c *machine) lastStored() model {
	if len(c.stored) == 0 {
		return newModel(c.start)
	}
	return c.stored[len(c.stored)-1]
}

func (c *machine) snapshot(*rapid.T) {
	c.m.said = max(c.m.said, c.m.surveyed)
	c.entries, c.stored = append(c.entries, c.l.AppendSnapshot(nil)), append(c.stored, c.m.clone())
}

// crash goes on with what a prefix of the journal says, and a log that may have lost
// its end.
func (c *machine) crash(t *rapid.T) {
	n := rapid.IntRange(0, len(c.entries)).Draw(t, "entries")
	c.entries, c.stored = c.entries[:n], c.stored[:n]
	c.l = New(c.start)
	for i, b := range c.entries {
		if err := c.l.Replay(b); err != nil {
			t.Fatalf("entry %d, %x: %v", i, b, err)
		}
	}
	stored := c.lastStored()
	end := max(stored.cursor, stored.surveyed) + 30_000
	if rapid.IntRange(0, 3).Draw(t, "log lost") == 0 {
		end = rapid.Uint64Range(0, stored.cursor).Draw(t, "end")
	}
	discarded := c.l.Recovered(end)
	if want := stored.cursor - min(stored.cursor, end); discarded != int(want) {
		t.Fatalf("Recovered(%d) discarded %d, want %d", end, discarded, want)
	}
	c.m = stored.recovered(end)
	if got, least, most := c.l.Surveyed(), max(min(stored.said, end), c.m.cursor), max(stored.surveyed, c.m.cursor); got < least || got > most {
		t.Fatalf("surveyed to %d, want %d to %d", got, least, most)
	}
	c.m.surveyed, c.told = c.l.Surveyed(), false
	c.m.said = c.m.surveyed
	if end >= stored.cursor+30_000 {
		if b := c.l.AppendJournal(nil); len(b) > 0 {
			t.Fatalf("an entry after a restart when nothing changed: %x", b)
		}
	}
}

// check compares all that can be seen from outside, and what must hold inside.
func (c *machine) check(t *rapid.T) {
	if got, want := c.l.Cursor(), c.m.cursor; got != want {
		t.Fatalf("Cursor %d, want %d", got, want)
	}
	if got, want := c.l.Floor(), c.m.floor(); got != want {
		t.Fatalf("Floor %d, want %d", got, want)
	}
	held, deferred := c.m.inState("in flight"), c.m.inState("deferred")
	counts := c.l.Counts()
	if counts.InFlight != len(held) || counts.Deferred != len(deferred) || counts.Ready != len(c.m.ready) {
		t.Fatalf("%+v, want %d in flight, %d deferred, %d ready", counts, len(held), len(deferred), len(c.m.ready))
	}
	due := int64(0)
	far := 0
	for _, seq := range deferred {
		if c.m.live[seq].far > 0 {
			far++
		} else if d := c.m.live[seq].due; due == 0 || d < due {
			due = d
		}
	}
	if got := c.l.Near(); got != len(deferred)-far || c.l.far.count != far {
		t.Fatalf("%d near, %d far, want %d and %d", got, c.l.far.count, len(deferred)-far, far)
	}
	if runs := c.l.Runs(); (len(runs) > 0) != (far > 0) {
		t.Fatalf("%d are far in runs %+v", far, runs)
	}
	checkSet(t, &c.l.far)
	if got := c.l.NextDue(); got != due {
		t.Fatalf("NextDue %d, want %d", got, due)
	}
	if got := c.l.NextDeadline(); (got == 0) != (len(held) == 0) {
		t.Fatalf("NextDeadline %d with %d in flight", got, len(held))
	}
	for _, seq := range held {
		if got, deadline := c.l.NextDeadline(), c.m.live[seq].deadline; got > deadline {
			t.Fatalf("NextDeadline %d, but %d has one at %d", got, seq, deadline)
		}
	}
	below := slices.DeleteFunc(slices.Sorted(maps.Keys(c.m.live)), func(seq uint64) bool { return seq >= c.m.cursor })
	if got := slices.Collect(c.l.Live(0, math.MaxUint64)); !slices.Equal(got, below) {
		t.Fatalf("Live: %v, want %v", got, below)
	}
	if got, want := c.l.Ahead(), len(c.m.ahead); got != want {
		t.Fatalf("Ahead %d, want %d", got, want)
	}
	checkSet(t, &c.l.ahead)
	c.checkLook(t)
	checkDoneSet(t, &c.l.done)
}

func checkSet(t *rapid.T, s *set) {
	count := 0
	for i, b := range s.blocks {
		ones := 0
		for _, word := range b.bits {
			ones += bits.OnesCount64(word)
		}
		if b.index != i || b.count != ones || ones == 0 {
			t.Fatalf("block %d of index %d counts %d of %d", i, b.index, b.count, ones)
		}
		count += ones
	}
	if s.count != count {
		t.Fatalf("the set counts %d of %d", s.count, count)
	}
}

func checkDoneSet(t *rapid.T, d *doneSet) {
	for i, s := range d.full {
		if s.lo >= s.hi || (i > 0 && d.full[i-1].hi >= s.lo) || s.lo <= d.floor>>blockBits {
			t.Fatalf("full spans %v, floor %d", d.full, d.floor)
		}
	}
	for i, b := range d.blocks {
		count := 0
		for _, word := range b.bits {
			count += bits.OnesCount64(word)
		}
		switch {
		case b.index != i, b.count != count, count == blockSize, d.full.has(i), i < d.floor>>blockBits:
			t.Fatalf("block %d of index %d counts %d of %d, full %v, floor %d", i, b.index, b.count, count, d.full, d.floor)
		case i == d.floor>>blockBits && b.firstZero(0) != d.floor%blockSize:
			t.Fatalf("the floor's block has its first zero at %d, the floor is %d", b.firstZero(0), d.floor)
		}
	}
}
