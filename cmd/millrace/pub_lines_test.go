package main

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// However a stream is cut into reads, its lines come out whole, in order, and stay what
// they were.
func TestLinesSurviveAnyReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.SliceOfN(rapid.Byte(), 0, 20)
		if rapid.IntRange(0, 9).Draw(t, "long") == 0 {
			line = rapid.SliceOfN(rapid.Byte(), lineBlock-50, 3*lineBlock)
		}
		written := rapid.SliceOfN(line, 0, 8).Draw(t, "lines")
		unended := rapid.Bool().Draw(t, "unended")
		var text bytes.Buffer
		var want []string
		for i, l := range written {
			l = bytes.ReplaceAll(l, []byte{'\n'}, []byte{'_'})
			text.Write(l)
			if last := i == len(written)-1; !last || !unended {
				text.WriteByte('\n')
			}
			if len(l) > 0 {
				want = append(want, string(l))
			}
		}
		var batches []batch
		last, err := eachBatch(&pieces{t, text.Bytes()}, '\n', 1<<20, func(b batch) error {
			batches = append(batches, b)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range slices.Concat(batches...) { // at the end: nothing was overwritten
			got = append(got, string(l))
		}
		if len(last) > 0 {
			got = append(got, string(last))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("lines %q\nwant  %q", got, want)
		}
	})
}

// pieces is a reader that returns as much as rapid likes.
type pieces struct {
	t    *rapid.T
	rest []byte
}

func (p *pieces) Read(buf []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(buf, p.rest[:rapid.IntRange(0, len(p.rest)).Draw(p.t, "read")])
	p.rest = p.rest[n:]
	return n, nil
}

// What was read is emitted before more is read: nothing waits for a batch to fill.
func TestALineIsEmittedWhenItWasRead(t *testing.T) {
	r, w := io.Pipe()
	got := make(chan string)
	go func() {
		_, _ = eachBatch(r, '\n', 100, func(b batch) error {
			for _, line := range b {
				got <- string(line)
			}
			return nil
		})
		close(got)
	}()
	for _, line := range []string{"a", "bc", "d"} {
		if _, err := io.WriteString(w, line+"\n"); err != nil {
			t.Fatal(err)
		}
		if l := <-got; l != line {
			t.Errorf("%q after %q was written", l, line)
		}
	}
	_ = w.Close()
	<-got
}

func TestALineThatIsTooLongEndsTheReadingAndIsNamed(t *testing.T) {
	for name, text := range map[string]string{
		"with an end":    "a\n\nbb\n" + strings.Repeat("x", 101) + "\nc\n",
		"without an end": "a\n\nbb\n" + strings.Repeat("x", 200_000),
	} {
		for how, r := range map[string]io.Reader{"at once": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text))} {
			var got []string
			_, err := eachBatch(r, '\n', 100, func(b batch) error {
				for _, line := range b {
					got = append(got, string(line))
				}
				return nil
			})
			if err == nil || err.Error() != "line 4 is longer than the 100 bytes that a message can have" || !slices.Equal(got, []string{"a", "bb"}) {
				t.Errorf("%s, %s: %v after %q", name, how, err, got)
			}
		}
	}
}

func TestAnErrorOfWhoTakesTheLinesEndsTheReading(t *testing.T) {
	enough := errors.New("enough")
	if _, err := eachBatch(strings.NewReader("a\nb\n"), '\n', 100, func(batch) error { return enough }); !errors.Is(err, enough) {
		t.Error(err)
	}
}
