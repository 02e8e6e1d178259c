package broker_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/millrace/millrace"
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
