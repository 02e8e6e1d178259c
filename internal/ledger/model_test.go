package ledger

import (
	"cmp"
	"maps"
	"slices"
)

// A model is a ledger as one would explain it: each message that is not done, and in
// which order those that are ready again became so.
type model struct {
	cursor uint64
	live   map[uint64]message // all that are not done, below the cursor or taken ahead
	ready  []uint64
	beyond map[uint64]bool // excluded, above the cursor
	ahead  map[uint64]bool // taken ahead, above the cursor, done or not

	surveyed uint64
	said     uint64 // what the journal says of it
}

type message struct {
	state    string // "in flight", "ready" or "deferred"
	attempt  uint32
	owner    uint32
	deadline int64
	due      int64
	far      uint64 // the ID of the run that has it, 0 when it is near

	// said is what a restart makes of it: the journal is not told that a time has come.
	said parked
}

func newModel(at uint64) model {
	return model{cursor: at, live: map[uint64]message{}, beyond: map[uint64]bool{}, ahead: map[uint64]bool{}}
}

// moveTo moves the cursor, one by one over what is excluded or taken ahead there.
func (m *model) moveTo(cursor uint64) {
	m.cursor = cursor
	for !m.wanted(m.cursor) {
		m.cursor++
	}
	passed := func(seq uint64, _ bool) bool { return seq < m.cursor }
	maps.DeleteFunc(m.beyond, passed)
	maps.DeleteFunc(m.ahead, passed)
}

func (m *model) wanted(seq uint64) bool {
	return seq >= m.cursor && !m.beyond[seq] && !m.ahead[seq]
}

func (m *model) exclude(lo, hi uint64) {
	for seq := max(lo, m.cursor); seq < hi; seq++ {
		m.beyond[seq] = true
		if m.ahead[seq] {
			delete(m.ahead, seq)
			delete(m.live, seq)
		}
	}
	m.ready = slices.DeleteFunc(m.ready, func(seq uint64) bool { _, there := m.live[seq]; return !there })
	m.moveTo(m.cursor)
}

func (m *model) floor() uint64 {
	floor := m.cursor
	for seq := range m.live {
		floor = min(floor, seq)
	}
	return floor
}

func (m *model) inState(state string) (seqs []uint64) {
	for seq, msg := range m.live {
		if msg.state == state {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	return seqs
}

func (m *model) lend(seq uint64, attempt uint32, deadline int64, owner uint32) {
	m.live[seq] = message{
		state: "in flight", attempt: attempt, owner: owner, deadline: deadline,
		said: parked{givenBack, seq, attempt},
	}
}

func (m *model) giveBack(seq uint64) {
	msg := m.live[seq]
	m.live[seq] = message{state: "ready", attempt: msg.attempt, said: parked{givenBack, seq, msg.attempt}}
	m.ready = append(m.ready, seq)
}

func (m *model) deferUntil(seq uint64, attempt uint32, due int64) {
	m.live[seq] = message{state: "deferred", attempt: attempt, due: due, said: parked{due, seq, attempt}}
}

func (m *model) makeFar(seq, run uint64) {
	msg := m.live[seq]
	msg.far = run
	m.live[seq] = msg
}

// promote makes ready what is due, the earliest first.
func (m *model) promote(now int64) {
	due := slices.DeleteFunc(m.inState("deferred"), func(seq uint64) bool { return m.live[seq].due > now || m.live[seq].far > 0 })
	slices.SortStableFunc(due, func(a, b uint64) int { return cmp.Compare(m.live[a].due, m.live[b].due) })
	for _, seq := range due {
		msg := m.live[seq]
		msg.state = "ready"
		m.live[seq] = msg
		m.ready = append(m.ready, seq)
	}
}

func (m *model) empty(to uint64) {
	maps.DeleteFunc(m.live, func(seq uint64, _ message) bool { return seq < to })
	m.ready = slices.DeleteFunc(m.ready, func(seq uint64) bool { return seq < to })
	m.moveTo(max(m.cursor, to))
}

// rewind forgets what became of all from to on.
func (m *model) rewind(to uint64) {
	maps.DeleteFunc(m.live, func(seq uint64, _ message) bool { return seq >= to })
	m.ready = slices.DeleteFunc(m.ready, func(seq uint64) bool { return seq >= to })
	m.cursor = to
	clear(m.beyond)
	clear(m.ahead)
	m.surveyed, m.said = min(m.surveyed, to), min(m.said, to)
}

// clone is the model as the journal would have it now.
func (m *model) clone() model {
	return model{
		cursor: m.cursor, live: maps.Clone(m.live), beyond: maps.Clone(m.beyond),
		ahead: maps.Clone(m.ahead), surveyed: m.surveyed, said: m.said,
	}
}

// saysLike reports whether a restart makes the same of both.
func (m *model) saysLike(other *model) bool {
	return m.cursor == other.cursor && maps.Equal(m.beyond, other.beyond) && maps.Equal(m.ahead, other.ahead) && maps.EqualFunc(m.live, other.live, func(a, b message) bool { return a.said == b.said && a.far == b.far })
}

// recovered is what a restart makes of a clone when the log ends at end.
func (m *model) recovered(end uint64) model {
	after := newModel(min(m.cursor, end))
	for seq := range m.beyond {
		if seq < end {
			after.beyond[seq] = true
		}
	}
	for seq := range m.ahead {
		if seq < end {
			after.ahead[seq] = true
		}
	}
	for _, seq := range slices.Sorted(maps.Keys(m.live)) {
		said := m.live[seq].said
		switch {
		case seq >= end:
		case said.due == givenBack:
			after.live[seq] = message{state: "ready", attempt: said.attempt, said: said}
			after.ready = append(after.ready, seq)
		default:
			after.deferUntil(seq, said.attempt, said.due)
			after.makeFar(seq, m.live[seq].far)
		}
	}
	return after
}
