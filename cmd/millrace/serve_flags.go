package main

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/millrace/millrace/broker"
)

// define defines the flags: nsqd's, in its order, and our own.
func (o *serveOptions) define(f *pflag.FlagSet) {
	f.SortFlags = false
	o.defineStorage(f)
	o.defineDoors(f)
	o.defineSafety(f)
	o.defineLimits(f)
	o.defineOthers(f)
	defineWithoutEffect(f)
}

// or returns nsqd's default when the program is called so, else our own.
func or[T any](asNSQD bool, nsqds, ours T) T {
	if asNSQD {
		return nsqds
	}
	return ours
}

func (o *serveOptions) defineStorage(f *pflag.FlagSet) {
	f.StringVar(&o.broker.Dir, "data-path", "", "keep the messages in this `DIR`")
	o.sync = syncMode(broker.SyncAlways)
	f.Var(&o.sync, "sync", "sync messages to the disk by this `RULE`: always before they are acknowledged, never, or within a time such as 2s")
	f.Var((*span)(&o.broker.Retain), "retain", "keep messages for this `TIME` at least, such as 24h or 7d, when all have consumed them, so that a channel can be replayed; see millrace replay (0: they go)")
	f.Lookup("retain").DefValue = "0"
	f.Var((*byteSize)(&o.broker.DiskLowWater), "disk-low-water", "refuse to publish while the disk has fewer `BYTES` free than this, such as 1GiB; all else goes on (0: until it is full)")
	f.DurationVar(&o.syncTimeout, "sync-timeout", 2*time.Second, "nsqd's --sync: within this `TIME`, when the program is called nsqd")
	if !o.nsqd {
		hide(f, "sync-timeout")
	}
}

func (o *serveOptions) defineDoors(f *pflag.FlagSet) {
	host := or(o.nsqd, "0.0.0.0", "127.0.0.1")
	d := &o.door
	f.StringVar(&o.tcpAddress, "tcp-address", host+":4150", "listen for TCP clients on `HOST:PORT`, or on the path of a Unix socket")
	f.StringVar(&o.httpAddress, "http-address", host+":4151", "listen for HTTP clients on `HOST:PORT`, or on the path of a Unix socket")
	f.StringVar(&o.httpsAddress, "https-address", host+":4152", "listen for HTTPS clients on `HOST:PORT`, when there is a certificate")
	f.StringVar(&d.BroadcastAddress, "broadcast-address", "", "the `HOST` that others are told to reach the broker at (default the host's name)")
	f.IntVar(&d.BroadcastTCPPort, "broadcast-tcp-port", 0, "the TCP `PORT` that others are told (default the one it listens on)")
	f.IntVar(&d.BroadcastHTTPPort, "broadcast-http-port", 0, "the HTTP `PORT` that others are told (default the one it listens on)")
	f.StringArrayVar(&d.LookupdTCPAddresses, "lookupd-tcp-address", nil, "register with the nsqlookupd at `HOST:PORT` (may be repeated)")
	f.DurationVar(&d.HTTPClientConnectTimeout, "http-client-connect-timeout", 2*time.Second, "wait this `TIME` for a connection to nsqlookupd and to auth servers")
	f.DurationVar(&d.HTTPClientRequestTimeout, "http-client-request-timeout", 5*time.Second, "wait this `TIME` for their answer")
}

func (o *serveOptions) defineSafety(f *pflag.FlagSet) {
	d := &o.door
	f.StringVar(&o.tokenFile, "auth-token-file", "", "let in who shows a token of `FILE`, whose lines are: TOKEN NAME ACTION:TOPIC[/CHANNEL]...")
	f.StringArrayVar(&d.AuthHTTPAddresses, "auth-http-address", nil, "ask the auth server at `HOST:PORT` or URL what a TCP client may do (may be repeated)")
	f.StringVar(&o.tls.cert, "tls-cert", "", "the certificate, in a PEM `FILE`")
	f.StringVar(&o.tls.key, "tls-key", "", "its key, in a PEM `FILE`")
	f.StringVar(&o.tls.ca, "tls-root-ca-file", "", "the authorities that sign clients' certificates, in a PEM `FILE`")
	f.Var(&o.tlsRequired, "tls-required", "refuse clients without TLS: by `WHOM`, true for all, or tcp-https for all but HTTP")
	f.Lookup("tls-required").NoOptDefVal = "true"
	f.StringVar(&o.tls.policy, "tls-client-auth-policy", "", "want a certificate of clients by this `POLICY`: require, or require-verify")
	f.Var(&o.tls.minVersion, "tls-min-version", "the oldest `VERSION` of TLS: tls1.0, tls1.1, tls1.2 or tls1.3 (default tls1.2)")
	f.IntVar(&d.MaxConnections, "max-connections", 0, "refuse more than `N` TCP, and as many HTTP, connections at a time (default no limit)")
}

func (o *serveOptions) defineLimits(f *pflag.FlagSet) {
	d := &o.door
	f.IntVar(&d.MaxMsgSize, "max-msg-size", 1<<20, "refuse messages of more than `BYTES`")
	f.IntVar(&d.MaxBodySize, "max-body-size", 5<<20, "refuse batches of more than `BYTES`")
	f.DurationVar(&d.MsgTimeout, "msg-timeout", time.Minute, "deliver a message again when its client has not answered for this `TIME`")
	f.DurationVar(&d.MaxMsgTimeout, "max-msg-timeout", or(o.nsqd, 15*time.Minute, 0), "the longest such `TIME` that a client can ask for (0: no limit)")
	f.DurationVar(&d.MaxReqTimeout, "max-req-timeout", or(o.nsqd, time.Hour, 0), "the longest `TIME` that a message can be deferred for (0: no limit)")
	f.IntVar(&o.broker.MaxAttempts, "max-attempts", 0, "put a message that a channel has delivered `N` times, and is to deliver again, into the topic TOPIC.dead; see millrace dead (0: never)")
	f.IntVar(&d.MaxRdyCount, "max-rdy-count", 2500, "refuse clients more than `N` messages in flight")
	f.IntVar(&d.MaxChannelConsumers, "max-channel-consumers", 0, "refuse a channel more than `N` clients (0: no limit)")
	f.DurationVar(&d.MaxHeartbeatInterval, "max-heartbeat-interval", time.Minute, "the longest `TIME` between heartbeats that a client can ask for")
	f.IntVar(&d.MaxOutputBufferSize, "max-output-buffer-size", 64<<10, "the largest output buffer that a client can ask for, in `BYTES`")
	f.DurationVar(&d.MaxOutputBufferTimeout, "max-output-buffer-timeout", 30*time.Second, "the longest `TIME` in it that a client can ask for; nothing waits in it for a timer here")
	f.DurationVar(&d.MinOutputBufferTimeout, "min-output-buffer-timeout", 25*time.Millisecond, "the shortest such `TIME`")
	f.DurationVar(&d.OutputBufferTimeout, "output-buffer-timeout", 250*time.Millisecond, "the `TIME` that a client is told that did not ask for one")
	f.BoolVar(&o.deflate, "deflate", true, "let clients compress with deflate")
	f.IntVar(&d.MaxDeflateLevel, "max-deflate-level", 6, "the highest `LEVEL` of deflate that a client can ask for")
	f.BoolVar(&o.snappy, "snappy", true, "let clients compress with snappy")
}

func (o *serveOptions) defineOthers(f *pflag.FlagSet) {
	s := &o.door.Statsd
	f.StringVar(&s.Address, "statsd-address", "", "push counts to the statsd at `HOST:PORT`, over UDP")
	f.StringVar(&s.Prefix, "statsd-prefix", "nsq.%s", "begin their names with this `TEXT`, in which %s is this broker's address")
	f.DurationVar(&s.Interval, "statsd-interval", time.Minute, "push them every `TIME`")
	f.BoolVar(&o.statsdMemory, "statsd-mem-stats", true, "push figures of the memory too")
	f.IntVar(&s.PacketSize, "statsd-udp-packet-size", 508, "send packets of at most `BYTES`")
	f.BoolVar(&s.NoEphemeral, "statsd-exclude-ephemeral", false, "leave out ephemeral topics and channels")
	f.Var(&o.logLevel, "log-level", "log what is at least so important: debug, info, warn, error or fatal")
	f.StringVar(&o.logPrefix, "log-prefix", or(o.nsqd, "[nsqd] ", ""), "begin each line of the log with this `TEXT`")
	f.StringVar(&o.configFile, "config", "", "read flags from nsqd's configuration `FILE`, in TOML; those of the command line count more")
	f.BoolVar(&o.version, "version", false, "print the version")
}

// withoutEffect are the flags of nsqd that have no meaning here, and why.
var withoutEffect = []struct{ name, why string }{
	{"node-id", "a message's id is its sequence number"},
	{"worker-id", "a message's id is its sequence number"},
	{"verbose", "use --log-level"},
	{"mem-queue-size", "every message is in the log, and the recent ones are served from memory"},
	{"max-bytes-per-file", "the log's segments have a size of their own"},
	{"sync-every", "messages are synced by time, all that wait together: see --sync"},
	{"queue-scan-worker-pool-max", "nothing is scanned for timeouts"},
	{"queue-scan-selection-count", "nothing is scanned for timeouts"},
	{"e2e-processing-latency-percentile", "the age of the oldest message and the rates are under /metrics"},
	{"e2e-processing-latency-window-time", "the age of the oldest message and the rates are under /metrics"},
}

// defineWithoutEffect defines those with nsqd's types and defaults, because /config tells
// their values.
func defineWithoutEffect(f *pflag.FlagSet) {
	f.Int64("node-id", 0, "")
	f.Bool("worker-id", false, "")
	f.Bool("verbose", false, "")
	f.Int64("mem-queue-size", 10_000, "")
	f.Int64("max-bytes-per-file", 100<<20, "")
	f.Int64("sync-every", 2500, "")
	f.Int("queue-scan-worker-pool-max", 4, "")
	f.Int("queue-scan-selection-count", 20, "")
	f.Float64Slice("e2e-processing-latency-percentile", nil, "")
	f.Duration("e2e-processing-latency-window-time", 10*time.Minute, "")
	for _, flag := range withoutEffect {
		hide(f, flag.name)
	}
}

// noteWithoutEffect has the log say which of the user's flags do nothing.
func (o *serveOptions) noteWithoutEffect() {
	for _, flag := range withoutEffect {
		if o.given.Changed(flag.name) {
			o.notes = append(o.notes, "--"+flag.name+" has no effect: "+flag.why)
		}
	}
	if o.given.Changed("sync-timeout") && (!o.nsqd || o.given.Changed("sync")) {
		o.notes = append(o.notes, "--sync-timeout has no effect: --sync says when messages are synced")
	}
}

func hide(f *pflag.FlagSet, name string) {
	if err := f.MarkHidden(name); err != nil {
		panic(err) // no such flag
	}
}
