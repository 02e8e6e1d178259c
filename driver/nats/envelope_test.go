package nats

import (
	"bytes"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	natsio "github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/millrace/millrace"
)

func pairs(h millrace.Headers) []string {
	var all []string
	for key, value := range h.All() {
		all = append(all, key+"\x00"+value)
	}
	return all
}

// Headers arrive as they were, whatever bytes they have, and what carries them is plain
// text that anybody's query parser reads the same way.
func TestHeadersArriveAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h millrace.Headers
		want := map[string][]string{}
		for range rapid.IntRange(1, 6).Draw(t, "pairs") {
			key, value := string(rapid.SliceOf(rapid.Byte()).Draw(t, "key")), string(rapid.SliceOf(rapid.Byte()).Draw(t, "value"))
			h = h.Append(key, value)
			want[key] = append(want[key], value)
		}
		text := encodeHeaders(h)
		if got := decodeHeaders(text); !bytes.Equal(got, h) {
			t.Errorf("%q became %q by way of %q", pairs(h), pairs(got), text)
		}
		for i := range len(text) {
			if text[i] <= ' ' || text[i] >= 0x7f {
				t.Errorf("%q has byte %#x", text, text[i])
			}
		}
		values, err := url.ParseQuery(text)
		if err != nil {
			t.Error(err)
		}
		for key, all := range want {
			if !slices.Equal(values[key], all) {
				t.Errorf("url.ParseQuery(%q)[%q] is %q, want %q", text, key, values[key], all)
			}
		}
	})
}

func TestHeadersOfOtherProgramsAreRead(t *testing.T) {
	for text, want := range map[string][]string{
		"":                     nil,
		"id=7&reply-to=a.b":    {"id\x007", "reply-to\x00a.b"},
		"words=a+b%20c":        {"words\x00a b c"},
		"id=a=b":               {"id\x00a=b"},
		"empty=&id=1":          {"empty\x00", "id\x001"},
		"größe=ä":              {"größe\x00ä"},
		"id=%6a%6F%62&x=%c3%A": nil, // cannot be read
		"id":                   nil,
		"id=1&&x=2":            nil,
		"=%":                   nil,
	} {
		h := decodeHeaders(text)
		if want == nil && text != "" {
			if h.Check() == nil {
				t.Errorf("%q passes as headers: %q", text, pairs(h))
			}
			continue
		}
		if h.Check() != nil || !slices.Equal(pairs(h), want) {
			t.Errorf("%q: %q, want %q", text, pairs(h), want)
		}
	}
}

func FuzzDecodeHeaders(f *testing.F) {
	f.Add("id=7&reply-to=a.b")
	f.Add("%")
	f.Fuzz(func(t *testing.T, text string) {
		h := decodeHeaders(text)
		if h.Check() != nil {
			return // it is foreign
		}
		if again := decodeHeaders(encodeHeaders(h)); !bytes.Equal(again, h) {
			t.Errorf("%q: %q became %q", text, pairs(h), pairs(again))
		}
	})
}

func TestAckSubjectsAreRead(t *testing.T) {
	want := ackInfo{delivered: 3, seq: 41, published: 1700000000000000000}
	for _, subject := range []string{
		"$JS.ACK.MILLRACE_q.work.3.41.57.1700000000000000000.9",
		"$JS.ACK.hub.ACCHASH.MILLRACE_q.work.3.41.57.1700000000000000000.9",
		"$JS.ACK._.ACCHASH.MILLRACE_q.work.3.41.57.1700000000000000000.9.rnd",
	} {
		if got, ok := parseAck(subject); !ok || got != want {
			t.Errorf("%s: %+v %v", subject, got, ok)
		}
	}
	for _, subject := range []string{
		"", "_INBOX.x", "$JS.ACK.", "$JS.ACK.s.c.3.41.57.x.9", "$JS.ACK.s.c.x.41.57.1.9", "$JS.ACK.s.c.3.41.57.1.9.9",
		"$JS.ACK" + strings.Repeat(".1", 12),
	} {
		if got, ok := parseAck(subject); ok {
			t.Errorf("%s: %+v", subject, got)
		}
	}
}

// A message with a delay that comes too early is told to wait for the rest of it, and its
// first delivery, which its consumer has not seen, is not counted.
func TestADelayedMessageSaysHowLongItWaits(t *testing.T) {
	published := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		delay     string
		delivered string
		after     time.Duration
		early     time.Duration
		attempt   uint32
	}{
		{"", "1", 0, 0, 1},
		{"", "2", 0, 0, 2},
		{"10s", "1", time.Second, 9 * time.Second, 1},
		{"10s", "2", 11 * time.Second, -time.Second, 1},
		{"10s", "3", 11 * time.Second, -time.Second, 2},
		{"-10s", "2", 0, 0, 2},
		{"soon", "2", 0, 0, 2},
	} {
		m := natsio.Msg{Header: natsio.Header{}, Data: []byte("x"), Reply: "$JS.ACK.s.c." + c.delivered + ".41.57.1700000000000000000.9"}
		if c.delay != "" {
			m.Header.Set(HeaderDelay, c.delay)
		}
		a, ok := unwrap(&m, published.Add(c.after))
		if !ok || a.early != c.early || a.Attempt != c.attempt {
			t.Errorf("%+v: early by %v, attempt %d, %v", c, a.early, a.Attempt, ok)
		}
	}
}

// What a message takes is counted as the client writes it.
func TestEncloseTellsTheSizeOfHeaders(t *testing.T) {
	h := natsio.Header{"Left": {"over"}}
	m := millrace.Message{Headers: millrace.Headers(nil).Append("id", "a b"), Delay: 90 * time.Second}
	got := enclose(h, &m, "ID")
	want := len("NATS/1.0\r\nNats-Msg-Id: ID\r\nMR1: id=a%20b\r\nMR1-Delay: 1m30s\r\n\r\n")
	if got != want || len(h) != 3 {
		t.Errorf("%d bytes in %v, want %d", got, h, want)
	}
}
