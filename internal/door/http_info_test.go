package door

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/broker"
)

func TestPingTellsTheTruthAboutTheDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	synctest.Test(t, func(t *testing.T) {
		b, err := broker.Open(broker.Options{Dir: dir, Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		h := New(b, Config{Logger: quiet()}).Handler(false)
		expect := func(ping, health string) {
			t.Helper()
			time.Sleep(2 * time.Second) // what was found out is taken for true for a while
			resp := ask(h, "GET /ping", "")
			if got := resp.String(); !strings.HasPrefix(got, ping) || resp.header.Get("X-NSQ-Content-Type") != "" {
				t.Errorf("/ping: %s, want %s", got, ping)
			}
			if got := ask(h, "GET /stats?format=json", "").String(); !strings.Contains(got, `"health":"`+health) {
				t.Errorf("/stats: %s, want %s", got, health)
			}
			if got := ask(h, "GET /metrics", "").String(); strings.Contains(got, "\nmillrace_healthy 1\n") != (health == `OK"`) {
				t.Errorf("/metrics does not say that the health is %s", health)
			}
		}
		expect("200 OK", `OK"`)
		// Whoever runs the test may write anywhere, but not to what is not there.
		if err := os.Rename(dir, dir+".gone"); err != nil {
			t.Fatal(err)
		}
		expect("500 NOK - ", "NOK - ")
		if err := os.Rename(dir+".gone", dir); err != nil {
			t.Fatal(err)
		}
		expect("200 OK", `OK"`)
	})
}

func TestInfoHasTheKeysOfNsqd(t *testing.T) {
	h := opened(t, Config{MaxHeartbeatInterval: time.Second, MaxOutputBufferSize: 1, MaxOutputBufferTimeout: 2, MaxDeflateLevel: 3}).Handler(false)
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`"start_time":\d{10},`).ReplaceAllString(ask(h, "GET /info", "").String(), "")
	want := fmt.Sprintf(`200 {"version":"1.3.0","broadcast_address":"me.example","hostname":%q,"http_port":4151,"tcp_port":4150,`+
		`"max_heartbeat_interval":1000000000,"max_output_buffer_size":1,"max_output_buffer_timeout":2,"max_deflate_level":3}`, hostname)
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWhatTheProgramKnowsOfItsOptionsIsTold(t *testing.T) {
	h := opened(t, Config{Options: map[string]any{"mem_queue_size": 10_000, "data_path": "/data"}}).Handler(false)
	for name, want := range map[string]string{"mem_queue_size": "200 10000", "data_path": "200 /data"} {
		if got := ask(h, "GET /config/"+name, "").String(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
