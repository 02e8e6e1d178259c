package differ

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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

// places are options that say where something is, or is not, with the keys of GET /config.
const places = `
	log_prefix tcp_address http_address https_address broadcast_tcp_port broadcast_http_port nsqlookupd_tcp_addresses
	statsd_address statsd_prefix tls_cert tls_key tls_client_auth_policy tls_root_ca_file tls_required`

// Called nsqd, Millrace takes nsqd's flags, with one dash or two, and its configuration
// file, and answers like an nsqd that was told the same.
func TestCalledNSQD(t *testing.T) {
	t.Parallel()
	theirs, ours := programs(t)
	asks := strings.Fields(places)
	var one, two []string
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
			p := pair{theirs: process(t, "nsqd", theirs, with), ours: process(t, "millrace", ours, with)}
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

// nsqd's TLS begins at 1.0 unless it is told otherwise.
func TestOldTLS(t *testing.T) {
	t.Parallel()
	theirs, ours := programs(t)
	cert, key := certificate(t, "localhost")
	flags := func(more ...string) pair {
		with := func() []string {
			return append([]string{"--tls-cert=" + cert, "--tls-key=" + key, "--output-buffer-timeout=25ms", "--https-address=" + newHost() + ":4152"}, more...)
		}
		return pair{theirs: process(t, "nsqd", theirs, with()), ours: process(t, "millrace", ours, with())}
	}
	old := steps{
		open("a"), ask("a", identify(`{"feature_negotiation":true,"tls_v1":true}`)), func(s *session) {
			secure := tls.Client(s.conn("a").Conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
			_ = secure.SetDeadline(time.Now().Add(patience))
			s.note("TLS 1.1: %v", secure.Handshake())
		},
	}
	flags().compare(t, script{
		because: "TLS before 1.2", steps: old,
		ours: []string{"a: " + strings.Replace(agreed("true"), `timeout\":1}`, `timeout\":25}`, 1), "TLS 1.1: remote error: tls: protocol version not supported"},
	}, "old")
	flags("--tls-min-version=tls1.0").compare(t, script{steps: old}, "old")
	flags("--tls-min-version=tls1.2").compare(t, script{steps: old}, "old")
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

// programs are the paths of nsqd, and of Millrace under that name.
func programs(t *testing.T) (theirs, ours string) {
	t.Helper()
	theirs, err := node.Tool(t.Context(), "nsqd")
	if err != nil {
		t.Fatal(err)
	}
	built, err := node.BuildMillrace(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ours = filepath.Join(t.TempDir(), "nsqd")
	if err := os.Symlink(built, ours); err != nil {
		t.Fatal(err)
	}
	return theirs, ours
}

// process starts a program that takes nsqd's flags.
func process(t *testing.T, name, path string, flags []string) *node.Node {
	t.Helper()
	host := newHost()
	tcp, web := host+":4150", host+":4151"
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
