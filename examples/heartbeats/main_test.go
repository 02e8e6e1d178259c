package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestStory checks what the example shows, in virtual time: both failures are noticed
// within the TTL, the sources are replaced, the stream never stops, and nothing of a
// generation that was replaced arrives. That no goroutine is left, the bubble checks.
func TestStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var out bytes.Buffer
		if err := run(ctx, &out); err != nil {
			t.Fatal(err)
		}
		lines := parse(t, out.String())
		defer func() {
			if t.Failed() {
				t.Log(out.String())
			}
		}()

		const lastReading = 3 * every // after it one source dies and one hangs
		noticed := func(text string) time.Duration {
			for _, l := range lines {
				if strings.HasPrefix(l.text, text) {
					return l.at - lastReading
				}
			}
			t.Errorf("nothing says %q", text)
			return 0
		}
		if d := noticed("dies, generation 1: exited: supervise: panic: out of mercury"); d > ttl {
			t.Errorf("the death was noticed after %v, want at most %v", d, ttl)
		}
		if d := noticed("hangs, generation 1: silent"); d > ttl {
			t.Errorf("the silence was noticed after %v, want at most %v", d, ttl)
		}
		woke := noticed("hangs wakes up") + lastReading
		for _, l := range lines {
			if strings.HasPrefix(l.text, "hangs, generation 1: reading") && l.at > lastReading {
				t.Errorf("stale: %v %s", l.at, l.text)
			}
		}
		for _, s := range []string{"steady, generation 1", "hangs, generation 2", "dies, generation 2"} {
			if n := readingsAfter(lines, s, woke); n < 9 {
				t.Errorf("%s: %d readings in the last second, want about 10", s, n)
			}
		}
	})
}

func readingsAfter(lines []line, source string, at time.Duration) (n int) {
	for _, l := range lines {
		if l.at > at && strings.HasPrefix(l.text, source+": reading") {
			n++
		}
	}
	return n
}

type line struct {
	at   time.Duration
	text string
}

func parse(t *testing.T, text string) (lines []line) {
	t.Helper()
	for l := range strings.Lines(text) {
		at, rest, _ := strings.Cut(strings.TrimSpace(l), "  ")
		d, err := time.ParseDuration(at)
		if err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		lines = append(lines, line{d, rest})
	}
	return lines
}
