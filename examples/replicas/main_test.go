package main

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// TestStory checks what the example shows: every message is handled once, in its act,
// by no more replicas than there are, and those that nobody could handle waited.
func TestStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		if err := run(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
		t.Log(out.String())
		acts := parse(t, out.String())
		want := []struct {
			title    string
			replicas int
			first    int
		}{
			{"three replicas:", 3, 1},
			{"one was retired:", 2, 6},
			{"one took a poison pill:", 1, 11},
			{"the last was retired: 0 replicas, 5 messages wait", 0, 0},
			{"three new replicas:", 3, 16},
		}
		if len(acts) != len(want) {
			t.Fatalf("%d acts, want %d", len(acts), len(want))
		}
		for i, w := range want {
			a := acts[i]
			if a.title != w.title {
				t.Errorf("act %d is %q, want %q", i+1, a.title, w.title)
			}
			if len(a.replicas) != w.replicas {
				t.Errorf("%s %d replicas took part, want %d", a.title, len(a.replicas), w.replicas)
			}
			if w.first == 0 {
				continue
			}
			for m := w.first; m < w.first+5; m++ {
				if a.messages[m] != 1 {
					t.Errorf("%s message %d was handled %d times, want once", a.title, m, a.messages[m])
				}
			}
			if len(a.messages) != 5 {
				t.Errorf("%s handled %v, want five messages from %d on", a.title, a.messages, w.first)
			}
		}
	})
}

type act struct {
	title    string
	replicas map[int]bool
	messages map[int]int
}

func parse(t *testing.T, text string) []act {
	t.Helper()
	var acts []act
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		if !strings.HasPrefix(line, " ") {
			acts = append(acts, act{line, map[int]bool{}, map[int]int{}})
			continue
		}
		var r, m int
		if _, err := fmt.Sscanf(line, "  replica %d handled message %d", &r, &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		a := &acts[len(acts)-1]
		a.replicas[r] = true
		a.messages[m]++
	}
	return acts
}
