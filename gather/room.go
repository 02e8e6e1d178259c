package gather

// alwaysAllowed is how many requests may be under way at the least, whatever the
// size of their results turns out to be: enough to keep the workers of a large
// machine busy.
const alwaysAllowed = 64

// room counts what a job may still ask for. A place is taken before a request is
// published, and given back when its answer was read, so that there is always room for
// the answers which a full queue is waiting to deliver.
//
// The size of a result is not known before it has come. It is estimated as the
// average of those that did; so that there is something to go by, a job starts with
// few requests and may have eight more under way for each answer it got.
type room struct {
	window, windowBytes int64

	used     int64 // places taken
	open     int64 // those of them without an answer yet
	requests int64 // bytes of the requests in them
	results  int64 // bytes of the results in them
	came     int64 // answers there were
	average  int64 // bytes of a result

	turn   chan struct{} // closed when those who wait should look again; nil: nobody waits
	wakeAt int64         // only then when no more places than this are taken
}

func newRoom(cfg *Config) room {
	return room{window: int64(cfg.Window), windowBytes: cfg.WindowBytes}
}

// fits says whether one more request of that size may be published.
func (r *room) fits(size int) bool {
	switch bytes := r.requests + int64(size); {
	case r.used == 0:
		return true
	case r.used >= r.window || bytes > r.windowBytes:
		return false
	case r.used < alwaysAllowed:
		return true
	default:
		return r.used < alwaysAllowed+8*r.came &&
			bytes+r.results+(r.open+1)*r.average <= r.windowBytes
	}
}

func (r *room) take(size int) {
	r.used++
	r.open++
	r.requests += int64(size)
}

// answered notes a result of that size; its place stays taken until release.
func (r *room) answered(size int64) {
	r.open--
	r.results += size
	r.came++
	if r.came == 1 {
		r.average = size
	}
	r.average += (size - r.average) / 16
}

// withdrawn notes that a request will have no result.
func (r *room) withdrawn() { r.open-- }

// release gives n places back.
func (r *room) release(n, requests int, results int64) {
	r.used -= int64(n)
	r.requests -= int64(requests)
	r.results -= results
	if r.turn != nil && r.used <= r.wakeAt {
		r.wakeAll()
	}
}

// wait returns what is closed when it is worth to look again. Those who found all
// places taken are let in together when an eighth of them is free: waking for each
// one would cost more than the request itself.
func (r *room) wait() <-chan struct{} {
	wakeAt := r.window
	if r.used >= r.window {
		wakeAt = r.window - max(1, r.window/8)
	}
	if r.turn == nil {
		r.turn, r.wakeAt = make(chan struct{}), wakeAt
	}
	r.wakeAt = max(r.wakeAt, wakeAt)
	return r.turn
}

func (r *room) wakeAll() {
	if r.turn != nil {
		close(r.turn)
		r.turn = nil
	}
}
