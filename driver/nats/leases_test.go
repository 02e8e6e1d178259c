package nats

import (
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/millrace/millrace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Leases hold what a list of them would, whatever happens in whatever order.
func TestLeasesKeepWhatTheyWereGiven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type lease struct {
			tag  uint64
			ack  string
			ends time.Time
		}
		var (
			l     = leases{length: 100 * time.Second}
			now   = time.Unix(1000, 0)
			model []lease  // in force, or over without anybody having looked
			gone  []uint64 // tags that must mean nothing any more
			count int
		)
		const short = 99500 * time.Millisecond // a lease, as we see it
		at := func(tag uint64) int {
			return slices.IndexFunc(model, func(m lease) bool { return m.tag == tag && now.Before(m.ends) })
		}
		anyTag := func(t *rapid.T) uint64 {
			tags := slices.Clone(gone)
			for _, m := range model {
				tags = append(tags, m.tag)
			}
			return rapid.SampledFrom(append(tags, 0, 1<<32|99)).Draw(t, "tag")
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				count++
				ack := strconv.Itoa(count)
				tag := l.add(ack, now)
				if tag == 0 || slices.Contains(gone, tag) || slices.ContainsFunc(model, func(m lease) bool { return m.tag == tag }) {
					t.Fatalf("tag %x was used before", tag)
				}
				model = append(model, lease{tag, ack, now.Add(short)})
			},
			"remove": func(t *rapid.T) {
				tag := anyTag(t)
				i := at(tag)
				ack, ok := l.remove(tag, now)
				if ok != (i >= 0) || ok && ack != model[i].ack {
					t.Fatalf("remove %x: %q %v", tag, ack, ok)
				}
				if ok {
					gone = append(gone, tag)
					model = slices.Delete(model, i, i+1)
				}
			},
			"extend": func(t *rapid.T) {
				tag := anyTag(t)
				i := at(tag)
				ack, ok := l.extend(tag, now)
				if ok != (i >= 0) || ok && ack != model[i].ack {
					t.Fatalf("extend %x: %q %v", tag, ack, ok)
				}
				if ok {
					model[i].ends = now.Add(short)
				}
			},
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.SampledFrom([]int{1, 40, 99, 100}).Draw(t, "seconds")) * time.Second)
			},
			"expire": func(*rapid.T) {
				l.expire(now)
				model = slices.DeleteFunc(model, func(m lease) bool {
					over := !now.Before(m.ends)
					if over {
						gone = append(gone, m.tag)
					}
					return over
				})
			},
			"clear": func(t *rapid.T) {
				var want []string
				for _, m := range model {
					if now.Before(m.ends) {
						want = append(want, m.ack)
					}
					gone = append(gone, m.tag)
				}
				got := l.clear(now)
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Fatalf("clear: %q, want %q", got, want)
				}
				model = nil
			},
			"rests": func(t *rapid.T) {
				want := map[string]time.Duration{}
				for _, m := range model {
					if now.Before(m.ends) {
						want[m.ack] = m.ends.Sub(now) + 500*time.Millisecond // to the server
					}
				}
				if got := l.rests(now); !maps.Equal(got, want) {
					t.Fatalf("rests: %v, want %v", got, want)
				}
			},
			"": func(t *rapid.T) {
				if l.held != len(model) {
					t.Fatalf("%d are held, want %d", l.held, len(model))
				}
			},
		})
	})
}

func TestAQueueGivesWhatItWasGivenInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		var model []uint64
		next := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(*rapid.T) {
				next++
				q.push(millrace.Delivery{Seq: next})
				model = append(model, next)
			},
			"pop": func(t *rapid.T) {
				d, ok := q.pop()
				if ok != (len(model) > 0) || ok && d.Seq != model[0] {
					t.Fatalf("pop: %d %v, want %v", d.Seq, ok, model)
				}
				if ok {
					model = model[1:]
				}
			},
			"unpush": func(t *rapid.T) {
				if len(model) == 0 {
					t.Skip("it is empty")
				}
				if d := q.unpush(); d.Seq != model[len(model)-1] {
					t.Fatalf("unpush: %d, want the last of %v", d.Seq, model)
				}
				model = model[:len(model)-1]
			},
			"": func(t *rapid.T) {
				if q.len() != len(model) {
					t.Fatalf("%d in the queue, want %d", q.len(), len(model))
				}
				if cap(q.list) > 16 && cap(q.list) > 8*int(next) {
					t.Fatalf("the queue has grown to %d", cap(q.list))
				}
			},
		})
	})
}
