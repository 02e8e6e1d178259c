package replica

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/supervise"
)

var errBroken = errors.New("broken")

// Whoever decides the end of a message decides it alone, while emissions come
// and go: its handler's return, the monitor, an abandoned emission.
func TestTheEndOfAMessageIsDecidedOnce(t *testing.T) {
	for i := range 10_000 {
		h := &hand{quiet: make(chan struct{}, 1)}
		ctx := context.WithValue(t.Context(), handKey{}, h)
		var claims, delivered atomic.Int32
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if h.claim() {
					claims.Add(1)
				}
			})
		}
		all.Go(func() {
			_ = Emit(ctx, 1, func(context.Context, int) error {
				if i%2 == 0 {
					return errBroken
				}
				delivered.Add(1)
				return nil
			})
		})
		all.Wait()
		if h.claim() {
			claims.Add(1)
		}
		if n := claims.Load() + delivered.Load(); n != 1 {
			t.Fatalf("claimed %d times, delivered %d times", claims.Load(), delivered.Load())
		}
	}
}

// Goroutines that a handler left behind emit when they like: before the next
// message is in hand they are refused, and in no case do they upset the word.
func TestLateEmissionsLeaveTheHandAsItWas(t *testing.T) {
	h := &hand{quiet: make(chan struct{}, 1)}
	h.word.Store(ended)
	ctx := context.WithValue(t.Context(), handKey{}, h)
	sink := func(context.Context, int) error { return nil }
	if err := Emit(ctx, 1, sink); !errors.Is(err, supervise.ErrFenced) || h.word.Load() != ended {
		t.Errorf("Emit returned %v, the word is %b", err, h.word.Load())
	}
	h.word.Add(emission) // one is on its way out when the next message comes
	h.begin()
	h.leave()
	if w := h.word.Load(); w != 0 {
		t.Errorf("the word is %b", w)
	}
	h.word.Store(ended)
	stop := make(chan struct{})
	var late sync.WaitGroup
	for range 2 {
		late.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = Emit(ctx, 1, sink)
				}
			}
		})
	}
	for range 20_000 {
		h.begin()
		for !h.claim() {
			h.waitQuiet()
			if w := h.word.Load(); w&emitted != 0 && w < emission {
				h.word.Or(ended)
				break
			}
		}
	}
	close(stop)
	late.Wait()
	if w := h.word.Load(); w >= emission || w&ended == 0 {
		t.Errorf("the word is %b", w)
	}
}

// A handler may keep to itself that its value was fenced; the message is not
// handled for that.
func TestAFencedValueIsARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work := func(ctx context.Context, p *supervise.Pulse) error {
			<-ctx.Done()
			h := &hand{pulse: p, quiet: make(chan struct{}, 1)}
			ctx = context.WithValue(ctx, handKey{}, h)
			err := Emit(ctx, 1, func(context.Context, int) error { t.Error("delivered"); return nil })
			if !errors.Is(err, supervise.ErrFenced) {
				t.Errorf("Emit returned %v", err)
			}
			if h.word.Load()&refused == 0 || !errors.Is(*h.why.Load(), supervise.ErrFenced) {
				t.Error("the refusal is not remembered")
			}
			return nil
		}
		_ = supervise.New(work, supervise.Config{TTL: time.Second, Restart: supervise.Temporary}).Serve(t.Context())
	})
}

func TestFrontKeepsItsOrderAndLetsGoOfWhatItGave(t *testing.T) {
	var f front[*int]
	for i := range 3 {
		f.push(&i)
	}
	kept := f.msgs
	for want := range 2 {
		if v, ok := f.pop(); !ok || *v != want {
			t.Fatalf("popped %v, %v", v, ok)
		}
	}
	if kept[0] != nil || kept[1] != nil {
		t.Error("what was given is kept alive")
	}
	if rest := f.takeAll(); len(rest) != 1 || *rest[0] != 2 {
		t.Errorf("rest %v", rest)
	}
	if _, ok := f.pop(); ok {
		t.Error("popped from nothing")
	}
}
