package millrace_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace/millrace"
)

// Headers are a list of pairs: what is appended is there, in order, and the first value
// of a key is the one that Get finds.
func TestHeadersAreAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOf(rapid.SampledFrom([]string{"", "id", "reply-to", strings.Repeat("k", 200)})).Draw(t, "keys")
		var h millrace.Headers
		first := map[string]string{}
		var pairs []string
		for i, k := range keys {
			v := rapid.String().Draw(t, "value")
			h = h.Append(k, v)
			pairs = append(pairs, k, v)
			if _, seen := first[k]; !seen {
				first[k] = v
			}
			keys[i] = k
		}
		if err := h.Check(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for k, v := range h.All() {
			got = append(got, k, v)
		}
		if !slices.Equal(got, pairs) {
			t.Fatalf("got %q, want %q", got, pairs)
		}
		for k, v := range first {
			if h.Text(k) != v {
				t.Fatalf("%s is %q, want %q", k, h.Text(k), v)
			}
		}
		without := h.Without("id")
		if _, found := without.Get("id"); found || without.Text("reply-to") != h.Text("reply-to") {
			t.Fatalf("without id: %q", without)
		}
	})
}

func TestTruncatedHeadersAreRefused(t *testing.T) {
	var h millrace.Headers
	h = h.Append("id", "job-1").Append("reply-to", "reply.x")
	whole := 0
	for n := range h {
		err := h[:n].Check()
		if err == nil {
			whole++ // nothing, or only the first pair
		} else if !errors.Is(err, millrace.ErrBadHeaders) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if whole != 2 {
		t.Errorf("%d of the beginnings are well formed, want 2", whole)
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add([]byte(millrace.Headers(nil).Append("id", "job-1").Append("", "")))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte{1, 'a', 200})
	f.Fuzz(func(t *testing.T, b []byte) {
		h := millrace.Headers(b)
		ok := h.Check() == nil
		n := 0
		for k, v := range h.All() {
			n += len(k) + len(v)
		}
		if n > len(b) || ok && h.Without("none").Check() != nil {
			t.Fatalf("%d bytes of pairs in %d bytes", n, len(b))
		}
	})
}

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{
		"a": true, "A.b_c-9": true, "x#ephemeral": true, strings.Repeat("n", 64): true, ".": true,
		"": false, "#ephemeral": false, "a b": false, "a/b": false, "ä": false, "a#b": false,
		"x#ephemeral#ephemeral": false, strings.Repeat("n", 65): false, "a\n": false,
	} {
		if err := millrace.CheckName(name); (err == nil) != good || err != nil && !errors.Is(err, millrace.ErrBadName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, bad := range []string{"q#ephemeral", strings.Repeat("q", 60), ""} {
		if err := millrace.CheckQueue(bad); !errors.Is(err, millrace.ErrBadName) {
			t.Errorf("queue %q: %v, want ErrBadName", bad, err)
		}
	}
}
