package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/door"
)

// serveOptions are what the user asks of serve.
type serveOptions struct {
	nsqd       bool // called so
	version    bool
	configFile string

	door   door.Config    // what has no field of its own below
	broker broker.Options // the same

	tcpAddress, httpAddress, httpsAddress string

	sync         syncMode
	syncTimeout  time.Duration // nsqd's
	deflate      bool
	snappy       bool
	tls          tlsFiles
	tlsRequired  tlsRequired
	tokenFile    string
	statsdMemory bool
	logLevel     logLevel
	levelByHand  bool // on the command line
	logPrefix    string

	given *pflag.FlagSet // what the user wrote
	notes []string       // what the log should say of it
}

// resolve reads the configuration file and checks everything that can be checked without
// changing anything.
func (o *serveOptions) resolve(f *pflag.FlagSet) error {
	o.given, o.levelByHand = f, f.Changed("log-level")
	if o.configFile != "" {
		settings, err := readConfig(o.configFile)
		if err != nil {
			return err
		}
		if err := o.apply(settings); err != nil {
			return err
		}
	}
	if err := o.check(); err != nil {
		return err
	}
	if o.broker.Dir == "" {
		if !o.nsqd {
			return errNoDataPath
		}
		o.broker.Dir = "."
	}
	o.broker.Sync = time.Duration(o.sync)
	if o.nsqd && !f.Changed("sync") {
		o.broker.Sync = o.syncTimeout
	}
	o.door.Statsd.NoMemory = !o.statsdMemory
	if o.door.Statsd.Prefix == "" {
		o.door.Statsd.Prefix = "." // the door's word for none
	}
	o.door.NoDeflate, o.door.NoSnappy = !o.deflate, !o.snappy
	if o.tls.policy != "" && o.tlsRequired == tlsNotRequired {
		o.tlsRequired = tlsAlways
	}
	o.door.TLSRequired = o.tlsRequired != tlsNotRequired
	o.door.TLSExceptHTTP = o.tlsRequired == tlsExceptHTTP
	o.door.Options = nsqdOptions(f)
	o.noteWithoutEffect()
	return nil
}

// maxMessage is the most that --max-msg-size can be: what the broker can take with headers.
const maxMessage = broker.DefaultMaxMessage - 1<<20

// check refuses values that no sense can be made of.
func (o *serveOptions) check() error {
	d := &o.door
	for flag, n := range map[string]int{
		"max-msg-size": d.MaxMsgSize, "max-body-size": d.MaxBodySize, "max-rdy-count": d.MaxRdyCount,
		"max-output-buffer-size": d.MaxOutputBufferSize, "statsd-udp-packet-size": d.Statsd.PacketSize,
	} {
		if n <= 0 || n > math.MaxInt32 {
			return flagError(flag, "%d is out of range: write a number from 1 to %d", n, math.MaxInt32)
		}
	}
	if d.MaxMsgSize > maxMessage {
		return flagError("max-msg-size", "a message can have at most %d bytes", maxMessage)
	}
	for flag, n := range map[string]int{"max-channel-consumers": d.MaxChannelConsumers, "max-connections": d.MaxConnections} {
		if n < 0 {
			return flagError(flag, "%d is not a number of clients (0 means no limit)", n)
		}
	}
	if n := o.broker.MaxAttempts; n < 0 || n > math.MaxInt32 {
		return flagError("max-attempts", "%d is not a number of deliveries (0 means no limit)", n)
	}
	for flag, n := range map[string]int{"broadcast-tcp-port": d.BroadcastTCPPort, "broadcast-http-port": d.BroadcastHTTPPort} {
		if n < 0 || n > math.MaxUint16 {
			return flagError(flag, "%d is not a port", n)
		}
	}
	for flag, t := range map[string]time.Duration{
		"msg-timeout": d.MsgTimeout, "sync-timeout": o.syncTimeout, "max-heartbeat-interval": d.MaxHeartbeatInterval,
		"max-output-buffer-timeout": d.MaxOutputBufferTimeout, "min-output-buffer-timeout": d.MinOutputBufferTimeout,
		"output-buffer-timeout": d.OutputBufferTimeout, "http-client-connect-timeout": d.HTTPClientConnectTimeout,
		"http-client-request-timeout": d.HTTPClientRequestTimeout, "statsd-interval": d.Statsd.Interval,
	} {
		if t <= 0 {
			return flagError(flag, "%v is no time: write one such as 30s", t)
		}
	}
	if o.broker.Retain < 0 {
		return flagError("retain", "%v is less than nothing (0 means that consumed messages go)", o.broker.Retain)
	}
	for flag, t := range map[string]time.Duration{"max-msg-timeout": d.MaxMsgTimeout, "max-req-timeout": d.MaxReqTimeout} {
		if t < 0 {
			return flagError(flag, "%v is less than nothing (0 means no limit)", t)
		}
	}
	if d.MaxDeflateLevel < 1 || d.MaxDeflateLevel > 9 {
		return flagError("max-deflate-level", "%d is not a level from 1 to 9", d.MaxDeflateLevel)
	}
	return o.checkTLS()
}

func (o *serveOptions) checkTLS() error {
	t := &o.tls
	switch t.policy {
	case "", "require", "require-verify":
	default:
		return flagError("tls-client-auth-policy", "%q is neither require nor require-verify", t.policy)
	}
	switch {
	case (t.cert == "") != (t.key == ""):
		return flagError("tls-cert", "a certificate and its key come together: give --tls-cert and --tls-key")
	case t.cert == "" && (o.tlsRequired != tlsNotRequired || t.policy != ""):
		return flagError("tls-required", "TLS needs a certificate: give --tls-cert and --tls-key")
	case t.policy == "require-verify" && t.ca == "":
		o.notes = append(o.notes, "--tls-client-auth-policy=require-verify without --tls-root-ca-file: clients are verified by the system's authorities")
	}
	return nil
}

// syncMode is the value of --sync: always, never, or for how long a message may be
// written but not synced.
type syncMode time.Duration

func (s *syncMode) String() string {
	switch time.Duration(*s) {
	case broker.SyncAlways:
		return "always"
	case broker.SyncNever:
		return "never"
	}
	return time.Duration(*s).String()
}

func (s *syncMode) Type() string { return "when" }

func (s *syncMode) Set(text string) error {
	switch strings.ToLower(text) {
	case "always":
		*s = syncMode(broker.SyncAlways)
		return nil
	case "never":
		*s = syncMode(broker.SyncNever)
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return fmt.Errorf("write always, never, or a duration such as 2s")
	}
	*s = syncMode(d)
	return nil
}

// tlsRequired is the value of nsqd's --tls-required.
type tlsRequired int

// The values, numbered as nsqd tells them under /config.
const (
	tlsNotRequired tlsRequired = iota
	tlsExceptHTTP
	tlsAlways
)

func (t *tlsRequired) String() string { return [...]string{"false", "tcp-https", "true"}[*t] }

func (t *tlsRequired) Type() string { return "who" }

// Get is what /config tells.
func (t *tlsRequired) Get() any { return int(*t) }

func (t *tlsRequired) Set(text string) error {
	if strings.EqualFold(text, "tcp-https") {
		*t = tlsExceptHTTP
		return nil
	}
	required, err := strconv.ParseBool(strings.ToLower(text))
	switch {
	case err != nil:
		return fmt.Errorf("write true, false or tcp-https")
	case required:
		*t = tlsAlways
	default:
		*t = tlsNotRequired
	}
	return nil
}
