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
	if used := heap() - before; used > tail+30 {
		t.Errorf("%d MB are used", used)
	}
	b.must(b.Close())
	before = heap()
	start := time.Now()
	b = open(t, opts)
	took := time.Since(start)
	b.wantDepth("a", want)
	used := heap() - before
	t.Logf("to open it again takes %v and %d MB", took, used)
	if used > 20 {
		t.Errorf("%d MB are used after a restart", used)
	}
	if took > 2*time.Second {
		t.Errorf("to open it took %v", took)
	}
}
