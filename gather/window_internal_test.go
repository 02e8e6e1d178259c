package gather

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// The window against a map, with every index in any state.
func TestTheWindowIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWindow(rapid.SampledFrom([]int{1, 64, 100, 256}).Draw(t, "size"))
		model := map[int64]string{}
		next := int64(0)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				for range rapid.IntRange(1, 100).Draw(t, "how many") {
					payload := fmt.Sprint("payload ", next)
					w.put(outstanding{index: next, payload: []byte(payload)})
					model[next] = payload
					next += 1 + next%3/2 // with holes, as refused inputs leave them
				}
			},
			"take": func(t *rapid.T) {
				for range rapid.IntRange(1, 100).Draw(t, "how many") {
					index := rapid.Int64Range(0, next+10).Draw(t, "index")
					r, ok := w.take(index)
					payload, want := model[index]
					if ok != want || ok && (string(r.payload) != payload || r.index != index) {
						t.Fatalf("take(%d) = %+v, %v; want %q, %v", index, r, ok, payload, want)
					}
					delete(model, index)
				}
			},
			"": func(t *rapid.T) {
				if w.count != len(model) {
					t.Fatalf("count is %d, want %d", w.count, len(model))
				}
				seen := 0
				w.each(func(r *outstanding) {
					if model[r.index] != string(r.payload) {
						t.Fatalf("each: %d has %q, want %q", r.index, r.payload, model[r.index])
					}
					seen++
				})
				if seen != len(model) {
					t.Fatalf("each saw %d, want %d", seen, len(model))
				}
			},
		})
	})
}

// A block of memory serves thousands of requests. A straggler must not keep it.
func TestAStragglersPayloadHasMemoryOfItsOwn(t *testing.T) {
	w := newWindow(minTable)
	block := make([]byte, arenaBlock)
	w.put(outstanding{index: 0, payload: block[:10]})
	w.put(outstanding{index: minTable, payload: block[10:20]})
	if r, ok := w.take(0); !ok || cap(r.payload) >= arenaBlock {
		t.Errorf("%v, %d bytes are kept", ok, cap(r.payload))
	}
}

func TestTheSequencerPutsInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		order := rapid.Permutation(make([]int, rapid.IntRange(0, 300).Draw(t, "n"))).Draw(t, "unused")
		indexes := make([]int64, len(order))
		for i := range indexes {
			indexes[i] = int64(i)
		}
		indexes = rapid.Permutation(indexes).Draw(t, "order")
		var s sequencer
		next := int64(0)
		for _, index := range indexes {
			s.put(answer{index: index})
			for {
				a, ok := s.next()
				if !ok {
					break
				}
				if a.index != next {
					t.Fatalf("%d comes after %d", a.index, next-1)
				}
				next++
			}
		}
		if next != int64(len(indexes)) {
			t.Fatalf("%d of %d came", next, len(indexes))
		}
	})
}

func TestPayloadsInOneBlockDoNotTouch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var memory arena
		var kept, want [][]byte
		for i := range rapid.IntRange(1, 100).Draw(t, "n") {
			size := rapid.SampledFrom([]int{0, 1, 100, arenaLeast, arenaBlock - 1, arenaBlock, 3 * arenaBlock}).Draw(t, "size")
			payload := make([]byte, size)
			for j := range payload {
				payload[j] = byte(i)
			}
			p := memory.keep(append(memory.spare(), payload...))
			kept, want = append(kept, p), append(want, payload)
		}
		for _, p := range kept {
			_ = append(p, "what does not belong there"...)
		}
		for i := range kept {
			if string(kept[i]) != string(want[i]) {
				t.Fatalf("payload %d has changed", i)
			}
		}
	})
}

func FuzzParseID(f *testing.F) {
	for _, id := range []string{"", "abcdefghijklmnop-0", "abcdefghijklmnop-12", "abcdefghijklmnop-", "abcdefghijklmnop-00", "abcdefghijklmnop--1"} {
		f.Add([]byte(id))
	}
	f.Fuzz(func(t *testing.T, id []byte) {
		job, index, ok := parseID(id)
		if ok && requestID(string(job), index) != string(id) {
			t.Errorf("%q is taken for request %d of job %q", id, index, job)
		}
	})
}

func TestEveryRequestIDIsUnderstood(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Int64Range(0, 999_999_999_999_999_999).Draw(t, "index")
		id := newID()
		job, index, ok := parseID([]byte(requestID(id, want)))
		if !ok || string(job) != id || index != want {
			t.Fatalf("%q, %d, %v", job, index, ok)
		}
	})
}
