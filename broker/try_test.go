package broker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

func TestTryReceiveTakesWhatIsThereAndDoesNotWait(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease, Prefetch: 3})
		buf := make([]millrace.Delivery, 10)
		if n, err := c.TryReceive(buf); n != 0 || err != nil {
			t.Errorf("from an empty channel it took %d, %v", n, err)
		}
		b.publish("t", "a", "b", "c", "d")
		n, err := c.TryReceive(buf)
		if err != nil {
			t.Fatal(err)
		}
		wantDeliveries(t, buf[:n], "a@1 b@1 c@1")
		if n, err := c.TryReceive(buf); n != 0 || err != nil {
			t.Errorf("without room it took %d, %v", n, err)
		}
		_ = c.Close()
		if _, err := c.TryReceive(buf); !errors.Is(err, millrace.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// One that tried and got nothing does not wait: what comes then is for those that do.
func TestWhoOnlyTriedIsNotWokenInAnothersPlace(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		tries := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		waits := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		if n, _ := tries.TryReceive(make([]millrace.Delivery, 1)); n != 0 {
			t.Fatalf("it took %d", n)
		}
		got := make(chan int, 1)
		go func() {
			n, _ := waits.Receive(t.Context(), make([]millrace.Delivery, 1))
			got <- n
		}()
		synctest.Wait()
		b.publish("t", "a")
		synctest.Wait()
		select {
		case n := <-got:
			if n != 1 {
				t.Errorf("it received %d", n)
			}
		default:
			t.Error("the consumer that waits was not woken")
		}
	})
}

func TestWaitReturnsWhenThereIsSomethingAndRoomForIt(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease, Prefetch: 1})
		woken := make(chan error, 1)
		wait := func(ctx context.Context) {
			go func() { woken <- c.Wait(ctx) }()
			synctest.Wait()
		}
		want := func(when string, returned bool, want error) {
			t.Helper()
			synctest.Wait()
			select {
			case err := <-woken:
				if !returned || !errors.Is(err, want) {
					t.Errorf("%s it returned %v", when, err)
				}
			default:
				if returned {
					t.Errorf("%s it waits", when)
				}
			}
		}
		buf := make([]millrace.Delivery, 5)
		wait(t.Context())
		want("with nothing there", false, nil)
		b.publish("t", "a", "b")
		want("after a publish", true, nil)
		wait(t.Context())
		want("before anything was taken", true, nil)
		if n, err := c.TryReceive(buf); n != 1 || err != nil {
			t.Fatalf("it took %d, %v", n, err)
		}
		wait(t.Context())
		want("without room", false, nil)
		ack(t, c, buf[0])
		want("when there is room again", true, nil)
		if n, _ := c.TryReceive(buf); n != 1 {
			t.Fatalf("it took %d", n)
		}
		wait(t.Context())
		time.Sleep(lease - time.Second)
		want("before the lease ends", false, nil)
		time.Sleep(2 * time.Second)
		want("when the lease has ended", true, nil)
		ctx, cancel := context.WithCancel(t.Context())
		if n, _ := c.TryReceive(buf); n != 1 {
			t.Fatalf("it took %d", n)
		}
		wait(ctx)
		cancel()
		want("when the context ends", true, context.Canceled)
		wait(t.Context())
		_ = c.Close()
		want("when the consumer is closed", true, millrace.ErrClosed)
		wait(t.Context())
		want("after it was closed", true, millrace.ErrClosed)
	})
}

// One that was woken and takes nothing does not keep what there is from others.
func TestAWakeUpOfWaitIsPassedOnByWhoTakesNothing(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		first := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		second := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: lease})
		woken := make(chan int, 2)
		for i, c := range []*broker.Consumer{first, second} {
			go func() {
				_ = c.Wait(t.Context())
				woken <- i
			}()
			synctest.Wait()
		}
		b.publish("t", "a")
		synctest.Wait()
		if got := <-woken; got != 0 {
			t.Errorf("consumer %d was woken first", got)
		}
		_ = first.Close()
		synctest.Wait()
		select {
		case <-woken:
		default:
			t.Error("the second consumer still waits for what the first left")
		}
	})
}
