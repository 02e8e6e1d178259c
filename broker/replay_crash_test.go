package broker_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// Power fails at each of the calls that a replay makes, and after it: what was not done
// comes, and once the replay has returned, all of it.
func TestAReplayIsAsSafeAsAPublish(t *testing.T) {
	for at := 0; ; at++ {
		done := false
		synctest.Test(t, func(t *testing.T) {
			disk := vfs.NewMem()
			var mu sync.Mutex
			var crashed *vfs.Mem
			calls := -1 // not counted
			count := func(from int) {
				mu.Lock()
				defer mu.Unlock()
				calls = from
			}
			b := open(t, broker.Options{Dir: "data", Logger: quiet()}.On(vfs.Inject(disk, func(vfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				if calls == at && crashed == nil {
					crashed = disk.CrashKeeping(rand.New(rand.NewPCG(1, uint64(at))))
				}
				if calls >= 0 {
					calls++
				}
				return nil
			})))
			c := b.subscribe("t", "c", millrace.SubscribeOptions{})
			b.publish("t", numbers(1, 11)...)
			ack(t, c, receive(t, c, 9)...)
			time.Sleep(time.Second)
			b.must(b.channel("t", "c").Pause()) // makes safe what was acked
			b.must(b.channel("t", "c").Unpause())
			count(0)
			b.replay(b.channel("t", "c"), 6, broker.Replayed{From: 6, Messages: 5 - 1})
			count(-1)
			if crashed == nil {
				done, crashed = true, disk.Crash()
			}
			b = open(t, broker.Options{Dir: "data", Logger: quiet()}.On(crashed))
			got := strings.Join(drain(t, b.Broker, "t", "c"), " ")
			if after := "6 7 8 9 10"; got != after && (done || got != "10") {
				t.Errorf("after a crash at call %d: %s", at, got)
			}
		})
		if done || t.Failed() {
			if at < 4 {
				t.Errorf("a replay makes only %d calls", at)
			}
			return
		}
	}
}

// When it cannot be written down, nothing comes again: now, and after the death of the
// process.
func TestAReplayThatFailsChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, opts := vfs.NewMem(), broker.Options{Dir: "data", Logger: quiet()}
		b := open(t, opts.On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", numbers(1, 11)...)
		ds := receive(t, c, 10)
		ack(t, c, ds[:9]...)
		time.Sleep(time.Second)
		disk.SetFree(10)
		ch := b.channel("t", "c")
		_, err := ch.Replay(1)
		if !errors.Is(err, millrace.ErrNoSpace) {
			t.Fatal(err)
		}
		wantSentence(t, err, "channel c of topic t: replay", "no space left")
		if got, want := ch.Depth(), (millrace.Depth{InFlight: 1}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		ack(t, c, ds[9])
		nothing(t, c, time.Hour)
		disk.SetFree(1 << 20)
		time.Sleep(2 * time.Second)
		after := afterItsDeath(t, disk, opts)
		if got := drain(t, after.Broker, "t", "c"); len(got) > 0 {
			t.Errorf("after the death of the process %v came", got)
		}
		b.replay(ch, 1, broker.Replayed{From: 1, Messages: 10})
		wantDeliveries(t, receive(t, c, 10), strings.Join(numbers(1, 11), "@1 ")+"@1")
	})
}

// Numbers that are on their way in the journal when the channel is replayed do not come
// back with a restart.
func TestAReplayAndARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, opts := vfs.NewMem(), broker.Options{Dir: "data"}
		b := open(t, opts.On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", numbers(1, 11)...)
		ack(t, c, receive(t, c, 10)...) // not in the journal yet
		b.replay(b.channel("t", "c"), 3, broker.Replayed{From: 3, Messages: 8})
		ack(t, c, receiveExactly(t, c, 2)...)
		time.Sleep(time.Second)
		b = afterItsDeath(t, disk, opts)
		got := drain(t, b.Broker, "t", "c")
		slices.Sort(got)
		if want := []string{"10", "5", "6", "7", "8", "9"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// When the rewound state cannot be read after a restart, its messages come rather than not.
func TestAReplayWhoseJournalIsDamagedBringsTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", numbers(1, 11)...)
		ack(t, c, receive(t, c, 10)...)
		b.replay(b.channel("t", "c"), 3, broker.Replayed{From: 3, Messages: 8})
		left := disk.Crash()
		left.FlipBit("data/topics/t.topic/c.ledger", 8*90) // behind headers and frame
		b = open(t, broker.Options{Dir: "data", Logger: quiet()}.On(left))
		if got := drain(t, b.Broker, "t", "c"); len(got) != 8 {
			t.Errorf("got %v", got)
		}
	})
}
