package ledger

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A doneSet against one bool for each message.
func TestADoneSetIsItsBools(t *testing.T) {
	const size = 3 * blockSize
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Uint64Range(0, size).Draw(t, "start")
		d := newDoneSet(start)
		var bools, journaled [size]bool
		for seq := range start {
			bools[seq], journaled[seq] = true, true
		}
		boundary := rapid.Custom(func(t *rapid.T) uint64 {
			near := rapid.Uint64Range(0, 3).Draw(t, "block") * blockSize
			return min(size, max(3, near+rapid.Uint64Range(0, 6).Draw(t, "offset"))-3)
		})
		seqs := rapid.OneOf(boundary, rapid.Uint64Range(0, size))
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				seq := min(seqs.Draw(t, "seq"), size-1)
				if bools[seq] {
					t.Skip("is done")
				}
				d.add(seq)
				bools[seq] = true
			},
			"add range": func(t *rapid.T) {
				lo, hi := seqs.Draw(t, "lo"), seqs.Draw(t, "hi")
				d.addRange(lo, hi)
				for ; lo < hi; lo++ {
					bools[lo] = true
				}
			},
			"truncate": func(t *rapid.T) {
				end := seqs.Draw(t, "end")
				d.truncate(end)
				clear(bools[end:])
				journaled = bools
			},
			"changes": func(t *rapid.T) {
				for _, s := range d.changes(nil) {
					for seq := s.lo; seq < s.hi; seq++ {
						if !bools[seq] || seq < d.floor {
							t.Fatalf("%d is among the changes, floor %d", seq, d.floor)
						}
						journaled[seq] = true
					}
				}
				d.settle()
				for seq := d.floor; seq < size; seq++ {
					if bools[seq] && !journaled[seq] {
						t.Fatalf("%d is not among the changes", seq)
					}
				}
			},
			"": func(t *rapid.T) {
				checkDoneSet(t, &d)
				var runs spans
				floor := slices.Index(bools[:], false)
				if floor < 0 {
					floor = size
				}
				if d.floor != uint64(floor) {
					t.Fatalf("floor %d, want %d", d.floor, floor)
				}
				for seq, want := range bools {
					if want && seq >= floor {
						runs = runs.add(uint64(seq), uint64(seq)+1)
					}
				}
				for range 5 {
					if seq := seqs.Draw(t, "seq"); seq < size && d.has(seq) != bools[seq] {
						t.Fatalf("has(%d) is not %v", seq, bools[seq])
					}
				}
				if got := d.runs(nil, size); !slices.Equal(got, runs) {
					t.Fatalf("runs: %v, want %v", got, runs)
				}
			},
		})
	})
}

func TestSpansAreSets(t *testing.T) {
	const size = 24
	rapid.Check(t, func(t *rapid.T) {
		var s spans
		var model [size + 1]bool
		number := rapid.Uint64Range(0, size)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			n := number.Draw(t, "n")
			switch rapid.SampledFrom([]string{"add", "add", "add", "from", "below"}).Draw(t, "step") {
			case "from":
				s = s.from(n)
				clear(model[:n])
			case "below":
				s = s.below(n)
				clear(model[n:])
			default:
				hi := rapid.Uint64Range(n, size).Draw(t, "hi") + 1
				s = s.add(n, hi)
				for ; n < hi; n++ {
					model[n] = true
				}
			}
			for i, want := range model {
				if s.has(uint64(i)) != want {
					t.Fatalf("%v: has(%d) is not %v", s, i, want)
				}
			}
			for i := range s {
				if s[i].lo >= s[i].hi || (i > 0 && s[i-1].hi >= s[i].lo) {
					t.Fatalf("%v", s)
				}
			}
		}
	})
}

// However far apart the messages are: a log may jump ahead.
func TestAGapOfAnySizeCostsNothing(t *testing.T) {
	l := New(1)
	l.Deliver(1, 100, 1)
	l.Deliver(1<<62+77, 100, 1)
	if got := len(l.done.blocks); got > 2 {
		t.Errorf("%d blocks for two messages", got)
	}
	if got := slices.Collect(l.Live(0, math.MaxUint64)); !slices.Equal(got, []uint64{1, 1<<62 + 77}) {
		t.Errorf("live are %v", got)
	}
	if b := l.AppendJournal(nil); len(b) > 64 {
		t.Errorf("the journal takes %d bytes for it", len(b))
	}
	l.Ack(1, 1)
	if got := l.Floor(); got != 1<<62+77 {
		t.Errorf("floor %d, want that of the second message", got)
	}
}

func TestAStuckFloorCostsABitAMessage(t *testing.T) {
	const messages = 2 << 20
	for _, test := range []struct {
		every uint64 // one message of so many is never acked
		limit int    // bytes
	}{{messages, 64 << 10}, {blockSize, 64<<10 + messages/8*3/2}} {
		t.Run(fmt.Sprint("one in ", test.every), func(t *testing.T) {
			before := heap()
			l := New(0)
			for seq := range uint64(messages) {
				if seq%test.every == 5 {
					l.Defer(seq, 1<<60)
					continue
				}
				l.Deliver(seq, 1, 1)
				l.Ack(seq, 1)
			}
			l.AppendJournal(nil)
			if got := heap() - before; got > test.limit {
				t.Errorf("%d bytes for %d messages, want at most %d", got, messages, test.limit)
			}
			runtime.KeepAlive(l)
		})
	}
}
