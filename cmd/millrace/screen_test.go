package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// terminal is what several writers write to.
type terminal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

// lines is what the terminal shows in the end.
func (t *terminal) lines() []string {
	var lines []string
	for line := range strings.Lines(t.text.String()) {
		line = strings.TrimSuffix(line, "\n")
		if at := strings.LastIndex(line, eraseLine); at >= 0 {
			line = line[at+len(eraseLine):]
		}
		lines = append(lines, line)
	}
	return lines
}

func TestOnATerminalTheBarStaysBelowTheResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tty terminal
		s := &screen{out: &tty, err: &tty, outIsTTY: true, errIsTTY: true}
		n := 0
		s.start(func() string { n++; return fmt.Sprint("bar ", n) })
		for i := range 3 {
			time.Sleep(250 * time.Millisecond)
			if err := s.result(fmt.Appendf(nil, "result %d\n", i)); err != nil {
				t.Fatal(err)
			}
			s.message([]byte("warning\n"))
		}
		time.Sleep(250 * time.Millisecond)
		s.close()
		want := fmt.Sprintf("result 0|warning|result 1|warning|result 2|warning|bar %d", n)
		if got := strings.Join(tty.lines(), "|"); got != want {
			t.Errorf("%s\nwant %s\n%q", got, want, tty.text.String())
		}
		if n < 9 {
			t.Errorf("drawn %d times in a second", n)
		}
	})
}

func TestABarDoesNotOverwriteALineWithoutAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tty terminal
		s := &screen{out: &tty, err: &tty, outIsTTY: true, errIsTTY: true}
		s.start(func() string { return "bar" })
		_ = s.result([]byte("half"))
		time.Sleep(time.Second)
		_ = s.result(nil)
		time.Sleep(time.Second)
		_ = s.result([]byte(" a line"))
		time.Sleep(time.Second)
		s.close()
		if got := strings.Join(tty.lines(), "|"); got != "half a line|bar" {
			t.Errorf("%s", got)
		}
	})
}

func TestResultsInAPipeDoNotWaitForTheTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pipe, tty terminal
		s := &screen{out: &pipe, err: &tty, errIsTTY: true}
		s.start(func() string { return "bar" })
		time.Sleep(time.Second)
		_ = s.result([]byte("half"))
		time.Sleep(time.Second)
		s.close()
		if pipe.text.String() != "half" {
			t.Errorf("standard output is %q", pipe.text.String())
		}
		if got := strings.Join(tty.lines(), "|"); got != "bar" {
			t.Errorf("the terminal shows %q", got)
		}
	})
}

func TestWhereThereIsNoTerminalTheBarIsALineASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var file terminal
		s := &screen{out: &file, err: &file}
		s.start(func() string { return "bar" })
		time.Sleep(3500 * time.Millisecond)
		s.close()
		if got := file.text.String(); got != strings.Repeat("bar\n", 4) {
			t.Errorf("%q", got)
		}
	})
}
