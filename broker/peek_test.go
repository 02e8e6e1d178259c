package broker_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
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

// look peeks, and describes what is seen: "body:state:attempts:until", until as the time from
// now on.
func (b bench) look(from interface {
	Peek(seq uint64, n int) ([]broker.Peeked, error)
}, seq uint64, n int,
) string {
	b.t.Helper()
	ms, err := from.Peek(seq, n)
	if err != nil {
		b.t.Fatal(err)
	}
	var words []string
	for _, m := range ms {
		until := ""
		if m.Until != 0 {
			until = time.Until(time.Unix(0, m.Until)).String()
		}
		words = append(words, fmt.Sprintf("%s:%s:%d:%s", m.Body, m.State, m.Attempts, until))
	}
	return strings.Join(words, " ")
}

func TestAPeekShowsTheStateOfEachMessage(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		ch := b.channel("t", "c")
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: time.Hour, Prefetch: 6})
		b.publish("t", "done", "held", "back", "later", "again")
		b.must(b.Publish("t", []millrace.Message{{Body: []byte("delayed"), Delay: time.Minute, Headers: millrace.Headers(nil).Append("k", "v")}}))
		b.publish("t", "fresh", "more")
		b.must(b.Publish("t", []millrace.Message{{Body: []byte("tomorrow"), Delay: 24 * time.Hour}}))
		receive(t, c, 5)
		b.must(c.NackSeqs(0, 5))
		wantDeliveries(t, receive(t, c, 1), "again@2")
		c.SetPrefetch(0)
		b.must(c.AckSeqs([]uint64{1}))
		b.must(c.NackSeqs(0, 3))
		b.must(c.NackSeqs(time.Minute, 4))
		const all = "held:in_flight:1:1h0m0s back:ready:1: later:deferred:1:1m0s again:in_flight:2:1h0m0s " +
			"delayed:deferred:0:1m0s fresh:ready:0: more:ready:0: tomorrow:deferred:0:24h0m0s"
		if got := b.look(ch, 0, 100); got != all {
			t.Errorf("got  %s\nwant %s", got, all)
		}
		for from, want := range map[uint64]string{
			3: strings.Join(strings.Fields(all)[1:4], " "),
			6: strings.Join(strings.Fields(all)[4:7], " "),
			9: strings.Join(strings.Fields(all)[7:], " "), 10: "",
		} {
			if got := b.look(ch, from, 3); got != want {
				t.Errorf("from %d: got %s, want %s", from, got, want)
			}
		}
		time.Sleep(time.Minute)
		if got, want := b.look(ch, 4, 3), "later:ready:1: again:in_flight:2:59m0s delayed:ready:0:"; got != want {
			t.Errorf("when their time has come: got %s, want %s", got, want)
		}
		if got, want := b.look(b.Lookup("t"), 1, 3), "done::0: held::0: back::0:"; got != want {
			t.Errorf("the topic holds %s, want %s", got, want)
		}
		if got, want := b.look(b.Lookup("t"), 6, 1), "delayed::0:"; got != want {
			t.Errorf("the topic holds %s, want %s", got, want)
		}
		ms, err := ch.Peek(6, 1)
		if err != nil || ms[0].Seq != 6 || ms[0].Headers.Text("k") != "v" || time.Since(time.Unix(0, ms[0].Published)) != time.Minute {
			t.Errorf("%+v, %v", ms, err)
		}
	})
}

// What has not come to a channel yet is in the topic alone; what was emptied, in no channel.
func TestAPeekShowsWhatTheChannelHasGot(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		ch := b.channel("t", "c")
		topic := b.Lookup("t")
		b.publish("t", "1")
		b.must(topic.Pause())
		b.publish("t", numbers(2, 202)...)
		if got := b.look(ch, 0, 1000); got != "1:ready:0:" {
			t.Errorf("while the topic is paused: %s", got)
		}
		if got := b.look(topic, 201, 1000); got != "201::0:" {
			t.Errorf("the paused topic: %s", got)
		}
		b.must(topic.Empty())
		b.publish("t", "202")
		b.must(topic.Unpause())
		if got := b.look(ch, 0, 1000); got != "1:ready:0: 202:ready:0:" {
			t.Errorf("after the topic was emptied: %s", got)
		}
		b.must(ch.Empty())
		if got := b.look(ch, 0, 1000); got != "" {
			t.Errorf("after the channel was emptied: %s", got)
		}
		b.must(b.DeleteTopic("t"))
		for _, from := range []interface {
			Peek(seq uint64, n int) ([]broker.Peeked, error)
		}{ch, topic} {
			if ms, err := from.Peek(0, 1); !errors.Is(err, millrace.ErrClosed) {
				t.Errorf("of what was deleted: %v, %v", ms, err)
			}
		}
	})
}

// Two brokers are treated alike, but one is peeked into all the time: it delivers the same in
// the same order, and its figures are the same. Its files stay as they are.
func TestAPeekChangesNothing(t *testing.T) {
	var seen [2]string
	for i := range seen {
		synctest.Test(t, func(t *testing.T) {
			disk := vfs.NewMem()
			b := open(t, broker.Options{Dir: "data"}.On(disk).WithSegments(2000))
			ch := b.channel("t", "c")
			peek := func() {
				if i == 1 {
					b.look(ch, 0, 1000)
					b.look(ch, 30, 7)
					b.look(b.Lookup("t"), 0, 1000)
				}
			}
			c := b.subscribe("t", "c", millrace.SubscribeOptions{Lease: time.Minute, Prefetch: 40})
			seen[i] = lead(t, b, ch, c, peek)
			time.Sleep(time.Hour) // until all leases have ended
			files := func() string {
				var all strings.Builder
				for _, file := range listFiles(t, disk, "data") {
					if !strings.HasSuffix(file, "LOCK") {
						fmt.Fprintf(&all, "%s: %x\n", file, contents(t, disk, file))
					}
				}
				return all.String()
			}
			before := files()
			peek()
			time.Sleep(time.Hour)
			if after := files(); before != after {
				t.Errorf("before a peek:\n%s\nafter:\n%s", before, after)
			}
		})
	}
	if seen[0] != seen[1] {
		t.Errorf("without a peek:\n%s\nwith:\n%s", seen[0], seen[1])
	}
}

// lead leads a channel through a life with everything in it, and says what was seen of it.
func lead(t *testing.T, b bench, ch *broker.Channel, c *broker.Consumer, peek func()) (seen string) {
	note := func(ds []millrace.Delivery) []millrace.Delivery {
		seen += fmt.Sprintf("%s %+v\n", describe(ds), ch.Stats())
		return ds
	}
	for round := range 10 {
		peek()
		b.publish("t", numbers(20*round, 20*round+20)...)
		b.must(b.Publish("t", []millrace.Message{{Body: []byte("delayed"), Delay: 90 * time.Second}}))
		peek()
		ds := note(receive(t, c, 20))
		peek()
		ack(t, c, ds[:12]...)
		b.must(c.Nack(t.Context(), 0, ds[12:15]...))
		b.must(c.Nack(t.Context(), time.Second, ds[15:17]...))
		peek()
		time.Sleep(31 * time.Second) // nothing becomes due, or loses its lease, just then
		peek()
	}
	c.SetPrefetch(1000)
	time.Sleep(time.Hour)
	peek()
	note(receive(t, c, int(ch.Depth().Ready)))
	peek()
	return seen
}

func TestAPeekIsBounded(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		ch := b.channel("t", "c")
		b.publish("t", slices.Repeat([]string{"x"}, 1200)...)
		for name, from := range map[string]interface {
			Peek(seq uint64, n int) ([]broker.Peeked, error)
		}{"channel": ch, "topic": b.Lookup("t")} {
			if ms, err := from.Peek(0, 5000); err != nil || len(ms) != broker.MaxPeek {
				t.Errorf("%s: %d messages, %v", name, len(ms), err)
			}
			for _, n := range []int{0, -1} {
				if ms, err := from.Peek(0, n); err != nil || len(ms) > 0 {
					t.Errorf("%s: %d messages of %d, %v", name, len(ms), n, err)
				}
			}
		}
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 2000})
		ack(t, c, receive(t, c, 1200)...)
		large := strings.Repeat("x", 1<<20)
		b.publish("t", large, large, large, large, large, large, large)
		receive(t, c, 3) // some in flight, some not delivered
		c.SetPrefetch(0)
		for seq, want := range map[uint64]int{0: 4, 1202: 4, 1204: 4, 1206: 2} {
			if ms, err := ch.Peek(seq, 100); err != nil || len(ms) != want {
				t.Errorf("%d messages of a megabyte from %d on, %v; want %d", len(ms), seq, err, want)
			}
		}
		if ms, err := b.Lookup("t").Peek(1201, 100); err != nil || len(ms) != 4 {
			t.Errorf("%d messages of a megabyte, %v", len(ms), err)
		}
	})
}

// A message that is too large for the bound is shown alone.
func TestAPeekShowsALargeMessage(t *testing.T) {
	inEveryKind(t, func(t *testing.T, b bench) {
		b.publish("t", strings.Repeat("x", 8<<20), "y")
		if ms, err := b.channel("t", "c").Peek(0, 10); err != nil || len(ms) != 1 || len(ms[0].Body) != 8<<20 {
			t.Errorf("%d messages, %v", len(ms), err)
		}
	})
}

// Whoever peeks while others consume sees messages, in their order, and no error.
func TestPeeksAmongConsumers(t *testing.T) {
	b := open(t, broker.Options{Dir: t.TempDir(), Sync: broker.SyncNever}.WithSegments(5000))
	ch := b.channel("t", "c")
	var consumers sync.WaitGroup
	for range 2 {
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		consumers.Go(func() {
			buf := make([]millrace.Delivery, 20)
			for {
				n, err := c.Receive(t.Context(), buf)
				if err != nil {
					return
				}
				for i, d := range buf[:n] {
					if d.Attempt == 1 && i%5 == 0 {
						_ = c.Nack(t.Context(), 0, d)
					} else {
						_ = c.Ack(t.Context(), d)
					}
				}
			}
		})
	}
	for i := range 300 {
		b.publish("t", numbers(10*i, 10*i+10)...)
		ms, err := ch.Peek(0, 50)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range ms {
			if string(m.Body) != fmt.Sprint(m.Seq-1) || m.State == "" || i > 0 && m.Seq <= ms[i-1].Seq {
				t.Errorf("%+v", m)
			}
		}
	}
	b.must(b.DeleteTopic("t"))
	consumers.Wait()
}

func TestAPeekSaysWhenTheDiskCannotBeRead(t *testing.T) {
	disk := vfs.NewMem()
	b := open(t, broker.Options{Dir: "data"}.On(disk))
	b.publish("t", "1")
	b.channel("t", "c")
	b.must(b.Close())
	var broken atomic.Bool
	b = open(t, broker.Options{Dir: "data"}.On(vfs.Inject(disk, func(op vfs.Op) error {
		if op.Kind == vfs.OpOpen && strings.HasSuffix(op.Name, ".seg") && broken.Load() {
			return syscall.EIO
		}
		return nil
	})))
	broken.Store(true)
	_, err := b.channel("t", "c").Peek(0, 1)
	_, topicErr := b.Lookup("t").Peek(0, 1)
	if !errors.Is(err, syscall.EIO) || !errors.Is(topicErr, syscall.EIO) {
		t.Errorf("%v; %v", err, topicErr)
	}
	wantSentence(t, err, "channel c of topic t: peek: ")
	wantSentence(t, topicErr, "peek into topic t: ")
}

// A message whose record is damaged is left out, and its neighbours are shown once.
func TestAPeekLeavesOutWhatIsDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "1", "2", "3", "4")
		b.must(c.Nack(t.Context(), time.Hour, receive(t, c, 4)...))
		b.must(b.Close())
		disk.FlipBit("data/topics/t.topic/0000000000000001.seg", 8*(128+34+20)) // in the second record
		b = open(t, broker.Options{Dir: "data", Logger: quiet()}.On(disk))
		if got, want := b.look(b.channel("t", "c"), 0, 10), "1:deferred:1:1h0m0s 3:deferred:1:1h0m0s 4:deferred:1:1h0m0s"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got, want := b.look(b.Lookup("t"), 0, 10), "1::0: 3::0: 4::0:"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// What was emptied is not read, however much it is, and nothing is copied that is not shown.
func TestAPeekReadsLittleMoreThanItShows(t *testing.T) {
	disk := vfs.NewMem()
	var read atomic.Int64
	opts := broker.Options{Dir: "data"}.WithSegments(100_000).On(vfs.Inject(disk, func(op vfs.Op) error {
		if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".seg") {
			read.Add(op.Len)
		}
		return nil
	}))
	b := open(t, opts)
	b.channel("t", "c")
	b.publish("t", "first")
	b.must(b.Lookup("t").Pause())
	for range 10 {
		b.publish("t", slices.Repeat([]string{strings.Repeat("x", 1000)}, 1000)...)
	}
	b.must(b.Lookup("t").Empty())
	b.publish("t", "last")
	b.must(b.Lookup("t").Unpause())
	b.must(b.Close())
	b = open(t, opts)
	read.Store(0)
	if got := b.look(b.channel("t", "c"), 0, 10); got != "first:ready:0: last:ready:0:" {
		t.Errorf("it sees %s", got)
	}
	if n := read.Load(); n > 200_000 {
		t.Errorf("it read %d bytes of 10 million that were emptied", n)
	}

	b = open(t, broker.Options{})
	ch := b.channel("t", "c")
	b.publish("t", slices.Repeat([]string{strings.Repeat("x", 1<<20)}, 50)...)
	c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 25})
	receive(t, c, 25)
	for _, from := range []uint64{0, 26} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if ms, err := ch.Peek(from, 100); err != nil || len(ms) != 4 {
			t.Errorf("%d messages, %v", len(ms), err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
			t.Errorf("from %d: %d bytes were allocated for 4 megabytes", from, n)
		}
	}
}

// What waits on the disk for its time is shown as well, with its time if it was published
// with that, and comes again with a replay.
func TestWhatIsDeferredForLongIsSeenAndReplayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, broker.Options{Dir: "data"}.WithNear(10).On(vfs.NewMem()))
		ch := b.channel("t", "c")
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
		for i := range 100 {
			b.must(b.Publish("t", []millrace.Message{{Body: []byte("delayed"), Delay: time.Duration(i+1) * time.Hour}}))
		}
		b.publish("t", slices.Repeat([]string{"plain"}, 100)...)
		for i, d := range receive(t, c, 100) {
			b.must(c.Nack(t.Context(), time.Duration(i+1)*time.Hour, d))
		}
		time.Sleep(time.Minute)
		ms, err := ch.Peek(0, 1000)
		if err != nil || len(ms) != 200 {
			t.Fatalf("%d messages, %v", len(ms), err)
		}
		known := 0
		for i, m := range ms {
			due := time.Until(time.Unix(0, m.Until)).Round(time.Hour)
			if m.State != broker.Deferred || i < 100 && due != time.Duration(i+1)*time.Hour {
				t.Errorf("message %d: %s until %v", m.Seq, m.State, due)
			}
			if m.Until != 0 {
				known++
			}
		}
		if known < 101 || known > 150 {
			t.Errorf("of %d messages it is known when their time comes", known)
		}
		if _, err := ch.Replay(1); err != nil {
			t.Fatal(err)
		}
		if got, want := ch.Depth(), (millrace.Depth{Ready: 100, Deferred: 100}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		for _, d := range receive(t, c, 100) {
			if string(d.Body) != "plain" || d.Attempt != 1 {
				t.Errorf("%s@%d", d.Body, d.Attempt)
			}
			ack(t, c, d)
		}
		for i := range 100 {
			ack(t, c, receiveWithin(t, 61*time.Minute, c, 1)...)
			if i == 50 {
				b.look(ch, 0, 1000)
			}
		}
		if got := ch.Depth(); got != (millrace.Depth{}) {
			t.Errorf("%+v", got)
		}
	})
}
