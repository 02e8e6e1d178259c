package fleet

// host is a machine with workers, as a plan sees it.
type host struct {
	cores   int
	size    int // replicas, planned ones too
	workers []int
}

// plan says how many replicas each of the workers is to have so that there are want of
// them. New ones go where they have the most room: to the host that will have the fewest
// replicas a core, and there to the worker that has the fewest. Those that leave are idle
// ones first, from the host that has the most replicas a core, and there from the worker
// that has the most. Of equals it is the first one. Workers that have what they should keep
// what they have, so that a plan never moves replicas about.
func plan(workers []Worker, want int) (sizes []int) {
	hosts := make(map[string]*host)
	var order []*host
	idle := make([]int, len(workers))
	have := 0
	for i := range workers {
		w := &workers[i]
		h := hosts[w.Host]
		if h == nil {
			h = &host{}
			hosts[w.Host] = h
			order = append(order, h)
		}
		h.cores = max(h.cores, w.Cores, 1)
		h.size += w.Size
		h.workers = append(h.workers, i)
		sizes = append(sizes, w.Size)
		idle[i] = max(0, w.Size-(w.Busy-w.Leaving()))
		have += w.Size
	}
	for ; have < want; have++ {
		h := best(order, func(a, b *host) bool { return (a.size+1)*b.cores < (b.size+1)*a.cores })
		i := best(h.workers, func(a, b int) bool { return sizes[a] < sizes[b] })
		sizes[i]++
		h.size++
	}
	for ; have > want; have-- {
		h, i := leaving(order, sizes, idle)
		sizes[i]--
		idle[i] = max(0, idle[i]-1)
		h.size--
	}
	return sizes
}

// leaving chooses the host and the worker that the next replica leaves, which must exist.
func leaving(hosts []*host, sizes, idle []int) (*host, int) {
	for _, from := range [][]int{idle, sizes} {
		var those []*host
		of := make(map[*host][]int)
		for _, h := range hosts {
			for _, i := range h.workers {
				if from[i] > 0 {
					of[h] = append(of[h], i)
				}
			}
			if len(of[h]) > 0 {
				those = append(those, h)
			}
		}
		if len(those) == 0 {
			continue
		}
		h := best(those, func(a, b *host) bool { return a.size*b.cores > b.size*a.cores })
		return h, best(of[h], func(a, b int) bool { return sizes[a] > sizes[b] })
	}
	panic("fleet: a plan takes away more replicas than there are")
}

// best returns the first of all than which none is better.
func best[T any](all []T, better func(a, b T) bool) T {
	found := all[0]
	for _, one := range all[1:] {
		if better(one, found) {
			found = one
		}
	}
	return found
}
