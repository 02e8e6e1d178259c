package broker_test

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

func TestBelowTheLowWaterMarkOnlyPublishingIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data", DiskLowWater: 100_000}.On(disk).WithSegments(1000))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
		b.publish("t", numbers(0, 100)...)
		b.publish("gone", "x")
		ds := receive(t, c, 50)
		time.Sleep(time.Second) // until the acks are written
		disk.SetFree(99_999)

		err := b.Publish("t", messages("refused"))
		if !errors.Is(err, millrace.ErrNoSpace) {
			t.Fatalf("published: %v", err)
		}
		wantSentence(t, err, "publish to topic t", "99999", "100000", "--disk-low-water")
		wantSentence(t, b.Health(), "99999", "100000", "--disk-low-water")
		if s := b.Stats(); s.DiskFree != 99_999 || s.DiskLowWater != 100_000 {
			t.Errorf("%+v", s)
		}
		// All else goes on.
		ack(t, c, ds[:40]...)
		b.must(c.Nack(t.Context(), time.Minute, ds[40:]...))
		wantDeliveries(t, receive(t, c, 50), strings.Join(numbers(50, 100), "@1 ")+"@1")
		b.must(b.DeleteTopic("gone"))
		b.must(b.channel("t", "new").Pause())
		b.publish("t#ephemeral", "in memory")

		// When there is room again nobody need publish for that to be known.
		time.Sleep(time.Second)
		disk.SetFree(100_000)
		b.must(b.Health())
		b.publish("t", "accepted")
		wantDeliveries(t, receive(t, c, 1), "accepted@1")
	})
}

// What the broker itself writes reaches the mark, too, and what is consumed takes it back.
func TestTheBrokerStopsByItselfAtTheLowWaterMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		disk.SetFree(200_000)
		b := open(t, broker.Options{Dir: "data", DiskLowWater: 100_000}.On(disk).WithSegments(5000))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 10_000})
		n := 0
		for ; ; n++ {
			if err := b.Publish("t", messages(strings.Repeat("x", 1000))); errors.Is(err, millrace.ErrNoSpace) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if free := b.Stats().DiskFree; free > 100_000 || free < 90_000 {
			t.Errorf("%d bytes are free after %d messages", free, n)
		}
		ack(t, c, receive(t, c, n)...)
		time.Sleep(time.Second)
		b.publish("t", "x")
	})
}

// However many publish, the disk is asked a few times a second, and not at all when nobody
// does.
func TestTheDiskIsAskedAFewTimesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64
		b := open(t, broker.Options{Dir: "data", DiskLowWater: 1}.On(vfs.Inject(vfs.NewMem(), func(op vfs.Op) error {
			if op.Kind == vfs.OpFree {
				looks.Add(1)
			}
			return nil
		})))
		for range 100 { // a second
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() { b.publish("t", "x") })
			}
			wg.Wait()
			time.Sleep(10 * time.Millisecond)
		}
		if n := looks.Load(); n < 3 || n > 5 {
			t.Errorf("%d looks in a second", n)
		}
		before := looks.Load()
		time.Sleep(time.Hour)
		if n := looks.Load(); n != before {
			t.Errorf("%d looks when nobody published", n-before)
		}
	})
}

// The first messages after the start are no exception, however many publish them.
func TestNobodyIsRefusedWhileTheFirstLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, broker.Options{Dir: "data", DiskLowWater: 1}.On(vfs.Inject(vfs.NewMem(), func(op vfs.Op) error {
			if op.Kind == vfs.OpFree {
				time.Sleep(time.Second)
			}
			return nil
		})))
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { b.publish("t", "x") })
		}
		wg.Wait()
	})
}

// A disk that does not say what it has free is not taken for a full one.
func TestADiskThatDoesNotSayWhatIsFreeTakesMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		b := open(t, broker.Options{Dir: "data", DiskLowWater: 1 << 40, Logger: slog.New(slog.NewTextHandler(&log, nil))}.On(vfs.Inject(vfs.NewMem(), func(op vfs.Op) error {
			if op.Kind == vfs.OpFree {
				return syscall.EIO
			}
			return nil
		})))
		for range 10 {
			b.publish("t", "x")
			time.Sleep(time.Second)
		}
		b.must(b.Health())
		if n := strings.Count(log.String(), "--disk-low-water has no effect"); n != 1 {
			t.Errorf("it was said %d times: %s", n, &log)
		}
	})
}
