package nsq

import (
	"testing"

	"pgregory.net/rapid"
)

func portions(n int) []*portion {
	all := make([]*portion, n)
	for i := range all {
		all[i] = &portion{limit: 2500}
	}
	return all
}

func wants(ps []*portion) (all []int, sum int) {
	for _, p := range ps {
		all = append(all, p.want)
		sum += p.want
	}
	return all, sum
}

func TestTheNodesShareThePrefetch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps := portions(rapid.IntRange(1, 6).Draw(t, "nodes"))
		prefetch := rapid.IntRange(0, 40).Draw(t, "prefetch")
		hungry, quiet, room := 0, 0, 0
		for _, p := range ps {
			p.limit = rapid.IntRange(1, 50).Draw(t, "limit")
			p.hungry = rapid.Bool().Draw(t, "hungry")
			p.quiet = !p.hungry && rapid.Bool().Draw(t, "quiet")
			if p.hungry {
				hungry++
			}
			if p.quiet {
				quiet++
			} else {
				room += p.limit
			}
		}
		listened := make([]int, len(ps))
		for turn := range 2 * listenEvery * len(ps) {
			share(prefetch, turn, ps)
			got, sum := wants(ps)
			if sum > prefetch {
				t.Fatalf("turn %d: %v are more than %d", turn, got, prefetch)
			}
			if hungry > 0 && turn%listenEvery > 0 && sum < min(prefetch, room) {
				t.Fatalf("turn %d: %v, though %d could be used", turn, got, min(prefetch, room))
			}
			for i, p := range ps {
				if p.want > p.limit {
					t.Fatalf("turn %d: %v, and node %d takes %d", turn, got, i, p.limit)
				}
				if p.quiet && hungry > 0 && p.want > 0 && turn%listenEvery > 0 {
					t.Fatalf("turn %d: %v, and node %d has nothing", turn, got, i)
				}
				listened[i] += p.want
			}
		}
		for i, n := range listened {
			if n == 0 && prefetch > 0 {
				t.Fatalf("node %d was never listened to, with a prefetch of %d", i, prefetch)
			}
		}
	})
}

// A node whose portion is full of messages gets what another has no use for, and gives it
// back when that changes.
func TestANodeWithNothingLeavesItsPortionToTheOthers(t *testing.T) {
	ps := portions(2)
	busy, idle := ps[0], ps[1]
	share(10, 1, ps)
	if busy.want != 5 || idle.want != 5 {
		t.Fatalf("at first: %d and %d", busy.want, idle.want)
	}
	busy.told, busy.held, idle.told = 5, 5, 5
	now := quietAfter + 1
	busy.observe(now)
	idle.observe(now)
	share(10, 1, ps)
	if busy.want != 10 || idle.want != 0 {
		t.Fatalf("when one is full and the other empty: %d and %d", busy.want, idle.want)
	}
	idle.told, idle.held, idle.came = 1, 1, now // when it was listened to
	idle.observe(now)
	share(10, 1, ps)
	if busy.want != 5 || idle.want != 5 {
		t.Fatalf("when both have messages: %d and %d", busy.want, idle.want)
	}
}

// However portions change, the nodes are never told that they may send more than is free.
func TestNoMoreIsAskedForThanIsFree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &subscription{}
		s.keeper = newKeeper(s)
		for range rapid.IntRange(2, 4).Draw(t, "nodes") {
			s.sources = append(s.sources, &source{
				sub: s, conn: &conn{out: &outbox{ready: -1, more: make(chan struct{}, 1)}}, portion: portion{limit: 20},
			})
		}
		most := 0
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				sum := 0
				for _, src := range s.sources {
					sum += max(src.told, src.held)
				}
				if most = min(most, max(sum, s.prefetch)); sum > most {
					t.Fatalf("up to %d can come, with a prefetch of %d", sum, s.prefetch)
				}
			},
			"prefetch": func(t *rapid.T) {
				s.prefetch = rapid.IntRange(0, 30).Draw(t, "n")
				most = max(most, s.prefetch)
				s.keeper.share()
			},
			"come": func(t *rapid.T) {
				if src := s.sources[rapid.IntRange(0, len(s.sources)-1).Draw(t, "node")]; src.held < src.told {
					src.held++
					s.keeper.came(src, 0)
				}
			},
			"settle": func(t *rapid.T) {
				if src := s.sources[rapid.IntRange(0, len(s.sources)-1).Draw(t, "node")]; src.held > 0 {
					src.held--
					s.keeper.freed()
				}
			},
			"look": func(t *rapid.T) {
				s.keeper.turn++
				for _, src := range s.sources {
					src.observe(int64(rapid.IntRange(0, 1).Draw(t, "later")) * (quietAfter + 1))
				}
				s.keeper.share()
			},
		})
	})
}
