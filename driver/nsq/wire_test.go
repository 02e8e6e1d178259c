package nsq

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/nsqwire"
)

// Deliveries share the memory of what was read: it must not be used again.
func TestWhatIsKeptOfAFrameStaysAsItIs(t *testing.T) {
	var stream []byte
	want := make([]string, 300)
	for i := range want {
		want[i] = strings.Repeat(string(rune('a'+i%26)), 1+i*i%5000)
		stream = nsqwire.AppendFrame(stream, nsqwire.FrameMessage, want[i])
		stream = nsqwire.AppendFrame(stream, nsqwire.FrameResponse, nsqwire.Heartbeat)
	}
	for name, src := range map[string]io.Reader{"all": bytes.NewReader(stream), "bytes": iotest.OneByteReader(bytes.NewReader(stream)), "halves": iotest.HalfReader(bytes.NewReader(stream))} {
		f := frames{src: src, before: func() {}}
		var kept [][]byte
		for {
			kind, data, err := f.next()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				break
			}
			if kind == nsqwire.FrameMessage {
				f.keep()
				kept = append(kept, data)
			} else if string(data) != nsqwire.Heartbeat {
				t.Fatalf("%s: %q", name, data)
			}
		}
		if len(kept) != len(want) {
			t.Fatalf("%s: %d messages, want %d", name, len(kept), len(want))
		}
		for i := range kept {
			if string(kept[i]) != want[i] {
				t.Errorf("%s: message %d has become %.20q", name, i, kept[i])
			}
		}
	}
}

// An idle connection, whose frames nobody keeps, needs no more memory than its first block.
func TestHeartbeatsUseTheSameMemoryAgain(t *testing.T) {
	stream := bytes.Repeat(nsqwire.AppendFrame(nil, nsqwire.FrameResponse, nsqwire.Heartbeat), 1000)
	f := frames{src: iotest.OneByteReader(bytes.NewReader(stream)), before: func() {}}
	for range 1000 {
		if _, _, err := f.next(); err != nil {
			t.Fatal(err)
		}
	}
	if len(f.block) != minBlock {
		t.Errorf("the block has %d bytes", len(f.block))
	}
}

// The last of several windows counts; what stands between them stays in its place.
func TestCommandsAreWrittenInTheirOrderAndOneWindowForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		o := newOutbox(ours, func() {})
		o.add([]byte("NOP\n"))
		synctest.Wait() // the writer is busy with that
		for _, s := range []string{"RDY 1\n", "RDY 2\n", "FIN a\n", "RDY 30\n", "RDY 4\n", "FIN b\n"} {
			if strings.HasPrefix(s, "RDY") {
				o.addReady([]byte(s))
			} else {
				o.add([]byte(s))
			}
		}
		go func() { o.close(); _ = ours.Close() }()
		got, err := io.ReadAll(theirs)
		if want := "NOP\nRDY 2\nFIN a\nRDY 4\nFIN b\n"; err != nil || string(got) != want {
			t.Errorf("%q (%v), want %q", got, err, want)
		}
		o.add([]byte("late\n")) // and nothing happens
	})
}

// A publisher that waits for room is let go when the connection ends.
func TestAnOutboxThatIsFullSaysWhenItIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		o := newOutbox(ours, func() {})
		o.add([]byte("x"))
		synctest.Wait()
		if o.full() != nil {
			t.Error("full with one byte under way")
		}
		o.add(make([]byte, maxPending))
		room := o.full()
		if room == nil {
			t.Fatal("not full")
		}
		_ = theirs.Close()
		<-room
		if o.full() != nil {
			t.Error("full after its end")
		}
		o.close()
	})
}

// A node that says nothing any more, not even heartbeats, is dead; so is one that reads
// nothing.
func TestASilentNodeIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := &conn{net: ours}
		c.talk(ours)
		start := time.Now()
		go func() {
			time.Sleep(silence - time.Second)
			_, _ = theirs.Write(nsqwire.AppendFrame(nil, nsqwire.FrameResponse, nsqwire.Heartbeat))
		}()
		if _, _, err := c.in.next(); err != nil {
			t.Fatal(err)
		}
		_, _, err := c.in.next()
		if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took != 2*silence-time.Second {
			t.Errorf("%v after %v", err, took)
		}
		c.out.add([]byte("NOP\n"))
		start = time.Now()
		<-c.out.done
		if took := time.Since(start); took != silence {
			t.Errorf("writing was given up after %v", took)
		}
		c.close()
	})
}
