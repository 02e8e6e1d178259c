package door

import (
	"crypto/tls"
	"log/slog"
	"math"
	"os"
	"time"
)

// Config says who the broker is and what its doors let in. The zero value is usable: its
// limits are nsqd's defaults, but for the two that say otherwise.
type Config struct {
	// BroadcastAddress is the name or address under which others reach this broker; ""
	// means the host's name. The ports are told to them with it; 0 means those that the
	// doors listen on.
	BroadcastAddress  string
	BroadcastTCPPort  int
	BroadcastHTTPPort int
	// TCPPort, HTTPPort and HTTPSPort are where the doors listen; 0 for one that does not,
	// -1 for a Unix socket.
	TCPPort   int
	HTTPPort  int
	HTTPSPort int
	// Version is what clients are told, nsqd's; "" means DefaultVersion.
	Version string

	// LookupdTCPAddresses are the nsqlookupds, "HOST:PORT", that are kept told of the
	// broker's topics and channels. PUT /config/nsqlookupd_tcp_addresses changes them.
	LookupdTCPAddresses []string
	// Statsd says where counts are pushed to, if anywhere.
	Statsd Statsd
	// Options is what GET /config/NAME answers besides what the door itself knows: nsqd's
	// options and their values, as JSON has them.
	Options map[string]any

	// MaxMsgSize is the most bytes of a message, MaxBodySize of a command's body. 0 means
	// 1 MiB and 5 MiB.
	MaxMsgSize  int
	MaxBodySize int
	// MsgTimeout is how long a client has a message for, unless it says otherwise when it
	// identifies; 0 means a minute. MaxMsgTimeout is the most it may say, and the most
	// that touching a message can make of it; 0 means no limit (nsqd: 15 minutes).
	MsgTimeout    time.Duration
	MaxMsgTimeout time.Duration
	// MaxReqTimeout is the longest that a message can be deferred; 0 means no limit
	// (nsqd: an hour).
	MaxReqTimeout time.Duration
	// MaxRdyCount is the most messages a client can have in flight; 0 means 2500.
	MaxRdyCount int
	// MaxChannelConsumers is the most clients of one channel; 0 means no limit.
	MaxChannelConsumers int
	// MaxConnections is the most clients over TCP at a time, and again the most over HTTP;
	// 0 means no limit.
	MaxConnections int

	// ClientTimeout is how long a client may be silent: it gets a heartbeat each half of
	// it, unless it says otherwise, up to MaxHeartbeatInterval. 0 means a minute each.
	ClientTimeout        time.Duration
	MaxHeartbeatInterval time.Duration
	// What clients may ask of the broker's output buffer for them. Nothing waits in it
	// for a timer here, so the timeouts are only checked and told. 0 means 64 KiB, 25 ms,
	// 30 s and 250 ms.
	MaxOutputBufferSize    int
	MinOutputBufferTimeout time.Duration
	MaxOutputBufferTimeout time.Duration
	OutputBufferTimeout    time.Duration

	// NoDeflate and NoSnappy refuse compression. MaxDeflateLevel is 1 to 9; 0 means 6.
	NoDeflate       bool
	NoSnappy        bool
	MaxDeflateLevel int

	// TLS lets clients upgrade to TLS, and serves HTTPS; nil means no TLS. TLSRequired
	// refuses those that do not, and plain HTTP unless TLSExceptHTTP is set.
	TLS           *tls.Config
	TLSRequired   bool
	TLSExceptHTTP bool

	// Tokens, when not nil, makes clients authenticate; so do AuthHTTPAddresses, which
	// are servers that are asked what a client may do, "HOST:PORT" or a URL. With both, a
	// secret that is no token is shown to the servers.
	Tokens            *Tokens
	AuthHTTPAddresses []string
	// AuthHTTPPost asks them by POST with a form, instead of GET with a query.
	AuthHTTPPost bool
	// AuthTLS is used with those that speak https.
	AuthTLS *tls.Config
	// How long to wait for the servers that the broker asks, to connect and in all. 0
	// means 2 s and 5 s.
	HTTPClientConnectTimeout time.Duration
	HTTPClientRequestTimeout time.Duration

	// Logger is told who comes and goes, and what goes wrong. nil means slog.Default().
	Logger *slog.Logger
	// LogLevel is what PUT /config/log_level changes; nil means one that nobody heeds.
	LogLevel *slog.LevelVar
}

// DefaultVersion is the version of nsqd that the doors are like.
const DefaultVersion = "1.3.0"

// noLimit is a duration that nothing exceeds.
const noLimit = time.Duration(math.MaxInt64)

func (c Config) withDefaults() Config {
	if c.BroadcastAddress == "" {
		c.BroadcastAddress, _ = os.Hostname()
	}
	orElse(&c.BroadcastTCPPort, c.TCPPort)
	orElse(&c.BroadcastHTTPPort, c.HTTPPort)
	orElse(&c.Version, DefaultVersion)
	orElse(&c.MaxMsgSize, 1<<20)
	orElse(&c.MaxBodySize, 5<<20)
	orElse(&c.MsgTimeout, time.Minute)
	orElse(&c.MaxMsgTimeout, noLimit)
	orElse(&c.MaxReqTimeout, noLimit)
	orElse(&c.MaxRdyCount, 2500)
	orElse(&c.ClientTimeout, time.Minute)
	orElse(&c.MaxHeartbeatInterval, time.Minute)
	orElse(&c.MaxOutputBufferSize, 64<<10)
	orElse(&c.MinOutputBufferTimeout, 25*time.Millisecond)
	orElse(&c.MaxOutputBufferTimeout, 30*time.Second)
	orElse(&c.OutputBufferTimeout, 250*time.Millisecond)
	orElse(&c.MaxDeflateLevel, 6)
	orElse(&c.HTTPClientConnectTimeout, 2*time.Second)
	orElse(&c.HTTPClientRequestTimeout, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.LogLevel == nil {
		c.LogLevel = new(slog.LevelVar)
	}
	c.Statsd = c.Statsd.withDefaults()
	return c
}

// orElse sets what is zero.
func orElse[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// identification is what the broker tells nsqlookupd of itself.
func (c Config) identification() identification {
	hostname, _ := os.Hostname()
	return identification{
		BroadcastAddress: c.BroadcastAddress, Hostname: hostname,
		TCPPort: c.BroadcastTCPPort, HTTPPort: c.BroadcastHTTPPort, Version: c.Version,
	}
}
