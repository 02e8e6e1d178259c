package task

import (
	"bytes"
	"strings"
	"testing"
)

func feedCapture(c *capture, data []byte) {
	for len(data) > 0 {
		n := copy(c.room(), data)
		c.add(n)
		data = data[n:]
	}
}

func TestCaptureKeepsEveryByteUpToItsLimit(t *testing.T) {
	for _, size := range []int{0, 1, readSize / 2, readSize/2 + 1, readSize, 3*readSize + 7, 1 << 20} {
		data := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
		c := capture{limit: 1 << 20}
		feedCapture(&c, data)
		if c.over {
			t.Errorf("%d bytes are said to be over the limit", size)
		}
		if got := c.take(); !bytes.Equal(got, data) {
			t.Errorf("of %d bytes %d came back", size, len(got))
		}
	}
}

func TestCaptureOverItsLimitHoldsNoMoreMemory(t *testing.T) {
	c := capture{limit: 1 << 20}
	feedCapture(&c, make([]byte, 20<<20))
	if !c.over {
		t.Error("20 MiB are not over a limit of 1 MiB")
	}
	if cap(c.buf) > 4<<20 {
		t.Errorf("holds %d bytes", cap(c.buf))
	}
}

func TestAResultDoesNotShareMemoryWithTheNext(t *testing.T) {
	c := capture{limit: 1 << 20}
	feedCapture(&c, []byte("first"))
	first := c.take()
	c.reset()
	feedCapture(&c, []byte("other"))
	if string(first) != "first" {
		t.Errorf("the first result became %q", first)
	}
}

func TestTailKeepsTheEndAndSaysWhatIsMissing(t *testing.T) {
	tail := tail{limit: 10}
	var all strings.Builder
	for i := range 100 {
		piece := strings.Repeat(string(rune('a'+i%26)), i%7)
		all.WriteString(piece)
		tail.add([]byte(piece))
		whole := all.String()
		got := tail.text()
		if len(whole) <= 10 {
			if got != whole {
				t.Fatalf("%q of %q", got, whole)
			}
			continue
		}
		if first, end, _ := strings.Cut(got, "\n"); end != whole[len(whole)-10:] || !strings.Contains(first, "bytes before this are left out") {
			t.Fatalf("%q of %q", got, whole)
		}
	}
	if got := string(tail.last(4)); !strings.HasSuffix(all.String(), got) || len(got) != 4 {
		t.Errorf("the last 4 are %q", got)
	}
	if cap(tail.buf) > 64 {
		t.Errorf("holds %d bytes", cap(tail.buf))
	}
}
