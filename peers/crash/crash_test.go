package crash

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/peers/node"
)

var (
	kills = flag.Int("kills", 100, "how often the broker is killed")
	seed  = flag.Uint64("seed", 0, "of the times between kills; 0 picks one")
)

// How long the broker runs before it is killed, at least and at most, and now and then:
// long enough that what was finished in the beginning must not come again.
const (
	shortest = time.Millisecond
	longest  = 60 * time.Millisecond
	long     = lastInstant + 500*time.Millisecond
	oftenIs  = 14 // one life in so many is a long one
)

// Not one acknowledged message is missing, whatever the broker syncs: the page cache
// survives the death of a process.
func TestKilledUnderLoad(t *testing.T) {
	shipped, err := node.BuildMillrace(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	small := buildWith(t, map[string]string{
		"internal/seglog/log.go:defaultSegmentSize = 64 << 20":  "16 << 10",
		"broker/compact.go:compactAfter = 10 * time.Second":     "20 * time.Millisecond",
		"broker/journal.go:const minCompact = 64 << 10":         "256",
		"broker/house.go:houseEvery = 50 * time.Millisecond":    "5 * time.Millisecond",
		"internal/seglog/reader.go:firstChunk int64 = 64 << 10": "1 << 10",
	})
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("seed %d", *seed)
	for i, c := range []struct{ name, millrace, sync string }{
		{"sync=2s", shipped, "2s"},
		{"sync=always", shipped, "always"},
		{"sync=2s and small segments", small, "2s"},
		{"sync=always and small segments", small, "always"},
	} {
		t.Run(c.name, func(t *testing.T) {
			killAgainAndAgain(t, c.millrace, c.sync, (*kills+3)/4, rand.New(rand.NewPCG(*seed, uint64(i)))) //nolint:gosec // the same each time
		})
	}
}

// buildWith builds the millrace command with other values for some constants, "file:the
// line up to the value": so that segments turn over, are rewritten and removed, and
// journals are written anew, all the time instead of every few minutes.
func buildWith(t *testing.T, constants map[string]string) (path string) {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/millrace/millrace")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	root, dir := strings.TrimSpace(string(out)), t.TempDir()
	replaced := make(map[string]string)
	for line, value := range constants {
		file, line, _ := strings.Cut(line, ":")
		name, old, _ := strings.Cut(line, " = ")
		source, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		pattern := regexp.MustCompile(regexp.QuoteMeta(name) + ` += ` + regexp.QuoteMeta(old) + `\b`)
		if n := len(pattern.FindAll(source, -1)); n != 1 {
			t.Fatalf("%q stands %d times in %s: say here what it is called now", line, n, file)
		}
		copied := filepath.Join(dir, strings.ReplaceAll(file, "/", "-"))
		source = pattern.ReplaceAll(source, []byte(name+" = "+value))
		if err := os.WriteFile(copied, source, 0o600); err != nil {
			t.Fatal(err)
		}
		replaced[filepath.Join(root, file)] = copied
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "millrace")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", root, "-overlay", filepath.Join(dir, "overlay.json"), "-o", path, "./cmd/millrace")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build millrace with other constants: %v\n%s", err, said)
	}
	return path
}

func killAgainAndAgain(t *testing.T, millrace, sync string, kills int, random *rand.Rand) {
	dir := t.TempDir()
	p, err := node.MillraceProcess(millrace, dir, "--sync="+sync)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Kill() }()
	l := newLoad(t, p.TCP, p.HTTP)
	defer l.stopConsuming()
	defer l.stopPublishing()
	l.start()
	admin := l.administer(random)
	pick := rand.New(rand.NewPCG(random.Uint64(), 2)) //nolint:gosec // the same each time
	for n := range kills {
		life := shortest + time.Duration(pick.Int64N(int64(longest-shortest)))
		if n%oftenIs == oftenIs/2 {
			life = long
		}
		time.Sleep(life)
		l.book.died()
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
	}
	l.stopPublishing()
	for _, topic := range topics {
		l.subscribe(topic, waiting)
		l.subscribe(topic, waiting)
	}
	l.drain()
	l.stopConsuming()
	l.verify(p)
	t.Logf("%d kills: %d messages acknowledged, %d deliveries; %d changes by an administrator, checked %d times",
		kills, l.book.acked, l.book.came, admin.done, admin.checks)
	if l.book.acked == 0 || admin.done == 0 || admin.checks == 0 {
		t.Error("hardly anything was done")
	}
	if err := p.Stop(); err != nil {
		t.Errorf("after all that it does not end in order: %v", err)
	}
}

// verify holds what came, and what is left in the broker, to the book.
func (l *load) verify(p *node.Process) {
	for _, topic := range topics {
		for _, channel := range channels {
			if missing := l.book.missing(topic, channel); len(missing) > 0 {
				l.t.Errorf("channel %s of topic %s: %d acknowledged messages never came, such as %s", channel, topic, len(missing), missing[0])
			}
			least, most := l.book.waiting(topic, channel)
			if left := l.left(topic, channel); left < least || left > most {
				l.t.Errorf("channel %s of topic %s holds %d messages, want %d to %d that are for later", channel, topic, left, least, most)
			}
		}
	}
	for i, wrong := range l.book.wrong {
		if l.t.Error(wrong); i == 10 {
			l.t.Fatalf("and so on, %d in all", len(l.book.wrong))
		}
	}
	if metrics := l.get("/metrics"); !regexp.MustCompile(`(?m)^millrace_damaged_records_total 0$`).MatchString(metrics) {
		l.t.Errorf("damage was found, or is not told; the broker said %s", p.Said())
	}
}

// left is how many messages the channel holds.
func (l *load) left(topic, channel string) int {
	var stats struct {
		Topics []struct {
			Depth    int
			Channels []struct {
				Depth    int
				Deferred int `json:"deferred_count"`
				InFlight int `json:"in_flight_count"`
			}
		}
	}
	text := l.get(fmt.Sprintf("/stats?format=json&include_clients=false&topic=%s&channel=%s", topic, channel))
	if err := json.NewDecoder(bytes.NewBufferString(text)).Decode(&stats); err != nil {
		l.t.Fatal(err)
	}
	if len(stats.Topics) != 1 || len(stats.Topics[0].Channels) != 1 {
		l.t.Fatalf("channel %s of topic %s is not there: %s", channel, topic, text)
	}
	c := stats.Topics[0].Channels[0]
	return stats.Topics[0].Depth + c.Depth + c.Deferred + c.InFlight
}

func (l *load) get(path string) string {
	l.t.Helper()
	resp, err := web.Get(l.http + path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(body)
}
