package broker_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

func TestAFullDiskRefusesPublishingAndConsumingGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data", Logger: quiet()}.On(disk).WithSegments(1000))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
		d := b.subscribe("t", "d", millrace.SubscribeOptions{Prefetch: 1000})
		disk.SetFree(3000)
		var accepted []string
		for i := 0; ; i++ {
			err := b.Publish("t", messages(fmt.Sprint(i)))
			if err == nil {
				accepted = append(accepted, fmt.Sprintf("%d@1", i))
				continue
			}
			if !errors.Is(err, millrace.ErrNoSpace) {
				t.Fatal(err)
			}
			wantSentence(t, err, "publish to topic t", "no space left")
			break
		}
		if len(accepted) < 10 {
			t.Fatalf("only %d messages fit", len(accepted))
		}
		if _, err := b.Channel("t", "new"); !errors.Is(err, millrace.ErrNoSpace) {
			t.Errorf("create a channel: %v", err)
		}
		if _, err := b.Topic("new"); err != nil && !errors.Is(err, millrace.ErrNoSpace) {
			t.Errorf("create a topic: %v", err)
		}
		// Acks, delivery and deletion go on.
		got := receive(t, c, len(accepted))
		wantDeliveries(t, got, strings.Join(accepted, " "))
		ack(t, c, got...)
		if err := b.DeleteChannel("t", "c"); err != nil {
			t.Errorf("delete a channel: %v", err)
		}
		got = receive(t, d, len(accepted))
		wantDeliveries(t, got, strings.Join(accepted, " "))
		ack(t, d, got[:len(got)-1]...)
		// What was consumed makes room by itself.
		time.Sleep(3 * time.Second)
		b.publish("t", "later")
		wantDeliveries(t, receive(t, d, 1), "later@1")

		disk = disk.Crash()
		disk.SetFree(1 << 20)
		b = open(t, broker.Options{Dir: "data", Logger: quiet()}.On(disk))
		left := map[string]bool{}
		for _, body := range drain(t, b.Broker, "t", "d") {
			left[body] = true
		}
		if last := strings.TrimSuffix(accepted[len(accepted)-1], "@1"); !left[last] || !left["later"] {
			t.Errorf("%s and later were accepted and not acked; left is %v", last, left)
		}
	})
}

// The last channel's end is written where there was room for it all the time.
func TestTheLastChannelCanBeDeletedOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data", Logger: quiet()}.On(disk))
		b.publish("t", "a")
		b.subscribe("t", "c", millrace.SubscribeOptions{})
		disk.SetFree(0)
		if err := b.DeleteChannel("t", "c"); err != nil {
			t.Error(err)
		}
		crashed := disk.Crash()
		disk.SetFree(1 << 20) // for the footer, when the broker is closed
		crashed.SetFree(1 << 20)
		b = open(t, broker.Options{Dir: "data"}.On(crashed))
		nothing(t, b.subscribe("t", "d", millrace.SubscribeOptions{}), time.Hour)
	})
}

func TestABrokerInMemoryHoldsNoMoreThanItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 8 << 20
		b := open(t, broker.Options{MaxMemory: limit})
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1 << 20})
		body := strings.Repeat("x", 10_000)
		n := 0
		for err := error(nil); err == nil; n++ {
			if err = b.Publish("t", messages(body)); err != nil && !errors.Is(err, millrace.ErrNoSpace) {
				t.Fatal(err)
			}
		}
		if held := b.MemoryHeld(); held > limit || held < limit-20_000 {
			t.Errorf("it holds %d bytes, the limit is %d", held, limit)
		}
		ds := receive(t, c, n-1)
		ack(t, c, ds[:n/2]...)
		time.Sleep(time.Second)
		if held := b.MemoryHeld(); held > limit*6/10+1<<20 {
			t.Errorf("half of it is consumed, and it holds %d bytes of %d", held, limit)
		}
		b.publish("t", body)
		ack(t, c, ds[n/2:]...)
		ack(t, c, receive(t, c, 1)...)
		time.Sleep(time.Second)
		if held := b.MemoryHeld(); held > 1<<20+10_100 {
			t.Errorf("all is consumed, and it holds %d bytes", held)
		}
	})
}

func TestRefusedAndFailedPublishesHoldNoMemory(t *testing.T) {
	b := open(t, broker.Options{MaxMemory: 1 << 20, MaxMessage: 1 << 18})
	for range 10 {
		tooLarge := b.Publish("t", messages("ok", strings.Repeat("x", 1<<18+1)))
		alone := b.Publish("t", messages(strings.Repeat("x", 2<<18)))
		if !errors.Is(tooLarge, millrace.ErrTooLarge) || !errors.Is(alone, millrace.ErrTooLarge) {
			t.Errorf("%v, %v", tooLarge, alone)
		}
	}
	quarter := strings.Repeat("x", 1<<18)
	if err := b.Publish("t", messages(quarter, quarter, quarter, quarter)); !errors.Is(err, millrace.ErrNoSpace) {
		t.Error(err)
	}
	if held := b.MemoryHeld(); held != 0 {
		t.Errorf("%d bytes", held)
	}
	// Deleted while it is published to: the count comes out even.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 300 {
				b.publish("t", "a", "b")
				if i%10 == 0 {
					if err := b.DeleteTopic("t"); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	_ = b.DeleteTopic("t")
	if held := b.MemoryHeld(); held != 0 {
		t.Errorf("%d bytes", held)
	}
}

// Consumed segments go, also those behind one in which a message is stuck.
func TestConsumedSegmentsGoAlsoFromTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk).WithSegments(1000))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000, Lease: time.Hour})
		segments := func() int {
			time.Sleep(time.Second)
			n := 0
			for _, file := range listFiles(t, disk, "data") {
				if strings.HasSuffix(file, ".seg") {
					n++
				}
			}
			return n
		}
		b.publish("t", numbers(0, 200)...)
		ds := receive(t, c, 200)
		full := segments()
		if full < 5 {
			t.Fatalf("%d segments", full)
		}
		ack(t, c, ds[:100]...)
		if n := segments(); n > full/2+2 {
			t.Errorf("%d of %d segments are left when half is consumed", n, full)
		}
		ack(t, c, ds[101:]...) // the 101st is stuck
		if n := segments(); n != 2 {
			t.Errorf("%d segments are left for one message and the last segment", n)
		}
		if err := c.Nack(t.Context(), 0, ds[100]); err != nil {
			t.Error(err)
		}
		wantDeliveries(t, receive(t, c, 1), "100@2")
		// A channel that is far behind keeps all it needs; when it goes, so does that.
		b.subscribe("t", "behind", millrace.SubscribeOptions{})
		b.publish("t", numbers(0, 200)...)
		ack(t, c, receive(t, c, 200)...)
		if n := segments(); n < full {
			t.Errorf("%d segments are left of %d that a channel needs", n, full)
		}
		if err := b.DeleteChannel("t", "behind"); err != nil {
			t.Error(err)
		}
		if n := segments(); n != 2 {
			t.Errorf("%d segments are left after the channel went that needed them", n)
		}
	})
}

// What waits for its first channel is nobody's to remove.
func TestABacklogWithoutChannelsStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk).WithSegments(1000))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{})
		b.publish("t", "x")
		ack(t, c, receive(t, c, 1)...)
		synctest.Wait() // the housekeeper has been there, and rests
		if err := b.DeleteChannel("t", "c"); err != nil {
			t.Fatal(err)
		}
		b.publish("t", numbers(0, 200)...)
		time.Sleep(time.Second)
		if got := drain(t, b.Broker, "t", "d"); len(got) != 200 {
			t.Errorf("%d of 200 messages came", len(got))
		}
	})
}

// A million messages go through a broker in files with its consumer beside it.
func TestAMillionMessagesTakeLittleDiskAndMemory(t *testing.T) {
	runtime.GC() // what other tests have left is not meant
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir, Sync: broker.SyncNever})
	c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 4096})
	const total, batch = 1_000_000, 500
	window := make(chan struct{}, 200) // of batches that are published and not consumed
	go func() {
		msgs := make([]millrace.Message, batch)
		for i := range msgs {
			msgs[i].Body = make([]byte, 200)
		}
		for i := 0; i < total; i += batch {
			window <- struct{}{}
			if i%(10*batch) == 0 {
				time.Sleep(4 * time.Millisecond) // a million a second
			}
			if err := b.Publish("t", msgs); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var disk, memory int64
	buf := make([]millrace.Delivery, 1000)
	for got, look := 0, 0; got < total; {
		n, err := c.Receive(t.Context(), buf)
		if err != nil {
			t.Fatal(err)
		}
		ack(t, c, buf[:n]...)
		for i := got / batch; i < (got+n)/batch; i++ {
			<-window
		}
		if got += n; got > look {
			look += total / 50
			disk = max(disk, sizeOf(t, dir))
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			memory = max(memory, int64(m.HeapInuse))
		}
	}
	t.Logf("%d messages of 200 bytes: at most %d MB on disk, %d MB of heap", total, disk>>20, memory>>20)
	if disk > 150<<20 || memory > 150<<20 {
		t.Errorf("at most %d MB on disk and %d MB of heap", disk>>20, memory>>20)
	}
}

func sizeOf(t *testing.T, dir string) int64 {
	var n int64
	_ = filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}

// Channels in memory and ephemeral ones have no journal, and keep none in memory.
func TestRedeliveriesLeaveNothingBehindInMemory(t *testing.T) {
	b := open(t, broker.Options{})
	c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 1000})
	b.publish("t", numbers(0, 1000)...)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	redeliver := func(rounds int) {
		for range rounds {
			if err := c.Nack(t.Context(), 0, receive(t, c, 1000)...); err != nil {
				t.Fatal(err)
			}
		}
	}
	redeliver(50)
	time.Sleep(200 * time.Millisecond)
	before := heap()
	redeliver(200)
	grown := heap() - before
	for range 50 { // the housekeeper may be late on a busy machine
		if grown < 1<<20 {
			return
		}
		time.Sleep(100 * time.Millisecond)
		grown = heap() - before
	}
	t.Errorf("200 000 redeliveries hold %d bytes", grown)
}
