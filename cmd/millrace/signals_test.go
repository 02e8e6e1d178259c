package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestSignalsThatComeTogetherAreOneRequest(t *testing.T) {
	const hup, interrupt, term = syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM
	type sent struct {
		after time.Duration // the one before
		sig   os.Signal
	}
	for name, c := range map[string]struct {
		sent []sent
		want []os.Signal
	}{
		"one":                    {[]sent{{0, interrupt}}, []os.Signal{interrupt}},
		"twice the same":         {[]sent{{0, term}, {0, term}}, []os.Signal{term}},
		"passed on by a parent":  {[]sent{{0, interrupt}, {together / 2, term}}, []os.Signal{interrupt}},
		"the terminal is gone":   {[]sent{{0, term}, {0, hup}}, []os.Signal{hup}},
		"asked again":            {[]sent{{0, interrupt}, {2 * together, interrupt}}, []os.Signal{interrupt, interrupt}},
		"asked again, and again": {[]sent{{0, interrupt}, {2 * together, interrupt}, {0, term}}, []os.Signal{interrupt, interrupt, term}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				raw, requests, over := make(chan os.Signal, 4), make(chan os.Signal, 4), make(chan struct{})
				go forwardRequests(raw, requests, over)
				for _, s := range c.sent {
					time.Sleep(s.after)
					raw <- s.sig
					synctest.Wait()
				}
				if len(c.want) == 1 { // nobody asks again who has had no answer
					if len(requests) > 0 {
						t.Error("it does not wait for what comes together")
					}
					time.Sleep(together)
					synctest.Wait()
				}
				close(over)
				var got []os.Signal
				for len(requests) > 0 {
					got = append(got, <-requests)
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("%v, want %v", got, c.want)
				}
			})
		})
	}
}

// As timeout, or a parent that passes on a Ctrl-C, ends it.
func TestAskedOnceByTwoSignalsItFinishesWhatRuns(t *testing.T) {
	t.Parallel()
	r := startMillrace(t, "map", "-j1", "--", "sh", "-c", "touch begun.$1; until [ -e go ]; do sleep 0.02; done; echo done $1", "sh", "{}")
	if _, err := io.WriteString(r.stdin, "1\n2\n"); err != nil { // and no end
		t.Fatal(err)
	}
	r.await("begun.", 1)
	_ = r.Process.Signal(os.Interrupt)
	_ = r.Process.Signal(syscall.SIGTERM)
	r.stderr.await(t, onceMore)
	if err := os.WriteFile(filepath.Join(r.folder, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := r.exit(); code != exitOther || r.stdout.String() != "done 1\n" || !strings.Contains(r.stderr.String(), "interrupted: 1 done") {
		t.Errorf("exit status %d, stdout %q, stderr %q", code, r.stdout.String(), r.stderr.String())
	}
}

func TestServeAskedOnceByTwoSignalsEndsInOrder(t *testing.T) {
	t.Parallel()
	s := startServe(t, "millrace", "--data-path", t.TempDir())
	s.awaitLog("door=http")
	_ = s.cmd.Process.Signal(os.Interrupt)
	if status := s.end(syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d: %s", status, s.logged())
	}
}
