package differ

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/peers/node"
)

// flags are nsqd's, with values that are not the defaults, and how the answers of GET
// /config call them. Paths and addresses are the test's own.
const flags = `
	node-id=7 id
	log-level=warn
	broadcast-address=here.example
	max-bytes-per-file=1000000
	mem-queue-size=5
	sync-every=10
	sync-timeout=1s
	queue-scan-worker-pool-max=2
	queue-scan-selection-count=3
	msg-timeout=5s
	max-msg-timeout=10s
	max-msg-size=2048
	max-req-timeout=20s
	max-body-size=8192
	max-heartbeat-interval=30s
	max-rdy-count=77
	max-output-buffer-size=4096
	max-output-buffer-timeout=2s
	min-output-buffer-timeout=50ms
	output-buffer-timeout=100ms
	max-channel-consumers=1
	statsd-interval=10s
	statsd-mem-stats=false
	statsd-udp-packet-size=600
	statsd-exclude-ephemeral=true
	e2e-processing-latency-percentile=0.99 e2e_processing_latency_percentiles
	e2e-processing-latency-window-time=1m
	deflate=false
	snappy=false
	max-deflate-level=3
	http-client-connect-timeout=1s
	http-client-request-timeout=3s
	auth-http-address=127.0.0.1:1 auth_http_addresses`

// Called nsqd, Millrace takes nsqd's flags, with one dash or two, and its configuration
// file, and answers like an nsqd that was told the same.
func TestCalledNSQD(t *testing.T) {
	t.Parallel()
	theirs, err := node.Tool(t.Context(), "nsqd")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := node.BuildMillrace(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "nsqd")
	if err := os.Symlink(ours, link); err != nil {
		t.Fatal(err)
	}
	var asks, one, two []string
	file := "# as nsqd has it\n"
	for line := range strings.Lines(strings.TrimSpace(flags)) {
		flag, key, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, value, _ := strings.Cut(flag, "=")
		if key == "" {
			key = strings.ReplaceAll(name, "-", "_")
		}
		asks = append(asks, key)
		one, two = append(one, "-"+flag), append(two, "--"+flag)
		file += key + " = " + inTOML(key, value) + "\n"
	}
	config := filepath.Join(t.TempDir(), "nsqd.cfg")
	if err := os.WriteFile(config, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, with := range map[string][]string{
		"defaults": nil, "one dash": one, "two dashes": two, "configuration file": {"-config=" + config},
		"a flag over the file": {"-config", config, "-max-rdy-count", "78", "--msg-timeout", "6s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := pair{theirs: process(t, "nsqd", theirs, with), ours: process(t, "millrace", link, with)}
			var st steps
			for _, key := range asks {
				if key == "id" && with == nil {
					continue // nsqd's is a checksum of the host's name, and means nothing here
				}
				st = append(st, web("GET", "/config/"+key))
			}
			st = append(st, web("GET", "/info"), open("a"), ask("a", identify(`{"feature_negotiation":true,"deflate":true,"snappy":true}`)), shut("a"), end("a"))
			p.compare(t, script{steps: st}, "t")
		})
	}
}

// inTOML writes a value as the configuration file has it.
func inTOML(key, value string) string {
	switch {
	case key == "auth_http_addresses":
		return `["` + value + `"]`
	case key == "e2e_processing_latency_percentiles":
		return "[" + value + "]"
	case value == "true" || value == "false" || strings.Trim(value, "0123456789") == "":
		return value
	}
	return `"` + value + `"`
}

// hosts numbers the hosts of loopback that processes listen on. On 127.0.0.1 a port that was
// free a moment ago could be taken by another test.
var hosts atomic.Int32

func host() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 1+pid%250, 1+pid/250%250, hosts.Add(1))
}

// process starts a program that takes nsqd's flags.
func process(t *testing.T, name, path string, flags []string) *node.Node {
	t.Helper()
	at := host()
	tcp, web := at+":4150", at+":4151"
	p, err := node.NSQDProcess(path, t.TempDir(), append(slices.Clone(flags), "--tcp-address="+tcp, "--http-address="+web)...)
	if err != nil {
		t.Fatal(err)
	}
	p.TCP, p.HTTP = tcp, web
	if err := p.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Errorf("stop %s: %v", name, err)
		}
	})
	return &node.Node{Name: name, TCP: p.TCP, HTTP: p.HTTP}
}
