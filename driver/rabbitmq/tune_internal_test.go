package rabbitmq

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The consumers may never hold more than is wanted, but for what they already do; and when what is
// wanted has stayed the same for a while, they may hold just that.
func TestConsumersMayHoldWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &consuming{}
		now := time.Unix(0, 0)
		want := 0
		outstanding := func() (n int) {
			for _, one := range c.consumers {
				n += one.outstanding
			}
			return n
		}
		live := func() (n int) {
			for _, one := range c.consumers {
				if !one.cancelled {
					n++
				}
			}
			return n
		}
		tune := func() {
			before := c.holdable()
			p := c.plan(want, now)
			if p.prefetch > 0 {
				c.consumers = append(c.consumers, &consumer{prefetch: p.prefetch})
			}
			switch after := c.holdable(); {
			case after > max(want, before):
				t.Fatalf("%d are wanted, and after %d there may be %d", want, before, after)
			case want == 0 && after > outstanding():
				t.Fatalf("none is wanted, and there may be %d more", after-outstanding())
			}
			if n := live(); n > maxConsumers {
				t.Fatalf("there are %d consumers", n)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"want": func(t *rapid.T) {
				want = rapid.OneOf(rapid.IntRange(0, 4), rapid.IntRange(0, 20000)).Draw(t, "want")
				tune()
			},
			"deliver": func(t *rapid.T) {
				for _, one := range c.consumers {
					if !one.cancelled {
						one.outstanding += rapid.IntRange(0, one.prefetch-one.outstanding).Draw(t, "n")
					}
				}
			},
			"settle": func(t *rapid.T) {
				for _, one := range c.consumers {
					one.outstanding -= rapid.IntRange(0, one.outstanding).Draw(t, "n")
				}
				tune()
			},
			"a moment": func(*rapid.T) {
				now = now.Add(10 * time.Millisecond)
				tune()
			},
		})
		for range 4 {
			now = now.Add(2 * steady)
			tune()
		}
		if got := c.holdable(); got != max(want, outstanding()) {
			t.Fatalf("%d are wanted, %d held, and there may be %d", want, outstanding(), got)
		}
	})
}
