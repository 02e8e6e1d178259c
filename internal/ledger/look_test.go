package ledger

import (
	"maps"
	"slices"

	"pgregory.net/rapid"
)

// checkLook looks at all messages that are not done, and at some around the cursor.
func (c *machine) checkLook(t *rapid.T) {
	live := slices.Sorted(maps.Keys(c.m.live))
	around := []uint64{0, c.m.cursor, c.m.cursor + 1, c.m.cursor + 700}
	c.lookAt(t, live[len(live)/3:])
	c.lookAt(t, slices.Compact(slices.Sorted(slices.Values(append(around, live[:(len(live)+2)/3]...)))))
}

func (c *machine) lookAt(t *rapid.T, seqs []uint64) {
	for i, got := range c.l.Look(seqs) {
		msg, live := c.m.live[seqs[i]]
		want := Status{State: Done}
		switch {
		case live && msg.state == "in flight":
			want = Status{InFlight, msg.attempt, msg.deadline}
		case live && msg.far > 0:
			want = Status{Deferred, 0, 0}
		case live && msg.state == "deferred":
			want = Status{Deferred, msg.attempt, msg.due}
		case live:
			want = Status{Ready, msg.attempt, 0}
		case c.m.wanted(seqs[i]):
			want = Status{State: NotDelivered}
		}
		if got != want {
			t.Fatalf("message %d looks like %+v, want %+v", seqs[i], got, want)
		}
	}
}
