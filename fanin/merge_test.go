package fanin_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/fanin"
)

// send returns a channel that gets vs and is closed.
func send(vs ...int) <-chan int {
	ch := make(chan int)
	go func() {
		defer close(ch)
		for _, v := range vs {
			ch <- v
		}
	}()
	return ch
}

func TestMergeReceivesFromEveryChannelInItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var small, large []int
		for v := range fanin.Merge(t.Context(), send(1, 2, 3), send(), send(10, 20)) {
			if v < 10 {
				small = append(small, v)
			} else {
				large = append(large, v)
			}
		}
		if !slices.Equal(small, []int{1, 2, 3}) || !slices.Equal(large, []int{10, 20}) {
			t.Errorf("received %v and %v", small, large)
		}
		if _, open := <-fanin.Merge[int](t.Context()); open {
			t.Error("a merge of nothing is not closed")
		}
	})
}

func TestMergeEndsWithItsContextWhateverItWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails if a forwarder is left
		never, eager := make(chan int), make(chan int, 1)
		eager <- 1
		ctx, cancel := context.WithCancel(t.Context())
		out := fanin.Merge(ctx, never, eager) // one waits to receive, one to send
		synctest.Wait()
		cancel()
		synctest.Wait()
		if v, open := <-out; open {
			t.Errorf("received %d", v)
		}
	})
}

func TestMergeSeqYieldsWhatAllYield(t *testing.T) {
	var got []int
	for v := range fanin.MergeSeq(t.Context(), slices.Values([]int{1, 2}), slices.Values([]int{3}), slices.Values([]int{})) {
		got = append(got, v)
	}
	slices.Sort(got)
	if !slices.Equal(got, []int{1, 2, 3}) {
		t.Errorf("got %v", got)
	}
}

func forever(yield func(int) bool) {
	for yield(1) {
	}
}

func TestLeavingMergeSeqEndsEverySequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
		for range fanin.MergeSeq(t.Context(), forever, forever, forever) {
			break
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		slow := func(yield func(int) bool) {
			for yield(1) {
				time.Sleep(time.Millisecond)
			}
		}
		for range fanin.MergeSeq(ctx, slow, slow) {
		}
	})
}

func TestAPanicInASequenceIsRaisedInTheLoop(t *testing.T) {
	defer func() {
		err, _ := recover().(error)
		if !errors.Is(err, errBroken) {
			t.Errorf("recovered %v", err)
		}
	}()
	broken := iter.Seq[int](func(func(int) bool) { panic(errBroken) })
	for range fanin.MergeSeq(t.Context(), broken) {
	}
	t.Error("no panic")
}

// What was received from a channel before the source was told to stop is not
// thrown away because the stream was full at the time.
func TestFromChanDeliversWhatItHasReceived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := fanin.New(fanin.Config[int]{Buffer: 1, Grace: time.Second})
		ch := make(chan int, 2)
		ch <- 1
		ch <- 2
		add(t, m, "chan", fanin.FromChan(ch))
		result := make(chan error, 1)
		go func() { result <- m.Serve(t.Context()) }()
		synctest.Wait() // 1 is in the stream, 2 waits for room
		m.Stop()
		synctest.Wait()
		if got := readAll(t, m); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("read %v", got)
		}
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}
