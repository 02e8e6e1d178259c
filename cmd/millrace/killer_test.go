package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The same as xargs says, byte for byte, while the commands are killed with SIGKILL
// at random.
func TestCommandsThatAreKilledAtRandomLoseNoResult(t *testing.T) {
	t.Parallel()
	const inputs, most = 1000, 60
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	var numbers strings.Builder
	for n := 1; n <= inputs; n++ {
		numbers.WriteString(strconv.Itoa(n) + "\n")
	}
	xargs := exec.Command("xargs", "-n1", "factor")
	xargs.Stdin = strings.NewReader(numbers.String())
	want, err := xargs.Output()
	if err != nil {
		t.Fatal(err)
	}

	r := startMillrace(t, "map", "-j4", "-k", "--", "factor", "{}")
	if _, err := r.stdin.Write([]byte(numbers.String())); err != nil {
		t.Fatal(err)
	}
	r.stdin.Close()
	killed := 0
	for ended := false; !ended; {
		select {
		case <-r.ended:
			ended = true
		case <-time.After(time.Duration(random.IntN(5000)) * time.Microsecond):
			if list := childrenOf(r.Process.Pid); len(list) > 0 && killed < most {
				if syscall.Kill(list[random.IntN(len(list))], syscall.SIGKILL) == nil {
					killed++
				}
			}
		}
	}
	t.Logf("killed %d", killed)
	if code := r.exit(); code != 0 || r.stderr.Len() > 0 {
		t.Errorf("exit status %d, stderr %q", code, r.stderr.String())
	}
	if r.stdout.String() != string(want) {
		t.Errorf("%d bytes, want %d", r.stdout.Len(), len(want))
	}
	if killed < 10 {
		t.Errorf("only %d were killed: this shows nothing", killed)
	}
}

func childrenOf(pid int) (children []int) {
	files, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	for _, file := range files {
		content, _ := os.ReadFile(file)
		for _, child := range strings.Fields(string(content)) {
			if n, err := strconv.Atoi(child); err == nil {
				children = append(children, n)
			}
		}
	}
	return children
}

// Memory does not grow with the number of inputs.
func TestInputsStream(t *testing.T) {
	t.Parallel()
	const lines, size = 300, 1 << 20
	r := startMillrace(t, "map", "--stdin", "--", "wc", "-c")
	line := append(bytes.Repeat([]byte("x"), size), '\n')
	for range lines {
		if _, err := r.stdin.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	r.stdin.Close()
	if code := r.exit(); code != 0 {
		t.Errorf("exit status %d: %s", code, r.stderr.String())
	}
	if want := strings.Repeat(strconv.Itoa(size)+"\n", lines); r.stdout.String() != want {
		t.Errorf("results %q", r.stdout.String())
	}
	usage := r.ProcessState.SysUsage().(*syscall.Rusage)
	t.Logf("used %d MB for %d MB of inputs", usage.Maxrss>>10, lines*size>>20)
	if usage.Maxrss > lines*size>>10*3/4 && !underRace {
		t.Errorf("used %d MB for %d MB of inputs", usage.Maxrss>>10, lines*size>>20)
	}
}
