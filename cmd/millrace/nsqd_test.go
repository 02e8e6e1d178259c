package main

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsqio/go-nsq"
	"github.com/spf13/pflag"
)

func TestCalledNSQDItHasItsFlagsDefaultsAndLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := serveProcess(t, "nsqd", "-data-path", dir, "-max-msg-size=100", "-snappy=false", "-worker-id", "-tls-required=false")
	for _, text := range []string{"[nsqd] time=", "data=" + dir, "sync=2s"} {
		s.awaitLog(text)
	}
	if got := ceilings(s); got != [2]time.Duration{15 * time.Minute, time.Hour} {
		t.Errorf("ceilings %v", got)
	}
	cfg := nsq.NewConfig()
	cfg.Snappy = true
	if terms := identify(t, s, cfg); terms.Snappy || terms.MaxRdyCount != 2500 {
		t.Errorf("terms %+v", terms)
	}
	if err := s.publisher().Publish("t", make([]byte, 101)); err == nil {
		t.Error("-max-msg-size is not heeded")
	}
	if status := s.end(syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// identify tells the broker what a client wants, and returns what it gets.
func identify(t *testing.T, s *served, cfg *nsq.Config) *nsq.IdentifyResponse {
	t.Helper()
	conn := nsq.NewConn(s.tcp, cfg, deaf{})
	conn.SetLogger(nil, nsq.LogLevelMax, "")
	terms, err := conn.Connect()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	return terms
}

// deaf hears nothing of a connection.
type deaf struct{ nsq.ConnDelegate }

func (deaf) OnResponse(*nsq.Conn, []byte) {}
func (deaf) OnError(*nsq.Conn, []byte)    {}
func (deaf) OnHeartbeat(*nsq.Conn)        {}
func (deaf) OnIOError(*nsq.Conn, error)   {}
func (deaf) OnClose(*nsq.Conn)            {}

func TestCalledMillraceItHasNoCeilingsButThoseItIsGiven(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir())
	if got := ceilings(s); got != [2]time.Duration{math.MaxInt64, math.MaxInt64} {
		t.Errorf("ceilings %v", got)
	}
	s = serveProcess(t, "millrace", "--data-path", t.TempDir(), "--max-msg-timeout=2m", "--max-req-timeout=3m")
	if got := ceilings(s); got != [2]time.Duration{2 * time.Minute, 3 * time.Minute} {
		t.Errorf("ceilings %v", got)
	}
}

// ceilings are the longest message timeout and the longest deferral that a client can ask
// for.
func ceilings(s *served) (c [2]time.Duration) {
	s.t.Helper()
	for i, option := range []string{"max_msg_timeout", "max_req_timeout"} {
		_, value := s.get("/config/" + option)
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		c[i] = time.Duration(n)
	}
	return c
}

func TestCalledNSQDItExitsAsNSQDDoes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		says string
		exit int
	}{
		{[]string{"-version"}, "nsqd v1.3.0 (", 0},
		{[]string{"--version"}, "nsqd v1.3.0 (", 0},
		{[]string{"-no-such-flag"}, "nsqd: unknown flag: --no-such-flag; see nsqd --help\n", 1},
		{[]string{"-tls-required"}, "nsqd: --tls-required: TLS needs a certificate", 1},
		{[]string{"-node-id"}, "nsqd: flag needs an argument: --node-id; see nsqd --help\n", 1},
		{[]string{"-data-path", "/no/such", "stray"}, `nsqd: unexpected "stray"`, 1},
		{[]string{"-h"}, "--mem-queue-size", 0},
	} {
		cmd := millraceCommand(t)
		cmd.Args = append([]string{"/opt/nsqd"}, test.args...)
		out, _ := cmd.CombinedOutput()
		if exit := cmd.ProcessState.ExitCode(); exit != test.exit || test.args[0] != "-h" && !strings.HasPrefix(string(out), test.says) {
			t.Errorf("nsqd %v: exit status %d: %s", test.args, exit, out)
		}
	}
}

// The second dash is added where package flag would see a flag, and nowhere else.
func TestOneDashIsAsGoodAsTwo(t *testing.T) {
	flags := pflag.NewFlagSet("nsqd", pflag.ContinueOnError)
	(&serveOptions{nsqd: true}).define(flags)
	for args, want := range map[string]string{
		"-data-path /d":                    "--data-path /d",
		"-data-path=/d --snappy=false":     "--data-path=/d --snappy=false",
		"-data-path -odd -verbose":         "--data-path -odd --verbose",
		"-deflate -snappy":                 "--deflate --snappy",
		"-deflate false -snappy":           "--deflate false -snappy", // the flags end at false
		"-tls-required -data-path x":       "--tls-required --data-path x",
		"-unknown -data-path x":            "--unknown --data-path x",
		"-- -data-path":                    "-- -data-path",
		"-h":                               "--help",
		"-lookupd-tcp-address a:1 --id=-1": "--lookupd-tcp-address a:1 --id=-1",
	} {
		if got := twoDashes(flags, strings.Fields(args)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%q became %q, want %q", args, got, want)
		}
	}
}

const nsqdConfig = `
log_level = "warn"
id = 5
data_path = "%s"
max_msg_timeout = "5m"
msg_timeout = 30000          # milliseconds
max_rdy_count = 77
nsqlookupd_tcp_addresses = ["127.0.0.1:1", "127.0.0.1:2"]
auth_http_addresses = ""
e2e_processing_latency_percentiles = [1.0, 0.95]
snappy = false
deflate = true
tls_min_version = ""
tls_required = false
statsd_prefix = ""
max_output_buffer_timeout = "1s"
of_another_version = true
`

func TestNSQDsConfigurationFileIsRead(t *testing.T) {
	t.Parallel()
	file := fileWith(t, "nsqd.cfg", fmt.Sprintf(nsqdConfig, t.TempDir()))
	s := startServe(t, "nsqd", "-config", file, "-max-rdy-count", "88", "-http-address="+freeAddress(t), "-log-level=info")
	s.awaitLog("door=http")
	s.http = s.address("http")
	for name, want := range map[string]string{
		"max_msg_timeout":                    fmt.Sprint(int64(5 * time.Minute)),
		"msg_timeout":                        fmt.Sprint(int64(30 * time.Second)),
		"max_rdy_count":                      "88", // the command line counts more
		"id":                                 "5",
		"nsqlookupd_tcp_addresses":           `["127.0.0.1:1","127.0.0.1:2"]`,
		"auth_http_addresses":                "[]",
		"e2e_processing_latency_percentiles": "[1,0.95]",
		"snappy":                             "false",
		"deflate":                            "true",
		"tls_required":                       "0",
		"tls_min_version":                    "0",
		"sync_every":                         "2500",
		"sync_timeout":                       fmt.Sprint(int64(2 * time.Second)),
		"tcp_address":                        `127.0.0.1:0`,
	} {
		if _, got := s.get("/config/" + name); got != want {
			t.Errorf("/config/%s: %s, want %s", name, got, want)
		}
	}
	s.awaitLog("there is no setting")
}

func TestABadConfigurationFileIsExplained(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"max_rdy_count = \n":        "cfg, line 1: ",
		"max_rdy_count = \"many\"":  "cfg: max_rdy_count: ",
		"max_msg_timeout = true":    "cfg: max_msg_timeout: ",
		"tls_required = \"maybe\"":  "cfg: tls_required: write true, false or tcp-https",
		"log_level = \"loud\"":      "cfg: log_level: write debug, info, ",
		"no_such_setting = 1":       `cfg: there is no setting "no_such_setting"`,
		"config = \"x\"":            `cfg: there is no setting "config"`,
		"max_rdy_count = {a = 1}\n": "cfg: max_rdy_count: its value is neither text",
	} {
		cmd := millraceCommand(t, "serve", "--data-path", t.TempDir(), "--config", fileWith(t, "cfg", text))
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), says) || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%q: %v %s", text, err, out)
		}
	}
	out, _ := millraceCommand(t, "serve", "--config", "/no/such").CombinedOutput()
	if want := "millrace: --config: cannot read /no/such: no such file or directory\n"; string(out) != want {
		t.Errorf("it said %s", out)
	}
}

// Programs look into -version and /info for nsqd's version.
func TestItSaysWhichNSQDItIsLike(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir(), "--broadcast-address", "broker.example.org")
	_, body := s.get("/info")
	var info struct {
		Version          string `json:"version"`
		BroadcastAddress string `json:"broadcast_address"`
		TCPPort          int    `json:"tcp_port"`
	}
	if err := json.Unmarshal([]byte(body), &info); err != nil {
		t.Fatal(err)
	}
	if info.Version != "1.3.0" || info.BroadcastAddress != "broker.example.org" || !strings.HasSuffix(s.tcp, fmt.Sprint(":", info.TCPPort)) {
		t.Errorf("%+v", info)
	}
}
