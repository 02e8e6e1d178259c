package ledger

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// spilled is a ledger whose messages 1 to 4, deferred until 100, 200, 300 and 400, are in
// run 1, two in a block.
func spilled() (*Ledger, []Deferral) {
	l := New(1)
	for seq := uint64(1); seq <= 4; seq++ {
		l.DeferAhead(seq, int64(100*seq))
	}
	l.Survey(5)
	ds := l.AppendNear(nil)
	slices.SortFunc(ds, Deferral.Compare)
	l.Spilled(Run{ID: 1, Left: 2, Due: 100}, ds)
	return l, ds
}

func TestWhatWasLoadedIsNearAfterARestart(t *testing.T) {
	l, ds := spilled()
	journal := [][]byte{l.AppendJournal(nil)}
	l.Loaded(1, ds[:2], 300)
	journal = append(journal, l.AppendJournal(nil))
	l = restarted(t, 100, journal...)
	if r, ok := l.NextRun(); l.Near() != 2 || l.Far(1) || !l.Far(3) || !ok || r.At != 1 || r.Due != 300 {
		t.Errorf("%d are near, next is %+v", l.Near(), r)
	}
	wantRedelivery(t, l, 250, 1, 1)
	wantRedelivery(t, l, 250, 2, 1)
	wantRedelivery(t, l, 250, 0, 0)
}

// A run is read again after a rewinding, and says when a message was due that waits for
// another time now.
func TestARunMeansNothingOfWhatWasRewoundSince(t *testing.T) {
	l, old := spilled()
	l.Rewind(2, nil)
	l.DeferAhead(3, 1000)
	l.Spilled(Run{ID: 2, Left: 1, Due: 1000}, []Deferral{{Seq: 3, Due: 1000}})
	l = restarted(t, 100, l.AppendSnapshot(nil))
	if kept := l.KeepFar(1, slices.Clone(old)); !slices.Equal(kept, old[:1]) {
		t.Errorf("%+v is kept", kept)
	}
	l.Loaded(1, old[:2], 300)
	l.Loaded(1, old[2:], 0)
	wantRedelivery(t, l, 500, 1, 1)
	wantRedelivery(t, l, 500, 0, 0)
	if !l.Far(3) || len(l.Runs()) != 1 {
		t.Errorf("the runs are %+v", l.Runs())
	}
}

// write makes a run of these, in blocks of a few.
func (c *machine) write(t *rapid.T, ds []Deferral) Run {
	id := uint64(len(c.runs) + 1)
	c.runs[id] = nil
	for block := range slices.Chunk(ds, rapid.SampledFrom([]int{1, 3, 100}).Draw(t, "a block")) {
		c.runs[id] = append(c.runs[id], block)
	}
	r := Run{ID: id, Left: uint64(len(c.runs[id]))}
	if len(ds) > 0 {
		r.Due = ds[0].Due
	}
	return r
}

// spill makes some of the near messages far, while time may go by.
func (c *machine) spill(t *rapid.T) {
	ds := c.l.AppendNear(nil)
	if len(ds) == 0 {
		t.Skip("nothing is near")
	}
	slices.SortFunc(ds, Deferral.Compare)
	ds = ds[rapid.IntRange(0, len(ds)-1).Draw(t, "first"):]
	r := c.write(t, ds)
	if rapid.Bool().Draw(t, "meanwhile") {
		c.time(t)
		c.redeliver(t)
		if held := c.m.inState("in flight"); len(held) > 0 {
			c.nack(t)
		}
		c.survey(t)
	}
	c.l.Spilled(r, ds)
	for _, d := range ds {
		if msg, live := c.m.live[d.Seq]; live && msg.state == "deferred" && msg.due == d.Due && d.Due > c.l.became {
			c.m.makeFar(d.Seq, r.ID)
		}
	}
}

// next is the run that is due first, and its next block.
func (c *machine) next(t *rapid.T) (Run, []Deferral) {
	r, ok := c.l.NextRun()
	if !ok {
		t.Skip("nothing is far")
	}
	for _, other := range c.l.Runs() {
		if other.Due < r.Due {
			t.Fatalf("%+v is due before %+v", other, r)
		}
	}
	return r, c.runs[r.ID][r.At]
}

func (c *machine) load(t *rapid.T) {
	r, block := c.next(t)
	due := int64(0)
	if r.Left > 1 {
		due = c.runs[r.ID][r.At+1][0].Due
	}
	for _, d := range block {
		if c.m.live[d.Seq].far == r.ID {
			c.m.makeFar(d.Seq, 0)
		}
	}
	c.l.Loaded(r.ID, slices.Clone(block), due)
}

// left is what is still to be read of the run and is meant.
func (c *machine) left(r Run) (ds []Deferral) {
	for _, block := range c.runs[r.ID][r.At:] {
		ds = append(ds, c.l.KeepFar(r.ID, slices.Clone(block))...)
	}
	return ds
}

func (c *machine) merge(t *rapid.T) {
	runs := c.l.Runs()
	if len(runs) < 2 {
		t.Skip("there is nothing to merge")
	}
	runs = runs[:rapid.IntRange(2, len(runs)).Draw(t, "runs")]
	var ds []Deferral
	var ids []uint64
	for _, r := range runs {
		ds = append(ds, c.left(r)...)
		ids = append(ids, r.ID)
	}
	slices.SortFunc(ds, Deferral.Compare)
	for i, d := range ds {
		if msg := c.m.live[d.Seq]; !slices.Contains(ids, msg.far) || d.Due != msg.due || d.Attempt != msg.attempt {
			t.Fatalf("%+v is kept, and is %+v", d, msg)
		}
		if i > 0 && ds[i-1] == d {
			t.Fatalf("%+v is kept twice", d)
		}
	}
	r := c.write(t, ds)
	c.l.Merged(r, ids...)
	for _, d := range ds {
		c.m.makeFar(d.Seq, r.ID)
	}
}

// abandon loses the next block.
func (c *machine) abandon(t *rapid.T) {
	r, _ := c.next(t)
	c.l.Loaded(r.ID, nil, r.Due)
	census := c.l.Census()
	found := map[uint64]bool{}
	for _, r := range c.l.Runs() {
		ds := c.left(r)
		census.Found(ds)
		for _, d := range ds {
			found[d.Seq] = true
		}
	}
	n := 0
	for _, seq := range c.m.inState("deferred") {
		if c.m.live[seq].far > 0 && !found[seq] {
			c.m.live[seq] = message{state: "ready", said: parked{givenBack, seq, 0}}
			c.m.ready = append(c.m.ready, seq)
			n++
		}
	}
	if got := c.l.Abandon(census); got != n {
		t.Fatalf("%d messages were abandoned, want %d", got, n)
	}
}
