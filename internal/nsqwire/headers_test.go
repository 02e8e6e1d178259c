package nsqwire_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/nsqwire"
)

// payload is what a message is on NSQ's wire.
func payload(h millrace.Headers, body []byte) []byte {
	return append(nsqwire.AppendLine(nil, h, body), body...)
}

func headers(pairs ...string) (h millrace.Headers) {
	for i := 0; i < len(pairs); i += 2 {
		h = h.Append(pairs[i], pairs[i+1])
	}
	return h
}

func TestHeadersAreALineOfJSON(t *testing.T) {
	for _, c := range []struct {
		headers millrace.Headers
		body    string
		want    string
	}{
		{headers("id", "job-7", "reply-to", "reply.x"), "body", `MR1 {"id":"job-7","reply-to":"reply.x"}` + "\nbody"},
		{headers("twice", "a", "twice", "b", "", ""), "", `MR1 {"twice":"a","twice":"b","":""}` + "\n"},
		{headers("k", "\"\\/\x00\x1f\n\x7f"), "\n", `MR1 {"k":"\"\\/\u0000\u001f\u000a` + "\x7f\"}\n\n"},
		{headers("größer", "漢字\u2028\ufffd"), "x", `MR1 {"größer":"漢字` + "\u2028\ufffd\"}\nx"},
		{headers("\xff", "a\x80é\xc3"), "x", `MR1 {"\udcff":"a\udc80é\udcc3"}` + "\nx"},
		{nil, "body", "body"},
		{nil, "", "MR1 {}\n"},
		{nil, "MR1 {}", "MR1 {}"},
		{nil, "MR1 {}\nbody", "MR1 {}\nbody"},
		{nil, "MR1 {}\n", "MR1 {}\nMR1 {}\n"},
		{nil, `MR1 {"a":"b"}` + "\nbody", "MR1 {}\n" + `MR1 {"a":"b"}` + "\nbody"},
		{headers("a", "b"), `MR1 {"a":"b"}` + "\n", `MR1 {"a":"b"}` + "\n" + `MR1 {"a":"b"}` + "\n"},
	} {
		got := payload(c.headers, []byte(c.body))
		if string(got) != c.want {
			t.Errorf("headers %q, body %q: payload %q, want %q", c.headers, c.body, got, c.want)
		}
		if line, _, ok := bytes.Cut(got, []byte("\n")); ok && len(c.headers) > 0 && !json.Valid(line[len("MR1 "):]) {
			t.Errorf("not JSON: %q", line)
		}
		_, h, body := nsqwire.CutHeaders(nil, got)
		if string(h) != string(c.headers) || string(body) != c.body {
			t.Errorf("payload %q: headers %q and body %q", got, h, body)
		}
	}
}

// What is not written as we write it is part of somebody's body.
func TestWhatMerelyLooksLikeALineStaysInTheBody(t *testing.T) {
	for _, p := range []string{
		"MR1 ", "MR1 {", "MR1 {}", "MR1 {}\r\n", "MR1 {}\nbody", "MR1 {} \n", "MR2 {\"a\":\"b\"}\n", "mr1 {\"a\":\"b\"}\n",
		`MR1 {"a":"b"}`, `MR1 {"a":"b"} ` + "\n", `MR1 { "a":"b"}` + "\n", `MR1 {"a": "b"}` + "\n", `MR1 {"a":"b",}` + "\n",
		`MR1 {"a":"b" }` + "\n", `MR1 {"a"}` + "\n", `MR1 {"a","b"}` + "\n", `MR1 {"a":"b":"c"}` + "\n", `MR1 {,}` + "\n",
		`MR1 {"a":1}` + "\n", `MR1 {"a":null}` + "\n", `MR1 {"a":["b"]}` + "\n", `MR1 ["a"]` + "\n", `MR1 {"a":"b"}{"a":"b"}` + "\n",
		`MR1 {"a":"\n"}` + "\n", `MR1 {"a":"\/"}` + "\n", `MR1 {"a":"\u0041"}` + "\n", `MR1 {"a":"\u001F"}` + "\n",
		`MR1 {"a":"\u00ff"}` + "\n", `MR1 {"a":"\udc41"}` + "\n", `MR1 {"a":"\uDCFF"}` + "\n", `MR1 {"a":"\u0"}` + "\n",
		`MR1 {"a":"\udcc3\udca9"}` + "\n", // é
		"MR1 {\"a\":\"\xff\"}\n", "MR1 {\"a\":\"\n\"}\n", "MR1 {\"a\":\"b\n", `MR1 {"a":"b\"}` + "\n",
		"MR1 {}\nMR1 {}\nbody", "MR1 {}\n" + `MR1 {"a": "b"}` + "\n",
	} {
		_, h, body := nsqwire.CutHeaders(nil, []byte(p))
		if h != nil || string(body) != p {
			t.Errorf("%q: headers %q, body %q", p, h, body)
		}
		if got := payload(nil, []byte(p)); string(got) != p {
			t.Errorf("%q became %q", p, got)
		}
	}
}

func TestEveryMessageHasItsPayload(t *testing.T) {
	text := rapid.OneOf(
		rapid.String(),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		rapid.SampledFrom([]string{"", "\xc3", "\xa9", "é", `\`, `"`, `\udcc3`, "\x00"}),
	)
	rapid.Check(t, func(t *rapid.T) {
		var h millrace.Headers
		for range rapid.IntRange(0, 4).Draw(t, "pairs") {
			h = h.Append(text.Draw(t, "key")+text.Draw(t, "more"), text.Draw(t, "value"))
		}
		body := []byte(text.Draw(t, "body"))
		for range rapid.IntRange(0, 3).Draw(t, "lines") {
			inner := millrace.Headers(nil)
			if rapid.Bool().Draw(t, "pair") {
				inner = inner.Append("k", text.Draw(t, "inner"))
			}
			body = payload(inner, body)
		}
		space := headers("before", "x")
		grown, gotHeaders, gotBody := nsqwire.CutHeaders(slices.Clone(space), payload(h, body))
		if string(gotHeaders) != string(h) || string(gotBody) != string(body) {
			t.Fatalf("headers %q, body %q became %q and %q", h, body, gotHeaders, gotBody)
		}
		if string(grown) != string(space)+string(h) {
			t.Fatalf("what stood before the headers changed: %q", grown)
		}
	})
}

// A client of NSQ gets the bytes that another one published, whatever they are.
func FuzzHeaderLine(f *testing.F) {
	for _, seed := range []string{
		"", "body", "MR1 {}\n", "MR1 {}\nMR1 {}\n", "MR1 {}\nbody",
		`MR1 {"id":"job-7","reply-to":"reply.x"}` + "\nbody",
		`MR1 {"a":"\"\\\u0000\udcff"}` + "\n", `MR1 {"a":"\udcc3\udca9"}` + "\n",
		"MR1 {}\n" + `MR1 {"a":"b"}` + "\nbody", "MR1 {\"é\":\"漢\"}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		_, h, body := nsqwire.CutHeaders(nil, p)
		if err := h.Check(); err != nil {
			t.Fatal(err)
		}
		if len(p) > 0 && !bytes.Equal(payload(h, body), p) {
			t.Fatalf("%q became headers %q and body %q, and then %q", p, h, body, payload(h, body))
		}
		if !nsqwire.HasLine(p) && (h != nil || len(body) != len(p)) {
			t.Fatalf("%q seemed to have no line", p)
		}
		if !nsqwire.NeedsLine(h, body) && len(body) != len(p) {
			t.Fatalf("%q seemed to need no line", p)
		}
		if len(h) == 0 {
			return
		}
		last := map[string]string{}
		line, _, _ := bytes.Cut(p, []byte("\n"))
		var pairs map[string]string
		if err := json.Unmarshal(line[len("MR1 "):], &pairs); err != nil {
			t.Fatal(err)
		}
		for key, value := range h.All() {
			last[key] = value // which counts for JSON
		}
		for key, value := range last {
			if utf8.ValidString(key) && utf8.ValidString(value) && pairs[key] != value {
				t.Fatalf("JSON reads %q as %q", line, pairs)
			}
		}
	})
}

func BenchmarkCutHeaders(b *testing.B) {
	p := payload(headers("id", "m2c5ykqz3h-1234567", "reply-to", "reply.m2c5ykqz3h"), make([]byte, 100))
	var space millrace.Headers
	b.ReportAllocs()
	for b.Loop() {
		space, _, _ = nsqwire.CutHeaders(space[:0], p)
	}
}

func BenchmarkAppendLine(b *testing.B) {
	h := headers("id", "m2c5ykqz3h-1234567", "reply-to", "reply.m2c5ykqz3h")
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = nsqwire.AppendLine(line[:0], h, nil)
	}
}
