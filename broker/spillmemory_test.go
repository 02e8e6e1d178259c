package broker_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// heap is what is in use, in MB.
func heap() int {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc >> 20)
}

// wantHeap waits until no more than so many MB are in use beyond what was before. What a
// housekeeper works with counts while it works, and what it has just let go of: a collection
// keeps what was made while it ran. So the heap is what it is when nobody works, however
// late that is on a busy machine.
func wantHeap(t *testing.T, before, most int) {
	t.Helper()
	used := heap() - before
	for until := time.Now().Add(20 * time.Second); used > most; used = heap() - before {
		if time.Now().After(until) {
			t.Errorf("%d MB are used, want at most %d", used, most)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("%d MB are used", used)
}

// Two million messages wait until tomorrow.
func TestWhatIsDeferredForLongTakesNoMemory(t *testing.T) {
	const batch = 1000
	messages := int64(2_000_000)
	if raceDetector {
		messages /= 10
	}
	opts := broker.Options{Dir: t.TempDir(), Sync: broker.SyncNever}
	before := heap()
	b := open(t, opts)
	b.channel("t", "a")
	msgs := make([]millrace.Message, batch)
	for i := range int(messages / batch) {
		for j := range msgs {
			msgs[j] = millrace.Message{Body: []byte("later"), Delay: 24*time.Hour + time.Duration((i*7919+j*31)%100_000)*time.Millisecond}
		}
		b.must(b.Publish("t", msgs))
	}
	want := millrace.Depth{Deferred: messages}
	b.wantDepth("a", want)
	const tail = 16 // MB of recent messages that the logs keep
	wantHeap(t, before, tail+20)
	b.must(b.Close())
	before = heap()
	start := time.Now()
	b = open(t, opts)
	took := time.Since(start)
	b.wantDepth("a", want)
	wantHeap(t, before, 16)
	t.Logf("to open it again takes %v", took)
	if took > 2*time.Second {
		t.Errorf("to open it took %v", took)
	}
}
