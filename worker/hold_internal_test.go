package worker

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace/millrace"
)

func TestWhatIsHeldIsWhatWasAddedAndNotReleased(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h holdings
		model := map[*item]bool{}
		var all []*item
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				s := newSlab(make([]millrace.Delivery, rapid.IntRange(1, 10).Draw(t, "n")))
				h.add(s)
				for i := range s.items {
					model[&s.items[i]] = true
					all = append(all, &s.items[i])
				}
			},
			"release": func(t *rapid.T) {
				if len(all) == 0 {
					t.Skip("nothing was added")
				}
				for _, it := range rapid.SliceOfN(rapid.SampledFrom(all), 1, 10).Draw(t, "items") {
					h.release(it) // some of them again
					delete(model, it)
				}
			},
			"": func(t *rapid.T) {
				held := h.held()
				if len(held) != len(model) {
					t.Fatalf("%d are held, want %d", len(held), len(model))
				}
				slabs := map[*slab]bool{}
				for _, it := range held {
					if !model[it] {
						t.Fatal("one is held that was released")
					}
					slabs[it.slab] = true
				}
				if len(h.slabs) != len(slabs) {
					t.Fatalf("%d slabs are kept for what is in %d", len(h.slabs), len(slabs))
				}
			},
		})
	})
}

func TestEveryEnvelopeIsReadOrRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e envelope
		raw := rapid.SliceOf(rapid.Byte()).Draw(t, "raw")
		h := millrace.Headers(raw)
		unfit := e.open(h)
		if bad := h.Check() != nil; bad && unfit == nil {
			t.Fatal("malformed headers were read")
		}
		if unfit == nil && (e.id != h.Text(millrace.HeaderID) || e.replyTo != h.Text(millrace.HeaderReplyTo)) {
			t.Fatalf("%+v", e)
		}
	})
}
