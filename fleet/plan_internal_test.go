package fleet

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func at(host string, cores, size, busy int) Worker {
	return Worker{Host: host, Cores: cores, Size: size, Busy: busy}
}

func TestAPlanGoesByRoomAndByIdleness(t *testing.T) {
	for _, c := range []struct {
		name    string
		workers []Worker
		want    int
		sizes   string
	}{
		{"a big host gets more", []Worker{at("a", 2, 0, 0), at("b", 6, 0, 0)}, 8, "[2 6]"},
		{"two workers of a host share its cores", []Worker{at("a", 4, 0, 0), at("a", 4, 0, 0), at("b", 4, 0, 0)}, 8, "[2 2 4]"},
		{"what is there stays", []Worker{at("a", 4, 7, 0), at("b", 4, 0, 0)}, 9, "[7 2]"},
		{"the fullest host gives first", []Worker{at("a", 4, 7, 7), at("b", 4, 3, 3)}, 7, "[4 3]"},
		{"but an idle one goes before", []Worker{at("a", 4, 7, 7), at("b", 4, 3, 1)}, 7, "[6 1]"},
		{"down to none", []Worker{at("a", 4, 7, 7), at("b", 1, 3, 1)}, 0, "[0 0]"},
		{"a host that does not say how many cores it has", []Worker{at("a", 0, 0, 0), at("b", 1, 0, 0)}, 2, "[1 1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := fmt.Sprint(plan(c.workers, c.want)); got != c.sizes {
				t.Errorf("%s, want %s", got, c.sizes)
			}
		})
	}
}

func TestAPlanAddsUpAndMovesNothingAbout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		workers := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Worker {
			size := rapid.IntRange(0, 9).Draw(t, "size")
			return at(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "host"), rapid.IntRange(1, 8).Draw(t, "cores"),
				size, rapid.IntRange(0, size).Draw(t, "busy"))
		}), 1, 8).Draw(t, "workers")
		have := total(workers)
		want := rapid.IntRange(0, 60).Draw(t, "want")
		sum, idleLeft, busyGone := 0, 0, 0
		for i, size := range plan(workers, want) {
			w := workers[i]
			if size < 0 || want > have && size < w.Size || want < have && size > w.Size || want == have && size != w.Size {
				t.Fatalf("worker %d goes from %d to %d on the way from %d to %d", i, w.Size, size, have, want)
			}
			sum += size
			idleLeft += max(0, size-w.Busy)
			busyGone += max(0, w.Busy-size)
		}
		if sum != want {
			t.Fatalf("the plan has %d replicas, want %d", sum, want)
		}
		if idleLeft > 0 && busyGone > 0 {
			t.Fatalf("%d busy ones leave, and %d idle ones stay", busyGone, idleLeft)
		}
	})
}

func TestChangesAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]string{
		"+2": "+2", "-1": "-1", "=5": "=5", "=0": "=0", "+0": "+0",
		"": "", "5": `"5" does not say how many replicas: write =5 for that many in all, +5 for that many more`,
		"+": "", "=": "", "=-1": "", "+-1": "", "++1": "", "--1": "", "=x": "", "*2": "", "=99999999999999999999": "",
	} {
		c, err := ParseChange(text)
		switch {
		case err == nil && c.String() != want, err != nil && want == text && text != "":
			t.Errorf("%q is read as %v, %v", text, c, err)
		case err != nil && want != "" && err.Error() != "fleet: "+want:
			t.Errorf("%q: %v", text, err)
		}
	}
}
