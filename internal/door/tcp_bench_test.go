package door

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

const okSize = 10 // bytes of the frame

// The buffers of a connection are there before its messages are.
func TestNothingIsAllocatedForEachMessage(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const rounds, run = 100, 100
	d := serveTCP(t, Config{})
	p, c := d.dial(), d.dial()
	c.send("SUB t c\nRDY 2500\n")
	c.want("OK")
	work := []byte(strings.Repeat(pub("t", strings.Repeat("x", 200)), run))
	fins := make([]byte, 0, run*21)
	frame := make([]byte, 8+26+200)
	oks := make([]byte, run*okSize)
	round := func() {
		_, _ = p.Write(work)
		_, _ = io.ReadFull(p.Conn, oks)
		fins = fins[:0]
		for range run {
			_, _ = io.ReadFull(c.in, frame)
			fins = append(append(append(fins, "FIN "...), frame[18:34]...), '\n')
		}
		_, _ = c.Write(fins)
	}
	for range rounds {
		round()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		round()
	}
	runtime.ReadMemStats(&after)
	if each := float64(after.Mallocs-before.Mallocs) / (rounds * run); each > 0.5 {
		t.Errorf("%.2f allocations a message, want next to none", each)
	} else {
		t.Logf("%.3f allocations a message", each)
	}
}

// serveFiles opens a door to a broker in files, which syncs them as nsqd does.
func serveFiles(b *testing.B) *tcpDoor {
	b.Helper()
	br, err := broker.Open(broker.Options{Dir: b.TempDir(), Sync: 2 * time.Second, Logger: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = br.Close() })
	return serveTCPOf(b, br, Config{})
}

func BenchmarkPublish(b *testing.B) {
	for _, batch := range []int{1, 200} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			c := serveFiles(b).dial()
			_ = c.SetDeadline(time.Time{})
			bodies := make([]string, batch)
			for i := range bodies {
				bodies[i] = strings.Repeat("x", 200)
			}
			command := []byte(mpub("t", bodies...))
			var ok [okSize]byte
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += batch {
				if _, err := c.Write(command); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c.Conn, ok[:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkConsume finishes what it gets.
func BenchmarkConsume(b *testing.B) {
	d := serveFiles(b)
	bodies := make([]millrace.Message, 1000)
	for i := range bodies {
		bodies[i].Body = []byte(strings.Repeat("x", 200))
	}
	for range b.N/len(bodies) + 1 {
		if err := d.broker.Publish("t", bodies); err != nil {
			b.Fatal(err)
		}
	}
	c := d.dial()
	_ = c.SetDeadline(time.Time{})
	c.send("SUB t c\nRDY 2500\n")
	c.want("OK")
	frame := make([]byte, 8+26+200)
	var fins []byte
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := io.ReadFull(c.in, frame); err != nil {
			b.Fatal(err)
		}
		fins = append(append(append(fins, "FIN "...), frame[18:34]...), '\n')
		if len(fins) > 4000 {
			_, _ = c.Write(fins)
			fins = fins[:0]
		}
	}
}
