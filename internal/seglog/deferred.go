package seglog

import (
	"encoding/binary"
	"slices"
	"sync/atomic"
)

// Deferral says that a record has a due time, and which.
type Deferral struct {
	Seq uint64
	Due int64
}

// deferrals knows where in the log are records with a due time, so that whoever wants to
// know of them need not read the others: each segment lists the stretches between two
// marks that have some, in its footer too, and those of the last commits are in memory.
type deferrals struct {
	last atomic.Uint64 // no record above it has a due time
	some atomic.Bool   // recent is not empty

	// The log's lock guards what follows.
	recent []Deferral // all from seq on, ascending; also those that are not committed yet
	seq    uint64
}

// Deferred returns the visible records of [from, to) that have a due time, ascending. It
// returns false when some of them can only be found by reading what NextDeferred returns.
func (l *Log) Deferred(from, to uint64) ([]Deferral, bool) {
	if from >= to || l.deferrals.last.Load() < from {
		return nil, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	to = min(to, l.visible)
	if lo, hi := l.nextDeferred(from, min(to, l.deferrals.seq)); lo < hi {
		return nil, false
	}
	recent := l.deferrals.recent
	i, j := indexOf(recent, from), indexOf(recent, to)
	return slices.Clone(recent[i:max(i, j)]), true
}

// NextDeferred returns the first stretch [lo, hi) of [from, to) in which there may be
// visible records with a due time; lo and hi are the same when there is none.
func (l *Log) NextDeferred(from, to uint64) (lo, hi uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nextDeferred(from, min(to, l.visible))
}

func (l *Log) nextDeferred(from, to uint64) (lo, hi uint64) {
	for _, s := range l.segments {
		if s.next <= from || len(s.deferred) == 0 {
			continue
		}
		if s.base >= to {
			break
		}
		for _, i := range s.deferred {
			lo, hi := s.marks[i].seq, s.next
			if i+1 < len(s.marks) {
				hi = s.marks[i+1].seq
			}
			if lo, hi = max(lo, from), min(hi, to); lo < hi {
				return lo, hi
			}
		}
	}
	return 0, 0
}

// indexOf is where in ascending deferrals the first one at or above seq is.
func indexOf(ds []Deferral, seq uint64) int {
	i, _ := slices.BinarySearchFunc(ds, seq, func(d Deferral, seq uint64) int {
		if d.Seq < seq {
			return -1
		}
		return 1
	})
	return i
}

// noteDeferred remembers a record with a due time that was appended to s. The lock is held.
func (l *Log) noteDeferred(r *Record) {
	d := &l.deferrals
	d.recent = append(d.recent, Deferral{r.Seq, r.Due})
	d.last.Store(r.Seq)
	d.some.Store(true)
}

// startDeferred takes stock of the segments that were found.
func (l *Log) startDeferred() {
	l.deferrals.seq = l.visible
	for _, s := range l.segments {
		if len(s.deferred) > 0 {
			l.deferrals.last.Store(s.next)
		}
	}
}

// tell tells the log's owner what is visible. Afterwards it has asked for the deferrals
// among that, or has no use for them at the moment.
func (l *Log) tell(end uint64) {
	if l.opts.OnCommit != nil {
		l.opts.OnCommit(end)
	}
	if !l.deferrals.some.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	d := &l.deferrals
	if end > d.seq {
		d.recent, d.seq = slices.Delete(d.recent, 0, indexOf(d.recent, end)), end
	}
	if len(d.recent) == 0 {
		d.recent = nil
		d.some.Store(false)
	}
}

// cutDeferred forgets those that were taken back. The lock is held.
func (l *Log) cutDeferred() {
	d := &l.deferrals
	d.recent = d.recent[:indexOf(d.recent, l.visible)]
}

// noteDeferred notes that a record with a due time stands behind the segment's last mark.
func (s *segment) noteDeferred() {
	last := len(s.marks) - 1
	if n := len(s.deferred); n == 0 || s.deferred[n-1] != last {
		s.deferred = append(s.deferred, last)
	}
}

// cutDeferred forgets the stretches whose marks are gone.
func (s *segment) cutDeferred() {
	for n := len(s.deferred); n > 0 && s.deferred[n-1] >= len(s.marks); n-- {
		s.deferred = s.deferred[:n-1]
	}
}

// appendDeferred encodes the list for a footer, where it is left out when it is empty.
func (f *footer) appendDeferred(b []byte) []byte {
	if len(f.deferred) == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(f.deferred)))
	last := 0
	for _, i := range f.deferred {
		b = binary.AppendUvarint(b, uint64(i-last)) //nolint:gosec // they ascend
		last = i
	}
	return b
}

// parseDeferred reads what appendDeferred wrote.
func (f *footer) parseDeferred(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	n, w := binary.Uvarint(b)
	if w <= 0 || n == 0 || n > uint64(len(f.marks)) {
		return errBadFooter
	}
	last := 0
	for range n {
		b = b[w:]
		var d uint64
		d, w = binary.Uvarint(b)
		if w <= 0 || d >= uint64(len(f.marks)-last) || d == 0 && len(f.deferred) > 0 {
			return errBadFooter
		}
		last += int(d) //nolint:gosec // less than the number of marks
		f.deferred = append(f.deferred, last)
	}
	if len(b) != w {
		return errBadFooter
	}
	return nil
}
