package gather_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

// mapping says, in the environment, how many inputs the child process maps.
const mapping = "MILLRACE_TEST_MAP"

// However many inputs there are, the memory of the process that has everything in it,
// broker and workers, stays as it is. MILLRACE_TEST_INPUTS=10000000 takes the ten
// million of the promise.
func TestTheMemoryOfAnyNumberOfInputsIsBounded(t *testing.T) {
	if raceDetector || runtime.GOOS != "linux" {
		t.Skip("the race detector has memory of its own for everything, and only Linux tells how much there is")
	}
	inputs := "1000000"
	if asked := os.Getenv("MILLRACE_TEST_INPUTS"); asked != "" {
		inputs = asked
	}
	for _, mode := range []string{"mem", "sync=2s"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMapInAProcessOfItsOwn$", "-test.v") //nolint:gosec // this very test
		cmd.Env = append(os.Environ(), mapping+"="+inputs+" "+mode)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var peak int
		_, told, _ := bytes.Cut(out, []byte("VmHWM:"))
		if _, err := fmt.Sscanf(string(told), " %d kB", &peak); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Logf("%s: %s inputs, at the most %d MB of memory", mode, inputs, peak/1024)
		if peak > 150<<10 {
			t.Errorf("%s: %d MB of memory, want less than 150", mode, peak/1024)
		}
	}
}

func TestMapInAProcessOfItsOwn(t *testing.T) {
	var inputs, mode string
	if _, err := fmt.Sscan(os.Getenv(mapping), &inputs, &mode); err != nil {
		t.Skip("only for the test above")
	}
	want, err := strconv.Atoi(inputs)
	must(t, err)
	b := open(t, mode)
	stop := serve(t, b, echo, worker.Config{})
	c := newClient(t, b, gather.Config{})
	n := 0
	for _, err := range gather.Map[[]byte](t.Context(), c, eightBytes(want)) {
		must(t, err)
		n++
	}
	if n != want {
		t.Errorf("%d results", n)
	}
	closeAll(t, c, b, stop)
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	_, peak, _ := bytes.Cut(status, []byte("VmHWM:"))
	line, _, _ := bytes.Cut(peak, []byte("\n"))
	fmt.Printf("VmHWM:%s\n", line)
}
