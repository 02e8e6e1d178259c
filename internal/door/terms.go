package door

import (
	"net"
	"time"
)

// terms are what a client and the broker agree on when the client identifies.
type terms struct {
	clientID, hostname, userAgent string
	heartbeat                     time.Duration // 0: none
	outputSize                    int           // as the client is told
	outputAsked                   bool          // the size is what the client wants
	outputTimeout                 time.Duration
	sampleRate                    int
	msgTimeout                    time.Duration
}

const (
	minHeartbeat  = 1000 // ms
	minMsgTimeout = 1000 // ms
	minOutputSize = 64
	outputSize    = 16 << 10
)

func defaultTerms(cfg *Config, client net.Addr) terms {
	host, _, _ := net.SplitHostPort(client.String())
	return terms{
		clientID: host, hostname: host,
		heartbeat:  cfg.ClientTimeout / 2,
		outputSize: outputSize, outputTimeout: cfg.OutputBufferTimeout,
		msgTimeout: cfg.MsgTimeout,
	}
}

// writeSize is how many bytes of messages are written together: more than NSQ's default
// for clients that do not care.
func (t *terms) writeSize() int {
	if t.outputAsked {
		return t.outputSize
	}
	return max(t.outputSize, 64<<10)
}
