package task

import (
	"bytes"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/worker"
)

// BenchmarkProcessPerTask runs `true` again and again, two at a time, and captures
// what it writes: with this package's handler, with a bare Go loop over package
// os/exec, and with xargs, which captures nothing. They take turns, because what forks
// cost changes from second to second; the ratios are of the medians.
func BenchmarkProcessPerTask(b *testing.B) {
	const round = 300
	command, err := New([]string{"true", "{}"}, Config{})
	if err != nil {
		b.Fatal(err)
	}
	contenders := []struct {
		name string
		run  func(n int) error
		took []time.Duration
	}{
		{name: "handler", run: func(n int) error {
			return inTwo(n, func(i int) error {
				_, err := command.Handle(b.Context(), &worker.Task{Payload: strconv.AppendInt(nil, int64(i), 10)})
				return err
			})
		}},
		{name: "os/exec", run: func(n int) error {
			return inTwo(n, func(i int) error {
				var stdout, stderr bytes.Buffer
				cmd := exec.Command("true", strconv.Itoa(i))
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				return cmd.Run()
			})
		}},
		{name: "xargs", run: func(n int) error {
			xargs := exec.Command("xargs", "-P2", "-n1", "true")
			xargs.Stdin = strings.NewReader(strings.Repeat("1\n", n))
			return xargs.Run()
		}},
	}
	for range b.N {
		for i := range contenders {
			c := &contenders[i]
			begun := time.Now()
			if err := c.run(round); err != nil {
				b.Fatal(c.name, err)
			}
			c.took = append(c.took, time.Since(begun))
		}
	}
	handler := median(contenders[0].took)
	b.ReportMetric(0, "ns/op") // of a whole turn, which says nothing
	b.ReportMetric(round/handler.Seconds(), "tasks/s")
	b.ReportMetric(median(contenders[1].took).Seconds()/handler.Seconds(), "×os/exec")
	b.ReportMetric(median(contenders[2].took).Seconds()/handler.Seconds(), "×xargs")
}

// inTwo calls f for 0 to n-1 in two goroutines and returns the first error.
func inTwo(n int, f func(i int) error) error {
	var errs [2]error
	var both sync.WaitGroup
	for half := range 2 {
		both.Go(func() {
			for i := half; i < n && errs[half] == nil; i += 2 {
				errs[half] = f(i)
			}
		})
	}
	both.Wait()
	if errs[0] != nil {
		return errs[0]
	}
	return errs[1]
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
