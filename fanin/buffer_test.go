package fanin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// Sources, reader and stop follow a random timetable in virtual time. However it
// goes: what was accepted is what was read, then what was handed over; what was
// refused is neither; all in the order of its source; and everything ends.
func TestEveryValueIsReadOrHandedOverOrRefused(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sources := rapid.IntRange(1, 5).Draw(rt, "sources")
		capacity := rapid.SampledFrom([]int{1, 2, 3, 8}).Draw(rt, "capacity")
		grace := time.Duration(rapid.IntRange(-1, 10).Draw(rt, "grace"))
		stopAt := time.Duration(rapid.IntRange(0, 60).Draw(rt, "stop"))
		patience := rapid.IntRange(0, 80).Draw(rt, "patience") // how often the reader reads
		batch := rapid.IntRange(1, 4).Draw(rt, "batch")
		pauses := rapid.SliceOfN(rapid.IntRange(0, 4), 16, 16)
		var emits [][]int
		for range sources {
			emits = append(emits, pauses.Draw(rt, "pauses of a source"))
		}
		deaf := rapid.SampledFrom([]bool{false, true}).Draw(rt, "deaf") // to its context, not to emit
		reads := pauses.Draw(rt, "pauses of the reader")

		synctest.Test(t, func(*testing.T) {
			var rest []int
			m := New(Config[int]{Buffer: capacity, Grace: grace, Undelivered: func(vs []int) { rest = vs }})
			accepted := make([][]int, sources)
			for i := range sources {
				_, _ = m.Add(fmt.Sprint(i), func(ctx context.Context, emit Emit[int]) error {
					if deaf {
						ctx = context.Background()
					}
					for n := range 40 {
						time.Sleep(time.Duration(emits[i][n%16]))
						v := 1000*i + n
						patient, cancel := context.WithTimeout(ctx, 5)
						err := emit(patient, v)
						cancel()
						if err == nil {
							accepted[i] = append(accepted[i], v)
						} else if ctx.Err() != nil || errors.Is(err, ErrClosed) {
							return err
						}
					}
					return nil
				})
			}
			m.Close()
			ctx, cancel := context.WithTimeout(context.Background(), stopAt+1)
			defer cancel()
			var read []int
			var reader sync.WaitGroup
			reader.Go(func() {
				buf := make([]int, batch)
				for n := range patience {
					time.Sleep(time.Duration(reads[n%16]))
					k, err := m.RecvBatch(context.Background(), buf)
					if err != nil {
						return
					}
					read = append(read, buf[:k]...)
				}
			})
			_ = m.Serve(ctx)
			reader.Wait()

			got := make([][]int, sources)
			for _, v := range append(read, rest...) {
				got[v/1000] = append(got[v/1000], v)
			}
			if fmt.Sprint(got) != fmt.Sprint(accepted) {
				rt.Errorf("accepted %v\nread %v\nhanded over %v", accepted, read, rest)
			}
		})
	})
}

// A context that ends while its emission waits races with the reader that makes
// room: the emitter must learn what became of the value.
func TestAnEmissionWhoseContextEndsIsInOrOutNeverBoth(t *testing.T) {
	b := newBuffer[int](1, func() {})
	const emitters, each = 4, 3000
	var accepted, withdrawn [emitters]int
	var all, reader sync.WaitGroup
	read := map[int]int{}
	reader.Go(func() {
		buf := make([]int, 1)
		for {
			if _, err := b.take(context.Background(), buf); err != nil {
				return
			}
			read[buf[0]]++
		}
	})
	in := make([]map[int]bool, emitters)
	for e := range emitters {
		in[e] = map[int]bool{}
		all.Go(func() {
			for i := range each {
				ctx, cancel := context.WithCancel(context.Background())
				go cancel()
				if err := b.put(ctx, e*each+i); err == nil {
					accepted[e]++
					in[e][e*each+i] = true
				} else {
					withdrawn[e]++
				}
			}
		})
	}
	all.Wait()
	var left []int
	for b.len() > 0 { // the reader takes the last ones
		time.Sleep(time.Millisecond)
	}
	left = b.close()
	reader.Wait()
	if len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	total := 0
	for e := range emitters {
		for v := range in[e] {
			if read[v] != 1 {
				t.Fatalf("%d was accepted and read %d times", v, read[v])
			}
		}
		total += accepted[e]
	}
	if len(read) != total {
		t.Fatalf("%d values read, %d accepted", len(read), total)
	}
	t.Logf("accepted %v, withdrawn %v", accepted, withdrawn)
}

func TestNoReaderIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBuffer[int](8, func() {})
		var got, ended atomic.Int64
		var readers sync.WaitGroup
		for range 5 {
			readers.Go(func() {
				buf := make([]int, 1)
				for {
					if _, err := b.take(t.Context(), buf); err != nil {
						ended.Add(1)
						return
					}
					got.Add(1)
					time.Sleep(time.Hour) // the other values are for the others
				}
			})
		}
		synctest.Wait()
		impatient, cancel := context.WithTimeout(t.Context(), 1)
		defer cancel()
		if _, err := b.take(impatient, make([]int, 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("take returned %v", err)
		}
		b.mu.Lock()
		for i := range 5 { // at once, as by emitters that run before any reader can
			b.push(i)
		}
		b.mu.Unlock()
		b.wakeReader()
		synctest.Wait()
		if got := got.Load(); got != 5 {
			t.Errorf("%d of 5 values were read", got)
		}
		time.Sleep(2 * time.Hour) // all of them wait again
		synctest.Wait()
		b.close()
		readers.Wait()
		if ended := ended.Load(); ended != 5 {
			t.Errorf("%d of 5 readers saw the end", ended)
		}
	})
}

func TestAReadValueIsNotKeptAlive(t *testing.T) {
	b := newBuffer[*int](4, func() {})
	for i := range 4 {
		_ = b.put(t.Context(), &i)
	}
	buf := make([]*int, 3)
	_, _ = b.take(t.Context(), buf)
	for i, p := range b.ring[:3] {
		if p != nil {
			t.Errorf("slot %d still holds its value", i)
		}
	}
}

func TestWaitingDoesNotAllocate(t *testing.T) {
	b := newBuffer[int](1, func() {})
	ctx := t.Context()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]int, 1)
		for {
			if _, err := b.take(ctx, buf); err != nil {
				return
			}
		}
	}()
	if n := testing.AllocsPerRun(1000, func() { _ = b.put(ctx, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	b.close()
	<-done
}

func BenchmarkFanIn(b *testing.B) {
	for _, sources := range []int{1, 2, 4, 16} {
		for _, batch := range []int{1, 256} {
			b.Run(fmt.Sprintf("sources=%d/batch=%d", sources, batch), func(b *testing.B) {
				m := New(Config[int]{})
				for i := range sources {
					_, _ = m.Add(fmt.Sprint(i), func(ctx context.Context, emit Emit[int]) error {
						for v := range b.N/sources + 1 {
							if err := emit(ctx, v); err != nil {
								return err
							}
						}
						return nil
					})
				}
				m.Close()
				b.ReportAllocs()
				b.ResetTimer()
				served := make(chan error, 1)
				go func() { served <- m.Serve(context.Background()) }()
				buf := make([]int, batch)
				for {
					if _, err := m.RecvBatch(context.Background(), buf); err != nil {
						break
					}
				}
				if err := <-served; err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkGoChannel is what a plain channel of the same capacity does.
func BenchmarkGoChannel(b *testing.B) {
	for _, sources := range []int{1, 4} {
		b.Run(fmt.Sprintf("sources=%d", sources), func(b *testing.B) {
			ch := make(chan int, DefaultBuffer)
			var all sync.WaitGroup
			for range sources {
				all.Go(func() {
					for v := range b.N/sources + 1 {
						ch <- v
					}
				})
			}
			go func() { all.Wait(); close(ch) }()
			b.ReportAllocs()
			b.ResetTimer()
			for range ch {
			}
		})
	}
}
