package broker_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// Acks need no room that would have to be reserved for them. A segment that every channel is
// done with goes although no journal says so yet: a ledger that is behind finds holes when it
// is loaded, and skips them. And with the segment the journals have their room again. What
// cannot be written until then costs, if the broker dies, no more than deliveries that come
// twice.

// fill publishes until the disk has not one byte left, and returns what was accepted.
func (b bench) fill(disk *vfs.Mem, topic string) (accepted []string) {
	b.t.Helper()
	for i := 0; ; i++ {
		if i == 50 {
			disk.SetFree(5000)
		}
		body := strings.Repeat("x", i%50) + numbers(i, i+1)[0]
		err := b.Publish(topic, messages(body))
		if errors.Is(err, millrace.ErrNoSpace) {
			disk.SetFree(0)
			return accepted
		} else if err != nil {
			b.t.Fatal(err)
		}
		accepted = append(accepted, body)
	}
}

func TestACompletelyFullDiskHasRoomAgainWhenItIsConsumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, opts := vfs.NewMem(), broker.Options{Dir: "data", Logger: quiet()}.WithSegments(1000)
		b := open(t, opts.On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000, Lease: time.Hour})
		d := b.subscribe("t", "d", millrace.SubscribeOptions{Prefetch: 1000, Lease: time.Hour})
		accepted := b.fill(disk, "t")
		if err := b.Publish("t", messages("x")); !errors.Is(err, millrace.ErrNoSpace) {
			t.Fatal(err)
		}
		if err := b.Health(); !errors.Is(err, millrace.ErrNoSpace) {
			t.Errorf("health: %v", err)
		}
		// All is delivered, and acked but for one message, with no journal written.
		ack(t, c, receive(t, c, len(accepted))...)
		ds := receive(t, d, len(accepted))
		time.Sleep(3 * time.Second) // the housekeeper tries
		if free, _ := disk.Free("."); free != 0 {
			t.Fatalf("%d bytes are free although a channel needs all of it", free)
		}
		stuck := len(ds) / 2
		ack(t, d, slices.Concat(ds[:stuck], ds[stuck+1:])...)
		time.Sleep(3 * time.Second)
		free, err := disk.Free(".")
		if err != nil || free < 2000 {
			t.Errorf("%d bytes are free when all but one message is consumed, %v", free, err)
		}
		b.publish("t", "later")

		// The journals have caught up: if the process dies, nothing of that comes again.
		after := afterItsDeath(t, disk, opts)
		if got, want := drain(t, after.Broker, "t", "d"), []string{accepted[stuck], "later"}; !sameBodies(got, want) {
			t.Errorf("after the death of the process channel d has %q, want %q", got, want)
		}
		if got, want := drain(t, after.Broker, "t", "c"), []string{"later"}; !sameBodies(got, want) {
			t.Errorf("after the death of the process channel c has %q, want %q", got, want)
		}
	})
}

func sameBodies(got, want []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want)))
}

// Power fails while the disk is completely full, at any time: a broker that is opened on what
// is left delivers all that was not acked, and has room again when that is consumed.
func TestABrokerStartsOnACompletelyFullDisk(t *testing.T) {
	for _, acked := range []int{0, 30, 1000} {
		synctest.Test(t, func(t *testing.T) {
			disk, opts := vfs.NewMem(), broker.Options{Dir: "data", Logger: quiet()}.WithSegments(1000)
			b := open(t, opts.On(disk))
			c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
			accepted := b.fill(disk, "t")
			ds := receive(t, c, len(accepted))
			acked := min(acked, len(ds))
			ack(t, c, ds[:acked]...)
			for _, after := range []time.Duration{0, 10 * time.Second} {
				time.Sleep(after)
				crashed := disk.Crash()
				b := open(t, opts.On(crashed))
				came := drain(t, b.Broker, "t", "c")
				for i, body := range accepted[acked:] {
					if !slices.Contains(came, body) {
						t.Fatalf("%d were acked, %v later message %d is missing", acked, after, acked+i)
					}
				}
				time.Sleep(3 * time.Second)
				if free, _ := crashed.Free("."); free < 5000 {
					t.Errorf("%d bytes are free when all is consumed", free)
				}
				b.publish("t", "later")
			}
			disk.SetFree(1 << 20) // for what is written when it is closed
		})
	}
}

// Somebody else has filled the disk, and no publish has failed: acks are kept until there is
// room, and are written then although nothing else happens.
func TestAcksAreWrittenWhenThereIsRoomAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, opts := vfs.NewMem(), broker.Options{Dir: "data", Logger: quiet()}
		b := open(t, opts.On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
		b.publish("t", numbers(0, 100)...)
		ds := receive(t, c, 100)
		disk.SetFree(0)
		for i := range 90 {
			ack(t, c, ds[i])
			time.Sleep(100 * time.Millisecond)
		}
		came := drain(t, afterItsDeath(t, disk, opts).Broker, "t", "c")
		for _, body := range numbers(90, 100) {
			if !slices.Contains(came, body) {
				t.Errorf("%s was not acked and is missing", body)
			}
		}
		disk.SetFree(1 << 20)
		time.Sleep(3 * time.Second)
		if got := drain(t, afterItsDeath(t, disk, opts).Broker, "t", "c"); !sameBodies(got, numbers(90, 100)) {
			t.Errorf("when there was room: %q", got)
		}
	})
}
