package broker_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// fewNear are the options of brokers that keep next to nothing of what is deferred in
// memory.
func fewNear() broker.Options {
	return broker.Options{Dir: "data"}.WithSegments(32 << 10).WithNear(16)
}

// publishSpread publishes messages that are due one a minute, in an order that is not
// theirs: message i of n after i minutes.
func (b bench) publishSpread(n int) {
	b.t.Helper()
	for i := range n {
		m := (i*37)%n + 1
		b.publishLater("t", time.Duration(m)*time.Minute, strconv.Itoa(m))
	}
}

// wantInTime receives messages from to to, each in its minute after start.
func wantInTime(t *testing.T, c *broker.Consumer, start time.Time, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		ds := receiveWithin(t, 2*time.Minute, c, 1)
		due := start.Add(time.Duration(i) * time.Minute)
		if got := describe(ds); got != fmt.Sprintf("%d@1", i) || time.Now().Before(due) || time.Since(due) > 100*time.Millisecond {
			t.Fatalf("%s came at %v, want message %d at %v", got, time.Now(), i, due)
		}
		ack(t, c, ds...)
	}
}

func runFiles(t *testing.T, disk *vfs.Mem) (names []string) {
	t.Helper()
	all, err := disk.List("data/topics/t.topic")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if strings.HasSuffix(name, ".later") {
			names = append(names, name)
		}
	}
	return names
}

func TestWhatIsOnTheDiskUntilItIsDueComesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, fewNear().On(disk))
		b.channel("t", "c")
		start := time.Now()
		b.publishSpread(400)
		time.Sleep(time.Second)
		b.wantDepth("c", millrace.Depth{Deferred: 400})
		if n := len(runFiles(t, disk)); n == 0 || n > 16 {
			t.Errorf("%d runs", n)
		}
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		wantInTime(t, c, start, 1, 400)
		b.wantDepth("c", millrace.Depth{})
		time.Sleep(time.Second)
		if names := runFiles(t, disk); len(names) > 0 {
			t.Errorf("runs are left: %v", names)
		}
	})
}

func TestWhatWasGivenBackForLongWaitsOnTheDiskWithItsAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, fewNear().On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
		b.publish("t", numbers(0, 100)...)
		for _, d := range receive(t, c, 100) {
			b.must(c.Nack(t.Context(), time.Hour, d))
		}
		time.Sleep(time.Second)
		if len(runFiles(t, disk)) == 0 {
			t.Error("there are no runs")
		}
		b.must(b.Close())
		b = open(t, fewNear().On(disk))
		b.wantDepth("c", millrace.Depth{Deferred: 100})
		c = b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
		nothing(t, c, 59*time.Minute)
		for _, d := range receiveWithin(t, time.Hour, c, 100) {
			if d.Attempt != 2 {
				t.Errorf("%s@%d", d.Body, d.Attempt)
			}
		}
	})
}

func TestWhatIsOnTheDiskIsThereAfterARestart(t *testing.T) {
	for name, end := range restarts {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := vfs.NewMem()
				b := open(t, fewNear().On(disk))
				b.channel("t", "c")
				start := time.Now()
				b.publishSpread(200)
				c := b.subscribe("t", "c", millrace.SubscribeOptions{})
				wantInTime(t, c, start, 1, 50)
				time.Sleep(time.Second) // until the acks are written
				disk = end(t, b, disk)
				b = open(t, fewNear().On(disk))
				c = b.subscribe("t", "c", millrace.SubscribeOptions{})
				for i := 0; name == "without power" && i < 50; i++ { // some acks may be lost
					if b.depth("t", "c").Ready == 0 {
						break
					}
					ack(t, c, receive(t, c, 1)...)
				}
				b.wantDepth("c", millrace.Depth{Deferred: 150})
				wantInTime(t, c, start, 51, 200)
				time.Sleep(time.Second)
				if names := runFiles(t, disk); len(names) > 0 {
					t.Errorf("runs are left: %v", names)
				}
			})
		})
	}
}

func TestTheFilesOfRunsGoWithWhatTheyHold(t *testing.T) {
	for name, take := range map[string]func(b bench){
		"emptied":         func(b bench) { b.must(b.channel("t", "c").Empty()) },
		"channel deleted": func(b bench) { b.must(b.DeleteChannel("t", "c")) },
		"replayed and done": func(b bench) {
			ch := b.channel("t", "c")
			b.must(ch.Empty())
			_, err := ch.Replay(1)
			b.must(err)
			b.wantDepth("c", millrace.Depth{Deferred: 200})
			b.must(ch.Empty())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := vfs.NewMem()
				b := open(t, fewNear().On(disk))
				b.channel("t", "c")
				b.publishSpread(200)
				time.Sleep(time.Second)
				take(b)
				time.Sleep(time.Second)
				if names := runFiles(t, disk); len(names) > 0 {
					t.Errorf("runs are left: %v", names)
				}
			})
		})
	}
}

// Ten thousand messages are due at the same moment, to somebody who takes one at a time.
func TestWhatIsDueAtOnceComesAsItIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, fewNear().WithNear(1024).On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1})
		for i := range 20 {
			b.publishLater("t", time.Hour, numbers(i*500, i*500+500)...)
		}
		nothing(t, c, 50*time.Minute)
		seen := map[string]bool{}
		for len(seen) < 10_000 {
			ds := receiveWithin(t, 20*time.Minute, c, 1)
			if got := string(ds[0].Body); seen[got] || ds[0].Attempt != 1 {
				t.Fatalf("%s came again", got)
			} else {
				seen[got] = true
			}
			if n := c.Channel().Parked(); n > 3*1024 {
				t.Fatalf("%d messages are in memory", n)
			}
			ack(t, c, ds...)
		}
		b.wantDepth("c", millrace.Depth{})
	})
}

// A bit is flipped anywhere in the file of a run: that is said, what stood there comes, and
// the rest comes when it should.
func TestADamagedRunCostsNoMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, fewNear().On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
		b.publish("t", numbers(0, 15)...)
		b.must(c.Nack(t.Context(), 2*time.Hour, receive(t, c, 15)...)) // of these the log does not know
		b.publishLater("t", time.Hour, numbers(15, 40)...)
		time.Sleep(time.Second)
		b.must(b.Close())
		names := runFiles(t, disk)
		if len(names) == 0 {
			t.Fatal("there are no runs")
		}
		for _, name := range append(names, "") {
			for _, at := range []int64{0, 40, 70, 90, -1} { // first header, second header, block; -1: no file
				left := disk.Crash()
				path := "data/topics/t.topic/" + name
				switch {
				case name == "":
				case at < 0:
					if err := left.Remove(path); err != nil {
						t.Fatal(err)
					}
				default:
					flipBit(t, left, path, at)
				}
				b := open(t, fewNear().On(left))
				c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
				got := map[string]bool{}
				for len(got) < 40 {
					ds := receiveWithin(t, 3*time.Hour, c, 1)
					got[string(ds[0].Body)] = true
					ack(t, c, ds...)
				}
				b.wantDepth("c", millrace.Depth{})
				if damaged := b.Broker.Stats().Damaged; (damaged > 0) != (name != "") {
					t.Errorf("%s, byte %d: %d pieces are said to be damaged", name, at, damaged)
				}
				b.must(b.Close())
			}
		}
	})
}

func flipBit(t *testing.T, disk *vfs.Mem, path string, at int64) {
	t.Helper()
	file, err := disk.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var b [1]byte
	if _, err := file.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := file.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// The disk refuses the files of runs for a while: what they were to hold stays in memory,
// and nothing else stops.
func TestWithoutRoomForRunsAllStaysInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		var full atomic.Bool
		full.Store(true)
		b := open(t, fewNear().On(vfs.Inject(disk, func(op vfs.Op) error {
			if full.Load() && strings.Contains(op.Name, ".later") && (op.Kind == vfs.OpCreate || op.Kind == vfs.OpWrite) {
				return errors.New("no space")
			}
			return nil
		})))
		b.channel("t", "c")
		start := time.Now()
		b.publishSpread(200)
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		wantInTime(t, c, start, 1, 20)
		b.wantDepth("c", millrace.Depth{Deferred: 180})
		if names := runFiles(t, disk); len(names) > 0 {
			t.Errorf("%v", names)
		}
		full.Store(false)
		wantInTime(t, c, start, 21, 22)
		if names := runFiles(t, disk); len(names) == 0 {
			t.Error("there are no runs although there is room")
		}
		wantInTime(t, c, start, 23, 200)
	})
}

// What was deferred until one hour was replayed, and deferred until another: it is not in a
// run that is merged when it is read, although it stands there.
func TestARunDoesNotBringBackWhatWasReplayedSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, fewNear().On(disk))
		ch := b.channel("t", "c")
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
		start := time.Now()
		b.publishLater("t", time.Hour, numbers(0, 10)...)
		b.publish("t", "replayed")
		b.must(c.Nack(t.Context(), time.Hour, receive(t, c, 1)...))
		b.publishLater("t", time.Minute, numbers(10, 30)...) // so that the others are spilled
		time.Sleep(time.Second)
		_, err := ch.Replay(11)
		b.must(err)
		b.must(c.Nack(t.Context(), 3*time.Hour, receive(t, c, 1)...))
		for range 20 {
			b.publishLater("t", 2*time.Hour, numbers(30, 50)...)
			time.Sleep(time.Second)
		}
		if n := len(runFiles(t, disk)); n == 0 || n > 16 {
			t.Errorf("%d runs", n)
		}
		for range 10 + 20 + 400 + 1 {
			ds := receiveWithin(t, 2*time.Hour, c, 1)
			if early := 3*time.Hour - time.Since(start); string(ds[0].Body) == "replayed" && early > 0 {
				t.Errorf("it comes %v too early", early)
			}
			ack(t, c, ds...)
		}
		b.wantDepth("c", millrace.Depth{})
	})
}

// Many runs become few, and nothing of what was read or emptied comes back by that.
func TestRunsAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, fewNear().On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 2000})
		start := time.Now()
		most := 0
		for range 60 {
			time.Sleep(time.Second)
			b.publishLater("t", time.Until(start.Add(time.Hour)), numbers(0, 20)...)
			time.Sleep(100 * time.Millisecond)
			most = max(most, len(runFiles(t, disk)))
		}
		if most < 10 || most > 30 {
			t.Errorf("there were up to %d runs", most)
		}
		ds := receiveWithin(t, 2*time.Hour, c, 1200)
		if early := time.Until(start.Add(time.Hour)); early > 0 {
			t.Errorf("%v too early", early)
		}
		seqs := map[uint64]bool{}
		for _, d := range ds {
			seqs[d.Seq] = true
		}
		if len(seqs) != 1200 {
			t.Errorf("%d messages", len(seqs))
		}
		nothing(t, c, time.Second)
		if !slices.Equal(runFiles(t, disk), nil) {
			t.Errorf("runs are left: %v", runFiles(t, disk))
		}
	})
}
