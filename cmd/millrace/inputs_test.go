package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

func collect(in *inputs) (got []string) {
	for input := range in.all() {
		got = append(got, string(input))
	}
	return got
}

func newTestInputs(sources ...source) *inputs {
	return &inputs{sources: sources, delimiter: '\n', limit: 1 << 20, stop: make(chan struct{})}
}

// Against the obvious: split the whole text at once.
func TestEveryLineIsAnInputOfAnyLength(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lengths := rapid.SliceOf(rapid.OneOf(rapid.IntRange(0, 5), rapid.IntRange(65530, 65540), rapid.IntRange(0, 300_000))).Draw(t, "lengths")
		var want []string
		for i, n := range lengths {
			want = append(want, strings.Repeat(string(rune('a'+i%26)), n))
		}
		text := strings.Join(want, "\n")
		if len(text) > 0 && rapid.Bool().Draw(t, "an end for the last line") {
			text += "\n"
		} else if strings.HasSuffix(text, "\n") || text == "" {
			want = want[:max(0, len(want)-1)] // an empty line without an end is none
		}
		var r io.Reader = strings.NewReader(text)
		if rapid.Bool().Draw(t, "in small pieces") && len(text) < 1000 {
			r = iotest.OneByteReader(r)
		}
		var got []string
		err := newTestInputs().split(r, func(line []byte) bool {
			got = append(got, string(line))
			return true
		})
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%v, %d lines, want %d", err, len(got), len(want))
		}
	})
}

func TestALineOverTheLimitIsNamedAndNotHeld(t *testing.T) {
	in := newTestInputs()
	in.limit = 200_000
	exact := strings.Repeat("x", in.limit)
	for _, c := range []struct {
		text string
		line int // that is too long; 0: none
	}{
		{exact, 0},
		{exact + "\n", 0},
		{"a\n" + exact + "\nb\n", 0},
		{exact + "x", 1},
		{exact + "x\n", 1},
		{"a\n\n" + exact + exact + exact + "\nb", 3},
	} {
		lines := 0
		err := in.split(strings.NewReader(c.text), func([]byte) bool { lines++; return true })
		switch {
		case c.line == 0 && err != nil:
			t.Errorf("%d bytes: %v", len(c.text), err)
		case c.line > 0 && (err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("line %d is longer than the 200000 bytes", c.line)) || lines != c.line-1):
			t.Errorf("%d bytes: after %d lines %v", len(c.text), lines, err)
		}
	}

	var before, after runtime.MemStats
	in = newTestInputs()
	in.limit = 1 << 20
	runtime.ReadMemStats(&before)
	endless := io.LimitReader(zeros{}, 1<<30)
	if err := in.split(endless, func([]byte) bool { return true }); err == nil {
		t.Error("1 GiB without an end is a line")
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 10<<20 {
		t.Errorf("allocated %d bytes on the way to a limit of 1 MiB", used)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAReadErrorIsNotTheEnd(t *testing.T) {
	broken := errors.New("the disk is gone")
	var got []string
	err := newTestInputs().split(io.MultiReader(strings.NewReader("a\nhalf"), iotest.ErrReader(broken)), func(line []byte) bool {
		got = append(got, string(line))
		return true
	})
	if !errors.Is(err, broken) || !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q, %v: half a line is no input", got, err)
	}
}

func TestSourcesFollowTheCommand(t *testing.T) {
	for _, c := range []struct {
		args, before string
		lists        [][]string
	}{
		{"cmd a", "cmd a", nil},
		{"cmd ::: a b", "cmd", [][]string{{"a", "b"}}},
		{"cmd {} ::: a ::: b c :::", "cmd {}", [][]string{{"a"}, {"b", "c"}, nil}},
		{"::: a", "", [][]string{{"a"}}},
	} {
		before, sources := cutSources(strings.Fields(c.args))
		var lists [][]string
		for _, s := range sources {
			lists = append(lists, s.args)
		}
		if strings.Join(before, " ") != c.before || !slices.EqualFunc(lists, c.lists, slices.Equal) {
			t.Errorf("%q: %q, %q", c.args, before, lists)
		}
	}
}

func TestTheNumberOfInputsIsKnownWhereItCanBe(t *testing.T) {
	folder := t.TempDir()
	for i, text := range []string{"", "a", "a\n", "a\nb", "a\n\n", strings.Repeat("line\n", 100_000)} {
		name := filepath.Join(folder, fmt.Sprint(i))
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		in := newTestInputs(source{file: name}, source{args: []string{"x", "y"}})
		total, known := in.count()
		if want := int64(len(collect(in))); !known || total != want {
			t.Errorf("%.10q: %d, %v, want %d", text, total, known, want)
		}
	}
	if _, known := newTestInputs(source{file: "/dev/null"}).count(); known {
		t.Error("a device is said to have a number of lines")
	}
}

func TestInputsEndWhenTheyAreToldToThoughTheReadBlocks(t *testing.T) {
	read, write := io.Pipe()
	defer write.Close() // ends the goroutine that is blocked in the read
	in := newTestInputs()
	ended := make(chan error)
	got := make(chan string, 10)
	go func() {
		ended <- in.split(newStoppable(read, in.stop), func(line []byte) bool {
			got <- string(line)
			return true
		})
	}()
	if _, err := io.WriteString(write, "a\nhalf"); err != nil {
		t.Fatal(err)
	}
	if line := <-got; line != "a" {
		t.Fatal(line)
	}
	in.end()
	select {
	case err := <-ended:
		if !errors.Is(err, errStopped) || len(got) > 0 {
			t.Errorf("%v, and %d more lines: half a line is no input", err, len(got))
		}
	case <-time.After(generous):
		t.Fatal("it waits for its input")
	}
}

func TestAStoppableReaderPassesEverythingOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := bytes.Repeat([]byte("0123456789"), rapid.IntRange(0, 30_000).Draw(t, "tens"))
		var r io.Reader = bytes.NewReader(data)
		if rapid.Bool().Draw(t, "halves") {
			r = iotest.HalfReader(r)
		}
		got, err := io.ReadAll(newStoppable(r, make(chan struct{})))
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d of %d bytes, %v", len(got), len(data), err)
		}
	})
}

func TestAnInputIsShownInOneShortLine(t *testing.T) {
	for input, want := range map[string]string{
		"a b": `"a b"`, "a\nb": `"a\nb"`, "x\x00y": `"x y"`,
		strings.Repeat("é", 100): `"` + strings.Repeat("é", 60) + `…"`,
	} {
		if got := printable([]byte(input)); got != want {
			t.Errorf("%q: %s", input, got)
		}
	}
}
