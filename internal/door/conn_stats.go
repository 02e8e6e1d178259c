package door

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// clientStats is what /stats says of a client. The JSON is nsqd's, names and order.
type clientStats struct {
	ClientID        string     `json:"client_id"`
	Hostname        string     `json:"hostname"`
	Version         string     `json:"version"`
	RemoteAddress   string     `json:"remote_address"`
	State           int64      `json:"state"`
	ReadyCount      int64      `json:"ready_count"`
	InFlightCount   int64      `json:"in_flight_count"`
	MessageCount    uint64     `json:"message_count"`
	FinishCount     uint64     `json:"finish_count"`
	RequeueCount    uint64     `json:"requeue_count"`
	ConnectTime     int64      `json:"connect_ts"`
	SampleRate      int        `json:"sample_rate"`
	Deflate         bool       `json:"deflate"`
	Snappy          bool       `json:"snappy"`
	UserAgent       string     `json:"user_agent"`
	Authed          bool       `json:"authed,omitempty"`
	AuthIdentity    string     `json:"auth_identity,omitempty"`
	AuthIdentityURL string     `json:"auth_identity_url,omitempty"`
	PubCounts       []pubCount `json:"pub_counts,omitempty"`
	TLS             bool       `json:"tls"`
	CipherSuite     string     `json:"tls_cipher_suite"`
	TLSVersion      string     `json:"tls_version"`
	TLSProtocol     string     `json:"tls_negotiated_protocol"`
	TLSMutual       bool       `json:"tls_negotiated_protocol_is_mutual"`

	channel  channelName // that it subscribed to; zero if it did not
	producer bool        // it has published
}

// pubCount is how many messages a client published to a topic.
type pubCount struct {
	Topic string `json:"topic"`
	Count uint64 `json:"count"`
}

// String is the line of the text format, as nsqd's.
func (s *clientStats) String() string {
	connected := time.Since(time.Unix(s.ConnectTime, 0)).Truncate(time.Second)
	_, port, _ := net.SplitHostPort(s.RemoteAddress)
	id := fmt.Sprintf("%s:%s %s", s.Hostname, port, s.UserAgent)
	if len(s.PubCounts) == 0 {
		return fmt.Sprintf("[%s %-21s] state: %d inflt: %-4d rdy: %-4d fin: %-8d re-q: %-8d msgs: %-8d connected: %s",
			s.Version, id, s.State, s.InFlightCount, s.ReadyCount, s.FinishCount, s.RequeueCount, s.MessageCount, connected)
	}
	var total uint64
	var topics []string
	for _, p := range s.PubCounts {
		total += p.Count
		topics = append(topics, fmt.Sprintf("%s=%d", p.Topic, p.Count))
	}
	return fmt.Sprintf("[%s %-21s] msgs: %-8d topics: %s connected: %s",
		s.Version, id, total, strings.Join(topics, ","), connected)
}

// eachClient calls f, without locks, for every client that is connected over TCP, in the
// order of their addresses.
func (d *Door) eachClient(f func(clientStats)) {
	d.mu.Lock()
	all := make([]clientStats, 0, len(d.conns))
	conns := make([]*conn, 0, len(d.conns))
	for c := range d.conns {
		conns = append(conns, c)
	}
	d.mu.Unlock()
	for _, c := range conns {
		all = append(all, c.clientStats())
	}
	slices.SortFunc(all, func(a, b clientStats) int { return cmp.Compare(a.RemoteAddress, b.RemoteAddress) })
	for _, s := range all {
		f(s)
	}
}

// clientStats may be called by any goroutine.
func (c *conn) clientStats() clientStats {
	st := &c.stats
	s := clientStats{
		Version: "V2", RemoteAddress: c.raw.RemoteAddr().String(),
		State: st.state.Load(), ReadyCount: st.rdy.Load(),
		MessageCount: st.sent.Load(), FinishCount: st.finished.Load(), RequeueCount: st.requeued.Load(),
		ConnectTime: c.connected.Unix(),
		Deflate:     st.deflate.Load(), Snappy: st.snappy.Load(), TLS: st.tls.Load(),
	}
	st.mu.Lock()
	consumer := st.consumer
	s.channel = st.channel
	s.ClientID, s.Hostname, s.UserAgent = st.terms.clientID, st.terms.hostname, st.terms.userAgent
	s.SampleRate = st.terms.sampleRate
	if a := st.authority; a.permits() > 0 {
		s.Authed, s.AuthIdentity, s.AuthIdentityURL = true, a.Identity, a.IdentityURL
	}
	for topic, count := range st.published {
		s.PubCounts = append(s.PubCounts, pubCount{topic, count.Load()})
	}
	if s.TLS {
		s.CipherSuite = tls.CipherSuiteName(st.tlsState.CipherSuite)
		s.TLSVersion = strings.Replace(tls.VersionName(st.tlsState.Version), "TLS ", "TLS", 1)
		s.TLSProtocol = st.tlsState.NegotiatedProtocol
		s.TLSMutual = true // crypto/tls has no other kind any more
	}
	st.mu.Unlock()
	slices.SortFunc(s.PubCounts, func(a, b pubCount) int { return cmp.Compare(a.Topic, b.Topic) })
	s.producer = len(s.PubCounts) > 0
	if consumer != nil {
		s.InFlightCount = int64(consumer.Held())
	}
	return s
}

// publishedTo returns the count of messages that were published to the topic.
func (s *connStats) publishedTo(topic string) *atomic.Uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.published == nil {
		s.published = make(map[string]*atomic.Uint64)
	}
	if s.published[topic] == nil {
		s.published[topic] = new(atomic.Uint64)
	}
	return s.published[topic]
}
