package jobs_test

import (
	"strings"
	"testing"
)

// refusesBadURLs: map and work end soon, with one sentence that names what is wrong and
// keeps passwords to itself. So they do with names that a queue cannot have.
func refusesBadURLs(t *testing.T, on *system) {
	for url, names := range on.bad {
		for _, args := range [][]string{
			{"map", "q", "--broker", url},
			{"work", "q", "--broker", url, "--", "cat"},
		} {
			refuses(t, names, args...)
		}
	}
	for _, queue := range []string{"a b", "a/b", "ä", "q#ephemeral", strings.Repeat("x", 65)} {
		refuses(t, "bad name", "map", queue, "--broker", on.url)
		refuses(t, "bad name", "work", queue, "--broker", on.url, "--", "cat")
	}
	if strings.HasPrefix(on.url, "amqp") {
		refuses(t, "amq.", "map", "amq.q", "--broker", on.url)
	}
}

func refuses(t *testing.T, names string, args ...string) {
	t.Helper()
	p := start(t, nil, programs.millrace, args...)
	p.give("1")
	_ = p.stdin.Close()
	err := p.wait()
	said := p.stderr()
	last := strings.TrimSpace(said[strings.LastIndex(strings.TrimSpace(said), "\n")+1:])
	switch {
	case err == nil:
		t.Errorf("%q: all is well", args)
	case p.cmd.ProcessState.ExitCode() != 255:
		t.Errorf("%q: %v", args, err)
	case !strings.HasPrefix(last, "millrace: ") || !strings.Contains(last, names) || len(last) > 500:
		t.Errorf("%q says %q, want one sentence that names %q", args, said, names)
	case strings.Contains(said, "wrong@") || strings.Contains(said, "secret@"):
		t.Errorf("%q gives the password away: %q", args, said)
	}
}
