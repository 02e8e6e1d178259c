package jobs_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// runsTheExample: examples/rpc with its clients and servers anywhere. A server dies of one
// request of each client, so that there is one server more than clients.
func runsTheExample(t *testing.T, on *system) {
	const clients = 2
	for range clients + 1 {
		start(t, nil, programs.rpc, "-broker", on.url, "-role", "server")
	}
	var asking sync.WaitGroup
	for range clients {
		client := start(t, nil, programs.rpc, "-broker", on.url, "-role", "client")
		asking.Go(func() {
			if err := client.wait(); err != nil {
				t.Errorf("the client: %v\n%s", err, client.stderr())
			}
			lines := []string{}
			for line := range client.lines {
				lines = append(lines, line)
			}
			if len(lines) != 13 {
				t.Errorf("the client's report has %d lines: %q", len(lines), lines)
				return
			}
			for i, line := range lines[1:] {
				want := fmt.Sprintf("  request %d: %d", i, i*i)
				switch i {
				case 3:
					want = "  request 3: failed: 3 has no square today"
				case 5:
					want = "  request 5: timeout: "
				}
				if line != want && (i != 5 || !strings.HasPrefix(line, want)) {
					t.Errorf("%q, want %q", line, want)
				}
			}
		})
	}
	asking.Wait()
	on.wantNothingLeft(t, "squares")
}
