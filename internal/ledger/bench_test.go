package ledger

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

// One Deliver and one Ack, with so many others in flight.
func BenchmarkInOrder(b *testing.B) {
	for _, inFlight := range []uint64{0, 64, 4096} {
		b.Run(fmt.Sprint(inFlight), func(b *testing.B) {
			l := New(1)
			b.ReportAllocs()
			for seq := uint64(1); b.Loop(); seq++ {
				l.Deliver(seq, int64(seq), 1)
				if seq > inFlight {
					l.Ack(seq-inFlight, 1)
				}
			}
		})
	}
}

// The same, journaled as often as ten times for each batch of a subscription.
func BenchmarkInOrderJournaled(b *testing.B) {
	l := New(1)
	var journal []byte
	bytes := 0
	b.ReportAllocs()
	for seq := uint64(1); b.Loop(); seq++ {
		l.Deliver(seq, int64(seq), 1)
		if seq > 1000 {
			l.Ack(seq-1000, 1)
		}
		if seq%100 == 0 {
			journal = l.AppendJournal(journal[:0])
			bytes += len(journal)
		}
	}
	b.ReportMetric(float64(bytes)/float64(b.N), "journal-B/op")
}

// Deliveries in order, acks in random order within the next 4096.
func BenchmarkNearOrder(b *testing.B) {
	const window = 4096
	order := rand.New(rand.NewPCG(1, 2)).Perm(window)
	l := New(0)
	var journal []byte
	bytes := 0
	b.ReportAllocs()
	seq := uint64(0)
	for ; seq < window; seq++ {
		l.Deliver(seq, int64(seq), 1)
	}
	for b.Loop() {
		l.Deliver(seq, int64(seq), 1)
		l.Ack(seq/window*window-window+uint64(order[seq%window]), 1)
		seq++
		if seq%1000 == 0 {
			journal = l.AppendJournal(journal[:0])
			bytes += len(journal)
		}
	}
	b.ReportMetric(float64(bytes)/float64(b.N), "journal-B/op")
}

// Ten million acks above one message that stays in flight, or one in each block.
func BenchmarkStuckFloor(b *testing.B) {
	const messages = 10_000_000
	for _, bench := range []struct {
		name  string
		every uint64
	}{{"one", messages}, {"one-in-4096", 4096}} {
		b.Run(bench.name, func(b *testing.B) {
			var used, snapshot int
			for b.Loop() {
				before := heap()
				l := New(1)
				for seq := uint64(1); seq <= messages; seq++ {
					if l.Deliver(seq, 1, 1); seq%bench.every != 1 {
						l.Ack(seq, 1)
					}
				}
				used = heap() - before
				snapshot = len(l.AppendSnapshot(nil))
				runtime.KeepAlive(l)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/messages, "ns/msg")
			b.ReportMetric(float64(used), "heap-B")
			b.ReportMetric(float64(snapshot), "snapshot-B")
		})
	}
}

func heap() int {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc)
}
