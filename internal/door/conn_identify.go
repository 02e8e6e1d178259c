package door

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/nsqwire"
)

// identity is what IDENTIFY says.
type identity struct {
	ClientID            string `json:"client_id"`
	Hostname            string `json:"hostname"`
	HeartbeatInterval   int    `json:"heartbeat_interval"`
	OutputBufferSize    int    `json:"output_buffer_size"`
	OutputBufferTimeout int    `json:"output_buffer_timeout"`
	FeatureNegotiation  bool   `json:"feature_negotiation"`
	TLSv1               bool   `json:"tls_v1"`
	Deflate             bool   `json:"deflate"`
	DeflateLevel        int    `json:"deflate_level"`
	Snappy              bool   `json:"snappy"`
	SampleRate          int32  `json:"sample_rate"`
	UserAgent           string `json:"user_agent"`
	MsgTimeout          int    `json:"msg_timeout"`
}

// features is what a client is told that negotiates.
type features struct {
	MaxRdyCount         int64  `json:"max_rdy_count"`
	Version             string `json:"version"`
	MaxMsgTimeout       int64  `json:"max_msg_timeout"`
	MsgTimeout          int64  `json:"msg_timeout"`
	TLSv1               bool   `json:"tls_v1"`
	Deflate             bool   `json:"deflate"`
	DeflateLevel        int    `json:"deflate_level"`
	MaxDeflateLevel     int    `json:"max_deflate_level"`
	Snappy              bool   `json:"snappy"`
	SampleRate          int32  `json:"sample_rate"`
	AuthRequired        bool   `json:"auth_required"`
	OutputBufferSize    int    `json:"output_buffer_size"`
	OutputBufferTimeout int64  `json:"output_buffer_timeout"`
}

func (c *conn) identify() error {
	if c.stats.state.Load() != stateInit {
		return refusal(nsqwire.Invalid, "cannot IDENTIFY in current state")
	}
	body, err := c.smallBody("IDENTIFY")
	if err != nil {
		return err
	}
	var id identity
	if json.Unmarshal(body, &id) != nil {
		return refusal(nsqwire.BadBody, "IDENTIFY failed to decode JSON body")
	}
	if err := c.terms.agree(&id, c.cfg); err != nil {
		return refusal(nsqwire.BadBody, "IDENTIFY %s", err)
	}
	c.stats.mu.Lock()
	c.stats.terms = c.terms
	c.stats.mu.Unlock()
	c.out.setPatience(c.terms.heartbeat)
	c.heartbeat.start(c.terms.heartbeat)
	if !id.FeatureNegotiation {
		c.respond(nsqwire.FrameResponse, nsqwire.OK)
		return nil
	}
	return c.negotiate(&id)
}

// smallBody reads the body of IDENTIFY or AUTH, and consumes it.
func (c *conn) smallBody(verb string) ([]byte, error) {
	size, err := c.size(part{nsqwire.BadBody, verb, "body size"})
	if err != nil {
		return nil, err
	}
	if int(size) > c.cfg.MaxBodySize {
		return nil, refusal(nsqwire.BadBody, "%s body too big %d > %d", verb, size, c.cfg.MaxBodySize)
	}
	if size <= 0 {
		return nil, refusal(nsqwire.BadBody, "%s invalid body size %d", verb, size)
	}
	return c.body(size, part{nsqwire.BadBody, verb, "body"})
}

// agree takes what the client asks for. The error says what it may not.
func (t *terms) agree(id *identity, cfg *Config) error {
	t.clientID, t.hostname, t.userAgent = id.ClientID, id.Hostname, id.UserAgent
	switch n := id.HeartbeatInterval; {
	case n == -1:
		t.heartbeat = 0
	case n == 0:
	case !within(n, minHeartbeat, cfg.MaxHeartbeatInterval):
		return fmt.Errorf("heartbeat interval (%d) is invalid", n)
	default:
		t.heartbeat = time.Duration(n) * time.Millisecond
	}
	switch n := id.OutputBufferTimeout; {
	case n == -1:
		t.outputTimeout = 0
	case n == 0:
	case !within(n, int(cfg.MinOutputBufferTimeout/time.Millisecond), cfg.MaxOutputBufferTimeout):
		return fmt.Errorf("output buffer timeout (%d) is invalid", n)
	default:
		t.outputTimeout = time.Duration(n) * time.Millisecond
	}
	switch n := id.OutputBufferSize; {
	case n == -1:
		t.outputSize, t.outputTimeout, t.outputAsked = 1, 0, true
	case n == 0:
	case n < minOutputSize || n > cfg.MaxOutputBufferSize:
		return fmt.Errorf("output buffer size (%d) is invalid", n)
	default:
		t.outputSize, t.outputAsked = n, true
	}
	if id.SampleRate < 0 || id.SampleRate > 99 {
		return fmt.Errorf("sample rate (%d) is invalid", id.SampleRate)
	}
	t.sampleRate = int(id.SampleRate)
	switch n := id.MsgTimeout; {
	case n == 0:
	case !within(n, minMsgTimeout, cfg.MaxMsgTimeout):
		return fmt.Errorf("msg timeout (%d) is invalid", n)
	default:
		t.msgTimeout = time.Duration(n) * time.Millisecond
	}
	return nil
}

// within says whether n milliseconds are between least milliseconds and most.
func within(n, least int, most time.Duration) bool {
	return n >= least && int64(n) <= int64(most/time.Millisecond)
}

// negotiate tells the client what it gets, and upgrades the connection to that.
func (c *conn) negotiate(id *identity) error {
	t := &c.terms
	f := features{
		MaxRdyCount:         int64(c.cfg.MaxRdyCount),
		Version:             c.cfg.Version,
		MaxMsgTimeout:       int64(c.cfg.MaxMsgTimeout / time.Millisecond),
		MsgTimeout:          int64(t.msgTimeout / time.Millisecond),
		TLSv1:               c.cfg.TLS != nil && id.TLSv1 && c.tls == nil,
		Deflate:             !c.cfg.NoDeflate && id.Deflate,
		DeflateLevel:        6,
		MaxDeflateLevel:     c.cfg.MaxDeflateLevel,
		Snappy:              !c.cfg.NoSnappy && id.Snappy,
		SampleRate:          int32(t.sampleRate), //nolint:gosec // 0 to 99
		AuthRequired:        c.door.authRequired(),
		OutputBufferSize:    t.outputSize,
		OutputBufferTimeout: int64(t.outputTimeout / time.Millisecond),
	}
	if f.Deflate && id.DeflateLevel > 0 {
		f.DeflateLevel = id.DeflateLevel
	}
	f.DeflateLevel = min(f.DeflateLevel, f.MaxDeflateLevel)
	if f.Deflate && f.Snappy {
		return refusal(nsqwire.IdentifyFailed, "cannot enable both deflate and snappy compression")
	}
	told, err := json.Marshal(f)
	if err != nil {
		return refusal(nsqwire.IdentifyFailed, "IDENTIFY failed %s", err)
	}
	c.respond(nsqwire.FrameResponse, string(told))
	if err := c.upgrade(&f); err != nil {
		return refusal(nsqwire.IdentifyFailed, "IDENTIFY failed %s", err)
	}
	return nil
}
