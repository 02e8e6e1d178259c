package mpmc_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/millrace/millrace/mpmc"
	"pgregory.net/rapid"
)

// A model says what a channel is: a list of items, a capacity, a closed mark.
type model struct {
	items  []int
	limit  int // 0 if unbounded
	closed bool
}

func (m *model) send(v int) error {
	switch {
	case m.closed:
		return mpmc.ErrClosed
	case m.limit > 0 && len(m.items) == m.limit:
		return mpmc.ErrFull
	}
	m.items = append(slices.Clip(m.items), v) // never into an array that an older model shares
	return nil
}

// recv takes up to most items.
func (m *model) recv(most int) ([]int, error) {
	switch {
	case len(m.items) > 0:
		n := min(most, len(m.items))
		taken := m.items[:n:n]
		m.items = m.items[n:]
		return taken, nil
	case m.closed:
		return nil, mpmc.ErrClosed
	}
	return nil, mpmc.ErrEmpty
}

// One goroutine at a time, the channel does what the model does. Where an
// operation would wait, an ended context makes it say so.
func TestChanIsItsModel(t *testing.T) {
	why := fmt.Errorf("would wait")
	ended, cancel := context.WithCancelCause(background)
	cancel(why)
	wouldWait := func(err error) error {
		if err == mpmc.ErrFull || err == mpmc.ErrEmpty {
			return why
		}
		return err
	}
	rapid.Check(t, func(t *rapid.T) {
		m := &model{limit: rapid.SampledFrom([]int{0, 1, 2, 31, 32, 33, 100, 1024, 3000}).Draw(t, "limit")}
		c := mpmc.NewUnbounded[int]()
		if m.limit > 0 {
			c = mpmc.New[int](m.limit)
		}
		next := 0
		same := func(t *rapid.T, got []int, err error, want []int, wantErr error) {
			if !slices.Equal(got, want) || err != wantErr {
				t.Fatalf("got %v, %v; want %v, %v", got, err, want, wantErr)
			}
		}
		one := func(v int, err error) ([]int, error) {
			if err != nil {
				return nil, err
			}
			return []int{v}, nil
		}
		t.Repeat(map[string]func(*rapid.T){
			"TrySend": func(t *rapid.T) {
				next++
				same(t, nil, c.TrySend(next), nil, m.send(next))
			},
			"Send": func(t *rapid.T) {
				next++
				same(t, nil, c.Send(ended, next), nil, wouldWait(m.send(next)))
			},
			"SendAll": func(t *rapid.T) {
				vs := make([]int, rapid.OneOf(rapid.IntRange(0, 5), rapid.IntRange(0, 2500)).Draw(t, "items"))
				sent, want := 0, error(nil)
				for i := range vs {
					next++
					vs[i] = next
				}
				for sent < len(vs) && want == nil {
					if want = m.send(vs[sent]); want == nil {
						sent++
					}
				}
				n, err := c.SendAll(ended, vs)
				same(t, vs[:n], err, vs[:sent], wouldWait(want))
			},
			"TryRecv": func(t *rapid.T) {
				got, err := one(c.TryRecv())
				want, wantErr := m.recv(1)
				same(t, got, err, want, wantErr)
			},
			"Recv": func(t *rapid.T) {
				got, err := one(c.Recv(ended))
				want, wantErr := m.recv(1)
				same(t, got, err, want, wouldWait(wantErr))
			},
			"RecvBatch": func(t *rapid.T) {
				buf := make([]int, rapid.OneOf(rapid.IntRange(1, 5), rapid.IntRange(1, 3000)).Draw(t, "room"))
				n, err := c.RecvBatch(ended, buf)
				want, wantErr := m.recv(len(buf))
				same(t, buf[:n], err, want, wouldWait(wantErr))
			},
			"Close": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					c.Close()
					m.closed = true
				}
			},
			"Ready": func(t *rapid.T) {
				select {
				case <-c.Ready():
					got, err := one(c.TryRecv())
					want, wantErr := m.recv(1)
					same(t, got, err, want, wantErr)
				default:
					if len(m.items) > 0 || m.closed {
						t.Fatalf("not ready with %d items, closed %v", len(m.items), m.closed)
					}
				}
			},
			"": func(t *rapid.T) {
				if c.Len() != len(m.items) || c.Cap() != m.limit {
					t.Fatalf("Len, Cap = %d, %d; want %d, %d", c.Len(), c.Cap(), len(m.items), m.limit)
				}
			},
		})
	})
}

// A call is one operation in a concurrent history, an answer what it returned.
type (
	call struct {
		name string
		vs   []int // to send
	}
	answer struct {
		vs  []int
		n   int
		err error
	}
)

// step says whether a channel in state m may give this answer, and what it is
// after. The operations that wait are in the history only with what they did.
func step(state, input, output any) (bool, any) {
	m, in, out := state.(model), input.(call), output.(answer)
	switch in.name {
	case "send":
		err := m.send(in.vs[0])
		return err == out.err, m
	case "recv":
		vs, err := m.recv(1)
		return err == out.err && slices.Equal(vs, out.vs), m
	case "batch":
		// It may leave what came in while it was taking what was there before: how
		// many it takes is for the tests of one goroutine at a time.
		vs, err := m.recv(max(1, len(out.vs)))
		return err == out.err && slices.Equal(vs, out.vs), m
	case "len":
		return len(m.items) == out.n, m
	default:
		m.closed = true
		return true, m
	}
}

func chanModel(limit int) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return model{limit: limit} },
		Step: step,
		Equal: func(a, b any) bool {
			x, y := a.(model), b.(model)
			return x.closed == y.closed && slices.Equal(x.items, y.items)
		},
		Hash: func(state any) uint64 {
			m := state.(model)
			h := uint64(len(m.items))
			for _, v := range m.items {
				h = h*1_000_003 + uint64(v)
			}
			return h
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
	}
}

func TestConcurrentUseIsLinearizable(t *testing.T) {
	for _, limit := range []int{0, 1, 2, 5} {
		t.Run(fmt.Sprint("cap=", limit), func(t *testing.T) {
			for round := range 60 {
				history := record(limit, round)
				res, info := porcupine.CheckOperationsVerbose(chanModel(limit), history, 5*time.Second)
				if res == porcupine.Illegal {
					t.Fatalf("not linearizable: %v\n%v", history, info.PartialLinearizations())
				}
			}
		})
	}
}

// record lets a few goroutines use one channel at the same time and returns what
// they did.
func record(limit, round int) []porcupine.Operation {
	const clients, each = 3, 60
	c := mpmc.NewUnbounded[int]()
	if limit > 0 {
		c = mpmc.New[int](limit)
	}
	var (
		histories [clients][]porcupine.Operation
		ready     atomic.Int32
		start     = time.Now()
		g         sync.WaitGroup
	)
	for id := range clients {
		g.Go(func() {
			for ready.Add(1); ready.Load() < min(clients, int32(runtime.GOMAXPROCS(0))); {
				continue // all at the same instant, or their operations would not overlap
			}
			for i := range each {
				in := plan(id, i, round, each)
				at := time.Since(start).Nanoseconds()
				out := perform(c, in)
				histories[id] = append(histories[id], porcupine.Operation{
					ClientId: id, Input: in, Call: at, Output: out, Return: time.Since(start).Nanoseconds(),
				})
			}
		})
	}
	g.Wait()
	return slices.Concat(histories[:]...)
}

// plan chooses the i-th operation of a client, differently in every round.
func plan(id, i, round, each int) call {
	mix := uint(id*7919+i*104_729+round*1_299_709) * 2_654_435_761 >> 16
	switch k := mix % 16; {
	case i == each-1 && id == 0:
		return call{name: "close"}
	case k < 7:
		return call{name: "send", vs: []int{id*each + i}}
	case k < 12:
		return call{name: "recv"}
	case k < 14:
		return call{name: "batch"}
	default:
		return call{name: "len"}
	}
}

func perform(c *mpmc.Chan[int], in call) answer {
	switch in.name {
	case "send":
		return answer{err: c.TrySend(in.vs[0])}
	case "recv":
		v, err := c.TryRecv()
		if err != nil {
			return answer{err: err}
		}
		return answer{vs: []int{v}}
	case "batch":
		ctx, cancel := context.WithCancelCause(background)
		cancel(mpmc.ErrEmpty) // do not wait
		buf := make([]int, 3)
		n, err := c.RecvBatch(ctx, buf)
		return answer{vs: buf[:n], err: err}
	case "len":
		return answer{n: c.Len()}
	default:
		c.Close()
		return answer{}
	}
}
