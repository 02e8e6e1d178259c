package gather

import "bytes"

// outstanding is a request that has no answer yet.
type outstanding struct {
	used    bool
	resends uint8
	tick    uint32 // of the job when it was last published
	index   int64
	payload []byte
	call    *call // who waits for it alone; nil in a stream
}

// window holds the outstanding requests of a job by their index.
//
// It is a table in which every index has one place, its lowest bits. Indexes come in
// ascending order, so that a place which is still taken when a new request needs it
// is held by a straggler, len(table) requests behind; it moves to a map. So putting
// and taking cost a few instructions, and one slow task does not hold up the others.
type window struct {
	table      []outstanding // its length is a power of two
	stragglers map[int64]outstanding
	count      int
	maxTable   int
}

const minTable = 64

// newWindow returns a window that is meant for up to size requests at a time. It
// takes memory as it is needed.
func newWindow(size int) window {
	w := window{table: make([]outstanding, minTable), maxTable: minTable}
	for w.maxTable < size {
		w.maxTable *= 2
	}
	return w
}

func (w *window) place(index int64) *outstanding {
	return &w.table[index&int64(len(w.table)-1)]
}

// put adds a request, whose index must be larger than all before it.
func (w *window) put(r outstanding) {
	if w.count >= len(w.table)/2 && len(w.table) < w.maxTable {
		w.grow()
	}
	r.used = true
	p := w.place(r.index)
	if p.used {
		w.sideline(*p)
	}
	*p = r
	w.count++
}

// sideline moves a straggler to the map, and its payload out of the block of memory
// that it shares with many others, which would stay for it.
func (w *window) sideline(r outstanding) {
	if w.stragglers == nil {
		w.stragglers = make(map[int64]outstanding)
	}
	r.payload = bytes.Clone(r.payload)
	w.stragglers[r.index] = r
}

func (w *window) grow() {
	old := w.table
	w.table = make([]outstanding, 2*len(old))
	for i := range old {
		if old[i].used {
			*w.place(old[i].index) = old[i]
		}
	}
}

// take removes the request and returns it; false when it is not outstanding.
func (w *window) take(index int64) (outstanding, bool) {
	if p := w.place(index); p.used && p.index == index {
		r := *p
		*p = outstanding{}
		w.count--
		return r, true
	}
	r, ok := w.stragglers[index]
	if ok {
		delete(w.stragglers, index)
		w.count--
	}
	return r, ok
}

// each calls f with every request, oldest first within the table and in no order
// among the stragglers. What f changes is kept.
func (w *window) each(f func(*outstanding)) {
	for index, r := range w.stragglers {
		f(&r)
		w.stragglers[index] = r
	}
	for i := range w.table {
		if w.table[i].used {
			f(&w.table[i])
		}
	}
}
