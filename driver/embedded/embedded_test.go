package embedded_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/driver/drivertest"
	"github.com/millrace/millrace/driver/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func harness(url string) drivertest.Harness {
	open := func(t *testing.T) millrace.Broker {
		b, err := millrace.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return drivertest.Harness{Open: open, Lease: 200 * time.Millisecond, Delay: 300 * time.Millisecond, Slack: 100 * time.Millisecond, Virtual: true}
}

func TestABrokerInMemoryConforms(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, func(*testing.T) drivertest.Harness { return harness("mem:") })
}

func TestABrokerInADirectoryConforms(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, func(t *testing.T) drivertest.Harness {
		h := harness("file://" + t.TempDir())
		h.Restart = func(*testing.T) {} // it stops with its last connection
		return h
	})
}

func TestURLsNameADirectoryAndHowItIsSynced(t *testing.T) {
	t.Chdir(t.TempDir())
	absolute := filepath.Join(t.TempDir(), "with space")
	for url, dir := range map[string]string{
		"mem:":                 "",
		"mem://":               "",
		"mem:///":              "",
		"file:jobs":            "jobs",
		"file:two%20words":     "two words",
		"file:a/b?sync=always": "a/b",
		"file:c?sync=never":    "c",
		"file:d?sync=20ms":     "d",
		"file://localhost/" + strings.TrimPrefix(strings.ReplaceAll(absolute, " ", "%20"), "/"): absolute,
	} {
		b, err := millrace.Open(t.Context(), url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if err := errors.Join(b.Publish(t.Context(), "t", millrace.Message{}), b.Close()); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if dir == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "FORMAT")); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// What cannot be meant is refused with one sentence that says how it is written.
func TestBadURLsAreRefusedWithASentence(t *testing.T) {
	for url, says := range map[string]string{
		"file:":                         "needs a directory",
		"file://":                       "needs a directory",
		"file://jobs":                   "file:///jobs",
		"file://var/lib/jobs":           "file:///var/lib/jobs",
		"file://host:99/jobs":           "has three slashes",
		"file://user@localhost/x":       "names a user",
		"file:///x#1":                   "%23",
		"file:///x?synch=2s":            `no option "synch"`,
		"file:///x?sync=2":              "a duration such as 2s",
		"file:///x?sync=-2s":            "always, never, or a duration",
		"file:///x?sync=0":              "always, never, or a duration",
		"file:///x?sync=2s&sync=always": "2 times",
		"file:///x?a;b":                 "cannot be read",
		"file:%zz":                      "invalid URL escape",
		"mem:jobs":                      "takes nothing behind it",
		"mem:///jobs":                   "file:///path/to/directory",
		"mem://host":                    "takes nothing behind it",
		"mem:?sync=2s":                  "only file:",
		"mysql://x":                     "its scheme must be one of file, mem",
		"/var/lib/jobs":                 "its scheme must be one of file, mem",
		"":                              "its scheme must be one of file, mem",
		"file:///x\x00":                 "invalid control character",
	} {
		b, err := millrace.Open(t.Context(), url)
		if err == nil {
			_ = b.Close()
			t.Errorf("%s was opened", url)
			continue
		}
		t.Log(err)
		if !errors.Is(err, millrace.ErrBadURL) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q, want one line that says %q", url, err, says)
		}
	}
	if _, err := os.Stat("/x"); err == nil {
		t.Error("a directory was made for a bad URL")
	}
}

func TestTheBrokersErrorsComeThrough(t *testing.T) {
	dir := t.TempDir()
	b, err := broker.Open(broker.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	d := embedded.New(b)
	if _, err := millrace.Open(t.Context(), "file://"+dir); !errors.Is(err, broker.ErrInUse) {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
