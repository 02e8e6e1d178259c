package ledger

import "slices"

// A span is the numbers from lo up to, not including, hi.
type span struct{ lo, hi uint64 }

// spans are ascending, and have a gap between any two.
type spans []span

// find is the index of the span that n is in, or where one with it would go.
func (s spans) find(n uint64) (int, bool) {
	i, _ := slices.BinarySearchFunc(s, n, func(e span, n uint64) int {
		if e.hi <= n {
			return -1
		}
		return 1
	})
	return i, i < len(s) && s[i].lo <= n
}

func (s spans) has(n uint64) bool {
	_, ok := s.find(n)
	return ok
}

// add is s and [lo, hi), which is not empty. At the end of s it is cheap.
func (s spans) add(lo, hi uint64) spans {
	if n := len(s); n == 0 || s[n-1].hi < lo {
		return append(s, span{lo, hi})
	}
	from, _ := slices.BinarySearchFunc(s, lo, func(e span, lo uint64) int {
		if e.hi < lo {
			return -1
		}
		return 1
	})
	to := from
	for ; to < len(s) && s[to].lo <= hi; to++ {
		lo, hi = min(lo, s[to].lo), max(hi, s[to].hi)
	}
	return slices.Replace(s, from, to, span{lo, hi})
}

// below is s without the numbers from n up.
func (s spans) below(n uint64) spans {
	i, inside := s.find(n)
	if inside && s[i].lo < n {
		s[i].hi = n
		i++
	}
	return s[:i]
}

// from is s without the numbers below n.
func (s spans) from(n uint64) spans {
	i, inside := s.find(n)
	if inside {
		s[i].lo = n
	}
	return slices.Delete(s, 0, i)
}
