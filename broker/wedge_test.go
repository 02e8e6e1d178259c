package broker_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// A disk that the only segment of a topic has filled has room again once all of it is
// consumed, although no other segment could be begun.
func TestAFullDiskHasRoomAgainWhenItsOnlySegmentIsConsumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data", Logger: quiet()}.On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1 << 20})
		disk.SetFree(1 << 20)
		accepted := 0
		for ; ; accepted++ {
			err := b.Publish("t", messages(fmt.Sprintf("%01000d", accepted)))
			if errors.Is(err, millrace.ErrNoSpace) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		ack(t, c, receive(t, c, accepted)...)
		time.Sleep(3 * time.Second)
		b.publish("t", "later")
		if got := receive(t, c, 1); string(got[0].Body) != "later" {
			t.Errorf("got %q", got[0].Body)
		}
	})
}
