package broker_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// must is for what should work in a test.
func (b bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b bench) channel(topic, channel string) *broker.Channel {
	b.t.Helper()
	ch, err := b.Channel(topic, channel)
	b.must(err)
	return ch
}

// afterPowerLoss opens what is left of a broker whose machine loses its power now.
func afterPowerLoss(t *testing.T, b bench, disk *vfs.Mem, opts broker.Options) bench {
	t.Helper()
	disk = disk.Crash()
	_ = b.Close()
	return open(t, opts.On(disk))
}

func TestAPausedChannelDeliversNothingUntilItIsUnpaused(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		other := b.subscribe("t", "other", millrace.SubscribeOptions{})
		ch := b.channel("t", "c")
		b.publish("t", "a")
		held := receive(t, c, 1)
		b.must(ch.Pause())
		b.publish("t", "b")
		wantDeliveries(t, receive(t, other, 2), "a@1 b@1")
		nothing(t, c, time.Second)
		b.must(c.Nack(t.Context(), 0, held...)) // what is in flight can be settled
		nothing(t, c, time.Second)
		if !ch.Paused() || ch.Depth().Ready != 2 {
			t.Errorf("paused: %v, depth %+v", ch.Paused(), ch.Depth())
		}
		time.AfterFunc(time.Second, func() { b.must(ch.Unpause()) })
		wantDeliveries(t, receive(t, c, 2), "a@2 b@1") // which waits for it
	})
}

func TestAPausedTopicKeepsItsMessagesForAllItsChannels(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "a")
		topic := b.Lookup("t")
		b.must(topic.Pause())
		b.publish("t", "b", "c")
		wantDeliveries(t, receive(t, c, 1), "a@1") // it had that already
		nothing(t, c, time.Second)
		late := b.subscribe("t", "late", millrace.SubscribeOptions{})
		nothing(t, late, time.Second)
		if s := topic.Stats(); s.Depth != 2 || !s.Paused || s.Messages != 3 || s.Bytes != 3 {
			t.Errorf("%+v", s)
		}
		b.must(topic.Unpause())
		wantDeliveries(t, receive(t, c, 2), "b@1 c@1")
		wantDeliveries(t, receive(t, late, 2), "b@1 c@1")
	})
}

func TestPausesSurvivePowerLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, opts := vfs.NewMem(), broker.Options{Dir: "data"}
		b := open(t, opts.On(disk))
		ch := b.channel("t", "paused")
		b.channel("t", "runs")
		b.publish("t", "a")
		b.must(ch.Pause())
		b.must(b.Lookup("t").Pause())
		b.publish("t", "b")

		b = afterPowerLoss(t, b, disk, opts)
		topic := b.Lookup("t")
		if !topic.Paused() || !topic.Lookup("paused").Paused() || topic.Lookup("runs").Paused() {
			t.Error("what was paused is not, or the other way round")
		}
		if s := topic.Stats(); s.Depth != 1 {
			t.Errorf("%+v", s)
		}
		runs := b.subscribe("t", "runs", millrace.SubscribeOptions{})
		wantDeliveries(t, receive(t, runs, 1), "a@1")
		nothing(t, runs, time.Second)
		nothing(t, b.subscribe("t", "paused", millrace.SubscribeOptions{}), time.Second)
		b.must(topic.Unpause())
		b.must(topic.Lookup("paused").Unpause())
		wantDeliveries(t, receive(t, runs, 1), "b@1")

		b = open(t, opts.On(disk.Crash()))
		if b.Lookup("t").Paused() != true {
			t.Error("the first disk was not the one that was written to")
		}
	})
}

// Unpausing is durable too.
func TestAnUnpausedChannelIsNotPausedAfterPowerLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, opts := vfs.NewMem(), broker.Options{Dir: "data"}
		b := open(t, opts.On(disk))
		ch := b.channel("t", "c")
		for range 2 {
			b.must(ch.Pause())
			b.must(b.Lookup("t").Pause())
		}
		b.must(ch.Unpause())
		b.must(b.Lookup("t").Unpause())
		b.publish("t", "a")
		b = afterPowerLoss(t, b, disk, opts)
		wantDeliveries(t, receive(t, b.subscribe("t", "c", millrace.SubscribeOptions{}), 1), "a@1")
	})
}

var errBroken = errors.New("the disk is broken")

// openBreakable opens a broker on a disk of which, while broken is set, all calls of that kind fail.
func openBreakable(t *testing.T, opts broker.Options, disk vfs.FS, kind vfs.OpKind) (b bench, broken *atomic.Bool) {
	broken = new(atomic.Bool)
	return open(t, opts.On(vfs.Inject(disk, func(op vfs.Op) error {
		if broken.Load() && op.Kind == kind {
			return errBroken
		}
		return nil
	}))), broken
}

func TestAPauseThatCannotBeWrittenDoesNotHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		opts := broker.Options{Dir: "data", Logger: quiet()}
		b, broken := openBreakable(t, opts, disk, vfs.OpSync)
		ch := b.channel("t", "c")
		broken.Store(true)
		if err := ch.Pause(); !errors.Is(err, errBroken) {
			t.Error(err)
		}
		if err := b.Lookup("t").Pause(); !errors.Is(err, errBroken) {
			t.Error(err)
		}
		broken.Store(false)
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "a")
		ack(t, c, receive(t, c, 1)...)
		b.publish("t", "b")
		time.Sleep(2 * time.Second) // for the housekeeper to write it all
		b = afterItsDeath(t, disk, opts)
		c = b.subscribe("t", "c", millrace.SubscribeOptions{})
		wantDeliveries(t, receive(t, c, 1), "b@1")
	})
}

func TestAnEmptyChannelHasNothingInAnyState(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 2, Lease: time.Hour})
		b.publish("t", numbers(0, 10)...)
		held := receive(t, c, 2)
		b.must(c.Nack(t.Context(), time.Hour, held[0]))
		ch := b.channel("t", "c")
		b.must(ch.Empty())
		if d := ch.Depth(); d != (millrace.Depth{}) {
			t.Errorf("%+v", d)
		}
		var lost *millrace.LeaseError
		if err := c.Ack(t.Context(), held[1]); !asLeaseError(err, &lost) {
			t.Errorf("acked what is gone: %v", err)
		}
		b.publish("t", "x", "y")
		wantDeliveries(t, receive(t, c, 2), "x@1 y@1") // it has room for both again
		nothing(t, c, 2*time.Hour-time.Minute*90)
	})
}

func TestWhatWaitsForRoomIsWokenWhenItsChannelIsEmptied(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1, Lease: time.Hour})
		b.publish("t", "a", "b")
		receive(t, c, 1)
		time.AfterFunc(time.Second, func() {
			b.must(b.channel("t", "c").Empty())
			b.publish("t", "c")
		})
		wantDeliveries(t, receive(t, c, 1), "c@1")
	})
}

func TestEmptyingATopicTakesOutWhatWaitsInItself(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		b.publish("t", "a", "b")
		topic := b.Lookup("t")
		b.must(topic.Empty())
		if d := topic.Depth(); d != 0 {
			t.Errorf("depth %d", d)
		}
		b.publish("t", "c")
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		wantDeliveries(t, receive(t, c, 1), "c@1")
		nothing(t, c, time.Second)
	})
}

func TestEmptyingAPausedTopicLeavesWhatItsChannelsHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, opts := vfs.NewMem(), broker.Options{Dir: "data"}
		b := open(t, opts.On(disk))
		ch := b.channel("t", "c")
		topic := b.Lookup("t")
		for range 3 {
			b.publish("t", "keep")
			b.must(topic.Pause())
			b.publish("t", "gone", "gone")
			b.must(topic.Empty())
			b.publish("t", "gone")
			b.must(topic.Empty())
			b.publish("t", "keep")
			b.must(topic.Unpause())
		}
		b.publish("t", "last")
		if d := ch.Depth(); d.Ready != 7 {
			t.Errorf("%+v", d)
		}
		if s := ch.Stats(); s.Messages != 7 {
			t.Errorf("%+v", s)
		}
		check := func(b bench) {
			t.Helper()
			c := b.subscribe("t", "c", millrace.SubscribeOptions{})
			wantDeliveries(t, receive(t, c, 7), "keep@1 keep@1 keep@1 keep@1 keep@1 keep@1 last@1")
			nothing(t, c, time.Second)
		}
		crashed := disk.Crash()
		check(b)
		check(open(t, opts.On(crashed)))
	})
}

// Segments of emptied messages go, though the channel's cursor is far behind them.
func TestEmptyingATopicFreesTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk).WithSegments(1000))
		b.channel("t", "c")
		b.publish("t", "keep")
		topic := b.Lookup("t")
		b.must(topic.Pause())
		for range 50 {
			b.publish("t", numbers(0, 10)...)
		}
		before := topic.Stats().StoredBytes
		b.must(topic.Empty())
		time.Sleep(time.Second)
		if after := topic.Stats().StoredBytes; after > before/10 {
			t.Errorf("%d bytes of %d are left", after, before)
		}
		b.must(topic.Unpause())
		b.publish("t", "last")
		wantDeliveries(t, receive(t, b.subscribe("t", "c", millrace.SubscribeOptions{}), 2), "keep@1 last@1")
	})
}

func TestAQuietConsumerGetsNothingAfterATimeoutUntilItSpeaks(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		opts := millrace.SubscribeOptions{Lease: time.Second, Prefetch: 5}
		c := b.subscribe("t", "c", opts)
		c.SetQuiet(true)
		b.publish("t", "a")
		receive(t, c, 1)
		time.Sleep(2 * time.Second)
		b.publish("t", "b")
		nothing(t, c, time.Minute)
		if d := b.depth("t", "c"); d.Ready != 2 {
			t.Errorf("%+v", d)
		}
		time.AfterFunc(time.Second, c.Speak)
		wantDeliveries(t, receive(t, c, 2), "a@2 b@1")

		// One that waits as the first in line does not keep messages from the others.
		time.Sleep(2 * time.Second)
		go func() { _ = c.Wait(t.Context()) }()
		synctest.Wait()
		wantDeliveries(t, receive(t, b.subscribe("t", "c", opts), 2), "a@3 b@2")
		c.Speak()
	})
}

func TestWhatIsNotQuietGoesOnAfterATimeout(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: time.Second})
		b.publish("t", "a")
		receive(t, c, 1)
		wantDeliveries(t, receive(t, c, 1), "a@2")
	})
}

// The journal's new file has its name already, and nobody knows whether for good.
func TestAPauseThatMayBeLostDoesNotHoldEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		opts := broker.Options{Dir: "data", Logger: quiet()}
		b, broken := openBreakable(t, opts, disk, vfs.OpSyncDir)
		ch := b.channel("t", "c")
		broken.Store(true)
		if err := ch.Pause(); !errors.Is(err, errBroken) {
			t.Error(err)
		}
		broken.Store(false)
		if ch.Paused() {
			t.Error("it is paused")
		}
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "a", "b")
		ack(t, c, receive(t, c, 2)[0])
		time.Sleep(2 * time.Second) // for the housekeeper to write it all
		c = afterItsDeath(t, disk, opts).subscribe("t", "c", millrace.SubscribeOptions{})
		wantDeliveries(t, receive(t, c, 1), "b@2")
	})
}

// A process that is killed while it makes a topic's first channel can leave RELEASED empty. It had
// promised nothing, so nothing is damaged, and the file is made as if it were not there.
func TestAReleasedFileThatWasNeverWrittenIsNoDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		var said bytes.Buffer
		opts := broker.Options{Dir: "data", Logger: slog.New(slog.NewTextHandler(&said, nil))}
		b := open(t, opts.On(disk))
		b.publish("t", "a")
		b.must(b.Close())
		file, err := disk.Create("data/topics/t.topic/RELEASED")
		b.must(err)
		b.must(file.Close())
		b = open(t, opts.On(disk))
		wantDeliveries(t, receive(t, b.subscribe("t", "c", millrace.SubscribeOptions{}), 1), "a@1")
		b.must(b.Lookup("t").Pause())
		b = afterPowerLoss(t, b, disk, opts)
		if !b.Lookup("t").Paused() {
			t.Error("it is not paused any more")
		}
		if strings.Contains(said.String(), "damage") {
			t.Error(said.String())
		}
	})
}
