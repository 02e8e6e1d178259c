package door

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"
)

// health is "OK", or what is wrong.
func (d *Door) health() (says string, well bool) {
	if err := d.broker.Health(); err != nil {
		return "NOK - " + err.Error(), false
	}
	return "OK", true
}

func (s *web) ping(*request) answer {
	says, well := s.health()
	if !well {
		return refuse(http.StatusInternalServerError, says)
	}
	return text(says)
}

func (s *web) info(*request) answer {
	hostname, err := os.Hostname()
	if err != nil {
		return refuse(http.StatusInternalServerError, err.Error())
	}
	return inJSON(struct {
		Version                string        `json:"version"`
		BroadcastAddress       string        `json:"broadcast_address"`
		Hostname               string        `json:"hostname"`
		HTTPPort               int           `json:"http_port"`
		TCPPort                int           `json:"tcp_port"`
		StartTime              int64         `json:"start_time"`
		MaxHeartbeatInterval   time.Duration `json:"max_heartbeat_interval"`
		MaxOutputBufferSize    int           `json:"max_output_buffer_size"`
		MaxOutputBufferTimeout time.Duration `json:"max_output_buffer_timeout"`
		MaxDeflateLevel        int           `json:"max_deflate_level"`
	}{
		s.cfg.Version, s.cfg.BroadcastAddress, hostname, s.cfg.HTTPPort, s.cfg.TCPPort, s.started.Unix(),
		s.cfg.MaxHeartbeatInterval, s.cfg.MaxOutputBufferSize, s.cfg.MaxOutputBufferTimeout, s.cfg.MaxDeflateLevel,
	})
}

// The options that are not told as they were given. The first two can be changed while the
// broker runs.
const (
	optionLogLevel = "log_level"
	optionLookupd  = "nsqlookupd_tcp_addresses"
	optionPrefix   = "statsd_prefix"
)

// option tells the value of an option of nsqd's.
func (s *web) option(r *request) answer {
	switch name := r.PathValue("opt"); name {
	case optionLogLevel:
		return inJSON(nsqLevel(s.cfg.LogLevel.Level()))
	case optionLookupd:
		return inJSON(s.registrar.addresses())
	case optionPrefix:
		return text(s.cfg.Statsd.prefixFor(s.cfg.BroadcastAddress, s.cfg.BroadcastHTTPPort))
	default:
		value, ok := s.cfg.Options[name]
		if !ok {
			value, ok = s.cfg.limits()[name]
		}
		if !ok {
			return badRequest("INVALID_OPTION")
		}
		if value, ok := value.(string); ok {
			return text(value) // as it is: nsqd quotes only what is in a list
		}
		return inJSON(value)
	}
}

// limits are the options of nsqd's that the doors themselves go by, as JSON has them.
func (c Config) limits() map[string]any {
	return map[string]any{
		"broadcast_address": c.BroadcastAddress, "broadcast_tcp_port": c.BroadcastTCPPort, "broadcast_http_port": c.BroadcastHTTPPort,
		"max_msg_size": c.MaxMsgSize, "max_body_size": c.MaxBodySize, "max_rdy_count": c.MaxRdyCount,
		"msg_timeout": c.MsgTimeout, "max_msg_timeout": c.MaxMsgTimeout, "max_req_timeout": c.MaxReqTimeout,
		"max_heartbeat_interval": c.MaxHeartbeatInterval, "max_channel_consumers": c.MaxChannelConsumers,
		"max_output_buffer_size": c.MaxOutputBufferSize, "max_output_buffer_timeout": c.MaxOutputBufferTimeout,
		"min_output_buffer_timeout": c.MinOutputBufferTimeout, "output_buffer_timeout": c.OutputBufferTimeout,
		"deflate": !c.NoDeflate, "max_deflate_level": c.MaxDeflateLevel, "snappy": !c.NoSnappy,
		"auth_http_addresses":         append([]string{}, c.AuthHTTPAddresses...),
		"http_client_connect_timeout": c.HTTPClientConnectTimeout, "http_client_request_timeout": c.HTTPClientRequestTimeout,
	}
}

// setOption changes an option and tells its new value.
func (s *web) setOption(r *request) answer {
	body, refused := readBody(r.Request, s.cfg.MaxMsgSize, "INVALID_VALUE")
	if refused != nil {
		return *refused
	}
	if len(body) == 0 {
		return refuse(http.StatusRequestEntityTooLarge, "INVALID_VALUE") // as nsqd has it
	}
	switch r.PathValue("opt") {
	case optionLogLevel:
		level, ok := levels[strings.ToLower(string(body))]
		if !ok {
			return badRequest("INVALID_VALUE")
		}
		s.cfg.LogLevel.Set(level)
	case optionLookupd:
		var addresses []string
		if json.Unmarshal(body, &addresses) != nil {
			return badRequest("INVALID_VALUE")
		}
		s.registrar.setAddresses(addresses)
	default:
		return badRequest("INVALID_OPTION")
	}
	s.cfg.Logger.Info("option changed", "option", r.PathValue("opt"), "value", string(body))
	return s.option(r)
}

// levelFatal is for what ends the process.
const levelFatal = slog.LevelError + 4

var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError, "fatal": levelFatal,
}

// nsqLevel numbers a level as nsqd does, from 1 for debug to 5 for fatal.
func nsqLevel(l slog.Level) int {
	return 1 + int(min(max(l-slog.LevelDebug, 0), levelFatal-slog.LevelDebug))/4
}
