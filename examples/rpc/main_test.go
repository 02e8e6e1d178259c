package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestStory checks what the example shows: each client has exactly one answer of its own
// for each request, also for those that failed, took too long, and killed a server.
func TestStory(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out safeBuffer
	if err := run(ctx, &out, "mem:", "all"); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if n := strings.Count(text, "crashes\n"); n != 1 {
		t.Errorf("%d servers crashed, want 1:\n%s", n, text)
	}
	for _, client := range []string{"alice", "bob"} {
		_, report, found := strings.Cut(text, client+":\n")
		if !found {
			t.Fatalf("no report of %s:\n%s", client, text)
		}
		lines := strings.Split(report, "\n")
		if len(lines) < 12 {
			t.Fatalf("%s has %d answers, want 12:\n%s", client, len(lines), report)
		}
		for i, got := range lines[:12] {
			want := fmt.Sprintf("  request %d: %d", i, i*i)
			switch i {
			case 3:
				want = "  request 3: failed: 3 has no square today"
			case 5:
				want = "  request 5: timeout: "
			}
			if i == 5 && strings.HasPrefix(got, want) || got == want {
				continue
			}
			t.Errorf("%s: %q, want %q", client, got, want)
		}
	}
}

func TestARoleThatCannotBe(t *testing.T) {
	for _, role := range []string{"boss", "client", "server"} {
		if err := run(t.Context(), &bytes.Buffer{}, "mem:", role); err == nil {
			t.Errorf("-role %s with a broker of this process was accepted", role)
		}
	}
}

// safeBuffer is written to by servers and clients at the same time.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
