package steer_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/peers/node"
)

// What millrace pub reads millrace sub prints, once, whatever the broker, and takes no more
// than it prints.
func TestLinesGoThroughEveryBroker(t *testing.T) {
	millrace, err := node.BuildMillrace(t.Context(), t.TempDir())
	must(t, err)
	for _, b := range brokers {
		t.Run(b.name, func(t *testing.T) {
			rabbit := b.name == "RabbitMQ"
			if rabbit && testing.Short() {
				t.Skip("RabbitMQ takes seconds to start")
			}
			t.Parallel() // each mostly waits
			url, _ := b.start(t)
			c := &commands{T: t, path: millrace, url: url}
			missing := make(map[string]bool)
			var lines strings.Builder
			for i := range 3000 {
				missing[fmt.Sprint("line ", i)] = true
				fmt.Fprintln(&lines, "line", i)
			}
			c.run(lines.String(), "pub", "lines")
			for n := 1300; len(missing) > 0; n = len(missing) {
				for _, d := range c.print("lines", n) {
					if d.Attempt != 1 && !rabbit { // which counts what was prefetched and given back unseen
						t.Errorf("taken by who did not print it: %+v", d)
					}
					if !missing[d.Body] {
						t.Fatalf("printed twice: %+v", d)
					}
					delete(missing, d.Body)
				}
			}
			c.follow()
		})
	}
}

// printed is what sub --json prints of a message.
type printed struct {
	Attempt int
	Body    string
}

// print has sub print so many messages.
func (c *commands) print(topic string, n int) (all []printed) {
	c.Helper()
	for line := range strings.Lines(c.run("", "sub", topic, "-c", "c", "--json", "-n", strconv.Itoa(n))) {
		var d printed
		must(c, json.Unmarshal([]byte(line), &d))
		all = append(all, d)
	}
	if len(all) != n {
		c.Fatalf("%d messages were printed, want %d", len(all), n)
	}
	return all
}

// commands runs millrace with a broker.
type commands struct {
	*testing.T
	path, url string
}

// start starts a command, which is killed when it takes too long, or the test ends.
func (c *commands) start(stdin string, stdout io.Writer, args ...string) (wait func()) {
	c.Helper()
	cmd := exec.CommandContext(c.Context(), c.path, append(args, "--broker", c.url)...)
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), stdout, &said
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	must(c, cmd.Start())
	late := time.AfterFunc(within, func() { _ = cmd.Process.Kill() })
	return func() {
		c.Helper()
		defer late.Stop()
		if err := cmd.Wait(); err != nil || said.Len() > 0 {
			c.Fatalf("millrace %q: %v, %s", args, err, &said)
		}
	}
}

// run runs a command to its end, and returns what it prints.
func (c *commands) run(stdin string, args ...string) string {
	c.Helper()
	var out bytes.Buffer
	c.start(stdin, &out, args...)()
	return out.String()
}

// follow has sub follow a topic in a channel of its own.
func (c *commands) follow() {
	c.Helper()
	read, write, err := os.Pipe()
	must(c, err)
	defer read.Close()
	wait := c.start("", write, "sub", "followed", "-n", "1")
	must(c, write.Close())
	heard := make(chan string, 1)
	go func() {
		out, _ := io.ReadAll(read)
		heard <- string(out)
	}()
	for { // what comes before it has subscribed may be another channel's, or nobody's
		c.run("news\n", "pub", "followed")
		select {
		case out := <-heard:
			if out != "news\n" {
				c.Errorf("sub prints %q", out)
			}
			wait()
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}
