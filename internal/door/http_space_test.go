package door

import (
	"regexp"
	"strings"
	"testing"

	"github.com/millrace/millrace/broker"
)

// Below its low-water mark the broker says so to whoever publishes, asks after its health, or
// reads its metrics.
func TestALowDiskIsTold(t *testing.T) {
	const mark = 1 << 62 // more than any disk has
	b, err := broker.Open(broker.Options{Dir: t.TempDir(), DiskLowWater: mark})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	h := New(b, Config{}).Handler(false)
	if got := ask(h, "POST /pub?topic=t", "x"); got.status != 507 || !strings.Contains(got.body, `"NO_SPACE - publish to topic t: the disk`) || !strings.Contains(got.body, "--disk-low-water") {
		t.Errorf("publishing: %s", got)
	}
	says := regexp.MustCompile(`^NOK - the disk of the data directory has [1-9][0-9]* bytes free, less than the 4611686018427387904 of --disk-low-water: `)
	if got := ask(h, "GET /ping", ""); got.status != 500 || !says.MatchString(got.body) {
		t.Errorf("/ping: %s", got)
	}
	if got := ask(h, "GET /stats", "").body; !strings.Contains(got, "--disk-low-water") {
		t.Errorf("/stats: %s", got)
	}
	metrics := ask(h, "GET /metrics", "").body
	for _, line := range []string{
		`millrace_healthy 0`, `millrace_disk_low_water_bytes 4\.6116860\d+e\+18`, `millrace_disk_free_bytes [1-9]\S+`,
		`millrace_topic_retained_bytes\{topic="t"\} 0`,
	} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(metrics) {
			t.Errorf("/metrics does not say %s", line)
		}
	}
	if got := ask(h, "POST /channel/create?topic=t&channel=c", "").String(); got != "200" {
		t.Errorf("a channel: %s", got)
	}
}
