package broker_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// publishLater publishes the bodies with a delay.
func (b bench) publishLater(topic string, delay time.Duration, bodies ...string) {
	b.t.Helper()
	msgs := messages(bodies...)
	for i := range msgs {
		msgs[i].Delay = delay
	}
	b.must(b.Publish(topic, msgs))
}

func (b bench) wantDepth(channel string, want millrace.Depth) {
	b.t.Helper()
	if got := b.depth("t", channel); got != want {
		b.t.Errorf("channel %s holds %+v, want %+v", channel, got, want)
	}
}

func TestWhatIsPublishedWithADelayIsDeferredAtOnce(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		one, other := b.channel("t", "one"), b.channel("t", "other")
		b.publishLater("t", time.Hour, "first")
		b.publish("t", numbers(0, 100)...)
		b.publishLater("t", time.Hour, numbers(100, 110)...)
		b.publishLater("t", time.Minute, "soon")
		b.publish("t", "last")
		for _, name := range []string{"one", "other"} {
			b.wantDepth(name, millrace.Depth{Ready: 101, Deferred: 12})
		}
		c := b.subscribe("t", "one", millrace.SubscribeOptions{Prefetch: 1000})
		ds := receive(t, c, 50)
		b.wantDepth("one", millrace.Depth{Ready: 51, InFlight: 50, Deferred: 12})
		ack(t, c, ds...)
		time.Sleep(time.Minute + time.Second)
		b.wantDepth("other", millrace.Depth{Ready: 102, Deferred: 11})
		ds = receive(t, c, 52)
		if got := describe(ds[:1]); got != "soon@1" {
			t.Errorf("first came %s", got)
		}
		ack(t, c, ds...)
		nothing(t, c, time.Minute)
		b.wantDepth("one", millrace.Depth{Deferred: 11})
		ack(t, c, receiveWithin(t, time.Hour, c, 11)...)
		nothing(t, c, 24*time.Hour)
		b.must(other.Empty())
		b.wantDepth("other", millrace.Depth{})
		if s := one.Stats(); s.Deferred != 0 || s.Finished != 113 || s.Messages != 113 {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhatWaitsInATopicIsDeferredOnceAChannelHasIt(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		b.publish("t", numbers(0, 50)...)
		b.publishLater("t", time.Hour, numbers(50, 60)...)
		b.publishLater("t", time.Second, "soon")
		topic := b.Lookup("t")
		if got := topic.Depth(); got != 61 {
			t.Errorf("the topic's depth is %d", got)
		}
		time.Sleep(time.Minute)
		b.channel("t", "c")
		b.wantDepth("c", millrace.Depth{Ready: 51, Deferred: 10})
		b.must(topic.Pause())
		b.publishLater("t", time.Hour, numbers(0, 7)...)
		b.publish("t", numbers(0, 3)...)
		b.wantDepth("c", millrace.Depth{Ready: 51, Deferred: 10})
		b.must(topic.Unpause())
		b.wantDepth("c", millrace.Depth{Ready: 54, Deferred: 17})
		b.publishLater("t", time.Hour, "still")
		b.wantDepth("c", millrace.Depth{Ready: 54, Deferred: 18})
		if topic.Depth() != 0 {
			t.Errorf("the topic's depth is %d", topic.Depth())
		}
	})
}

// Many publish at the same time and are told by each other's rounds.
func TestNobodyWhoHasPublishedFindsItCountedAsReady(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		b := open(t, broker.Options{Dir: dir, Sync: broker.SyncNever})
		var names []string
		for i := range 20 {
			names = append(names, fmt.Sprint("c", i))
			b.channel("t", names[i])
		}
		var published atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 200 {
					if err := b.Publish("t", []millrace.Message{{Delay: time.Hour}}); err != nil {
						t.Error(err)
					}
					least := published.Add(1)
					for _, name := range names[len(names)-2:] { // which are told last
						d, err := b.Depth("t", name)
						if err != nil || d.Ready > 0 || d.Deferred < least {
							t.Errorf("%+v, %v, want at least %d deferred", d, err, least)
						}
					}
				}
			})
		}
		all.Wait()
	}
}

func TestWhatAReplayBringsBackIsDeferredAgain(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		ch := b.channel("t", "c")
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
		b.publishLater("t", time.Hour, numbers(0, 10)...)
		b.publishLater("t", time.Second, "soon")
		b.publish("t", numbers(10, 20)...)
		ack(t, c, receive(t, c, 11)...)
		b.wantDepth("c", millrace.Depth{Deferred: 10})
		_, err := ch.Replay(2)
		b.must(err)
		b.wantDepth("c", millrace.Depth{Ready: 11, Deferred: 10})
	})
}

// restarts are the ways in which a broker can come back.
var restarts = map[string]func(t *testing.T, b bench, disk *vfs.Mem) *vfs.Mem{
	"closed": func(t *testing.T, b bench, disk *vfs.Mem) *vfs.Mem {
		b.must(b.Close())
		return disk
	},
	"killed": func(t *testing.T, _ bench, disk *vfs.Mem) *vfs.Mem {
		left := vfs.NewMem()
		copyTree(t, disk, left, "data")
		return left
	},
	"killed a while later": func(t *testing.T, _ bench, disk *vfs.Mem) *vfs.Mem {
		time.Sleep(time.Second)
		left := vfs.NewMem()
		copyTree(t, disk, left, "data")
		return left
	},
	"without power": func(_ *testing.T, _ bench, disk *vfs.Mem) *vfs.Mem {
		time.Sleep(time.Second)
		return disk.Crash()
	},
}

func TestAfterARestartTheSameIsDeferred(t *testing.T) {
	for name, end := range restarts {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk, opts := vfs.NewMem(), broker.Options{Dir: "data"}.WithSegments(4096)
				b := open(t, opts.On(disk))
				b.channel("t", "c")
				for range 10 {
					b.publish("t", numbers(0, 50)...)
					b.publishLater("t", time.Hour, numbers(50, 60)...)
				}
				b.wantDepth("c", millrace.Depth{Ready: 500, Deferred: 100})
				b = open(t, opts.On(end(t, b, disk)))
				b.wantDepth("c", millrace.Depth{Ready: 500, Deferred: 100})
				c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
				ack(t, c, receive(t, c, 500)...)
				nothing(t, c, 50*time.Minute)
				b.wantDepth("c", millrace.Depth{Deferred: 100})
				ack(t, c, receiveWithin(t, time.Hour, c, 100)...)
				b.wantDepth("c", millrace.Depth{})
			})
		})
	}
}

// The log cannot be read when the broker starts, and can a moment later.
func TestWhatCouldNotBeCountedAtTheStartIsCountedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.WithSegments(4096).On(disk))
		for range 10 {
			b.publish("t", numbers(0, 50)...)
			b.publishLater("t", time.Hour, numbers(50, 60)...)
		}
		b.channel("t", "c")
		disk = disk.Crash() // the journal knows of nothing
		var broken atomic.Bool
		b = open(t, broker.Options{Dir: "data", Logger: quiet()}.WithSegments(4096).On(vfs.Inject(disk, func(op vfs.Op) error {
			if broken.Load() && op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".seg") {
				return errors.New("the disk is not there")
			}
			if strings.HasSuffix(op.Name, ".ledger") {
				broken.Store(true) // the channels are opened
			}
			return nil
		})))
		b.wantDepth("c", millrace.Depth{Ready: 600})
		broken.Store(false)
		time.Sleep(3 * time.Second)
		b.wantDepth("c", millrace.Depth{Ready: 500, Deferred: 100})
	})
}
