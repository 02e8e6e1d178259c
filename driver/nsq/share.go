package nsq

import "time"

// portion is what one node has of a subscription's prefetch.
type portion struct {
	limit int // the most that the node takes: its max_rdy_count
	told  int // what it was told last
	held  int // messages that it has in flight to us
	want  int // what it is to be told

	came   int64 // when a message did, by the keeper's clock
	hungry bool  // it has sent all that it might, so perhaps it has more
	quiet  bool  // it might send, and has nothing
}

// quietAfter is how long a node that might send is given to do so.
const quietAfter = int64(40 * time.Millisecond)

// listenEvery is in how many turns quiet nodes are listened to once, while others have
// more than we can take.
const listenEvery = 8

// observe notes what a node makes of its portion.
func (p *portion) observe(now int64) {
	switch {
	case p.told > 0 && p.held >= p.told:
		p.hungry, p.quiet = true, false
	case p.told > 0 && now-p.came > quietAfter:
		p.hungry, p.quiet = false, true
	case p.held > 0:
		p.quiet = false
	}
}

// share sets what each node is to be told, together no more than prefetch. While none has
// sent all that it might they have equal parts. Else those that have nothing leave theirs to
// the others, and get one to listen with from turn to turn.
func share(prefetch, turn int, nodes []*portion) {
	var eager, quiet []*portion
	hungry := false
	for _, p := range nodes {
		p.want = 0
		hungry = hungry || p.hungry
		if p.quiet {
			quiet = append(quiet, p)
		} else {
			eager = append(eager, p)
		}
	}
	if !hungry {
		divide(prefetch, turn, nodes)
		return
	}
	rounds := turn / listenEvery
	if turn%listenEvery == 0 {
		listeners := min(len(quiet), (prefetch+1)/2)
		for i := range listeners {
			quiet[(rounds+i)%len(quiet)].want = 1
		}
		prefetch -= listeners
	}
	divide(prefetch, rounds, eager)
}

// divide gives the nodes equal parts of n, but for what one of them cannot use. If there
// is not one for each they take turns.
func divide(n, turn int, nodes []*portion) {
	open := append([]*portion(nil), nodes...)
	for n > 0 && len(open) > 0 {
		each := n / len(open)
		if each == 0 {
			for i := range n {
				open[(turn+i)%len(open)].want++
			}
			return
		}
		left := open[:0]
		for _, p := range open {
			add := min(each, p.limit-p.want)
			p.want += add
			n -= add
			if p.want < p.limit {
				left = append(left, p)
			}
		}
		open = left
	}
}
