package vfs

import (
	"math"
	"slices"
)

// extents are the parts of a file that take space on the disk: ascending, and with a
// gap between any two. What a truncation made longer is not in them.
type extents []extent

type extent struct{ lo, hi int64 } // the bytes from lo up to, not including, hi

func (s extents) size() (n int64) {
	for _, e := range s {
		n += e.hi - e.lo
	}
	return n
}

// room is how far a write of [lo, hi) gets before free bytes are used up, and how many
// of them it takes.
func (s extents) room(lo, hi, free int64) (end, grown int64) {
	for _, e := range append(s[:len(s):len(s)], extent{hi, hi}) {
		if e.hi < lo {
			continue
		}
		if gap := min(e.lo, hi) - lo; gap > 0 {
			if gap > free-grown {
				return lo + free - grown, free
			}
			grown += gap
		}
		if lo = max(lo, e.hi); lo >= hi {
			break
		}
	}
	return hi, grown
}

// add is s and [lo, hi).
func (s extents) add(lo, hi int64) extents {
	from := slices.IndexFunc(s, func(e extent) bool { return e.hi >= lo })
	if from < 0 {
		return append(s, extent{lo, hi})
	}
	to := from
	for ; to < len(s) && s[to].lo <= hi; to++ {
		lo, hi = min(lo, s[to].lo), max(hi, s[to].hi)
	}
	return slices.Replace(s, from, to, extent{lo, hi})
}

// cut is s without what lies at or above size.
func (s extents) cut(size int64) extents {
	for len(s) > 0 && s[len(s)-1].lo >= size {
		s = s[:len(s)-1]
	}
	if len(s) > 0 {
		last := &s[len(s)-1]
		last.hi = min(last.hi, size)
	}
	return s
}

// free is how many bytes more fit.
func (m *Mem) free() int64 {
	if m.capacity == noLimit {
		return math.MaxInt64
	}
	return max(0, m.capacity-m.used)
}
