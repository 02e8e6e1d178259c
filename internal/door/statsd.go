package door

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace"
)

// Statsd says where, and how often, counts are pushed to over UDP, under nsqd's names. The
// zero value pushes nothing.
type Statsd struct {
	// Address is "HOST:PORT"; "" means nowhere.
	Address string
	// Prefix stands before each name, with a dot between; in it %s stands for this
	// broker's address. "" means "nsq.%s", and "." no prefix.
	Prefix string
	// Interval is how often; 0 means a minute.
	Interval time.Duration
	// PacketSize is the most bytes of a packet; 0 means 508.
	PacketSize int
	// NoMemory leaves out what the Go runtime says of its memory.
	NoMemory bool
	// NoEphemeral leaves out ephemeral topics and channels.
	NoEphemeral bool
}

func (s Statsd) withDefaults() Statsd {
	orElse(&s.Prefix, "nsq.%s")
	orElse(&s.Interval, time.Minute)
	orElse(&s.PacketSize, 508)
	return s
}

// prefixFor returns what stands before the names, its dot included.
func (s Statsd) prefixFor(host string, port int) string {
	if s.Prefix == "." {
		return ""
	}
	key := strings.NewReplacer(".", "_", ":", "_").Replace(net.JoinHostPort(host, strconv.Itoa(port)))
	return strings.TrimSuffix(strings.ReplaceAll(s.Prefix, "%s", key), ".") + "."
}

// pushStats pushes counts until ctx ends.
func (d *Door) pushStats(ctx context.Context) {
	cfg := d.cfg.Statsd
	push := statsdPush{
		prefix: cfg.prefixFor(d.cfg.BroadcastAddress, d.cfg.BroadcastHTTPPort),
		limit:  cfg.PacketSize,
	}
	tick := time.NewTicker(cfg.Interval)
	defer tick.Stop()
	var before statsdCounts
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := d.statsdCounts()
		push.counts(before, now)
		before = now
		if err := push.send(ctx, cfg.Address, cfg.Interval/2); err != nil && ctx.Err() == nil {
			d.cfg.Logger.Error("counts were not pushed to statsd", "statsd", cfg.Address, "error", err)
		}
	}
}

// statsdCounts is what was there at one time.
type statsdCounts struct {
	topics []topicStats
	memory *memoryStats
}

func (d *Door) statsdCounts() statsdCounts {
	c := statsdCounts{topics: d.topicStats(statsQuery{}, everything)}
	if d.cfg.Statsd.NoEphemeral {
		c.topics = withoutEphemeral(c.topics)
	}
	if !d.cfg.Statsd.NoMemory {
		m := readMemory()
		c.memory = &m
	}
	return c
}

func withoutEphemeral(topics []topicStats) []topicStats {
	var kept []topicStats
	for _, t := range topics {
		if millrace.Ephemeral(t.TopicName) {
			continue
		}
		var channels []channelStats
		for _, c := range t.Channels {
			if !millrace.Ephemeral(c.ChannelName) {
				channels = append(channels, c)
			}
		}
		t.Channels = channels
		kept = append(kept, t)
	}
	return kept
}

// statsdPush is a push that is being put together: lines in packets.
type statsdPush struct {
	prefix  string
	limit   int
	packets [][]byte
}

// counts writes what is there now, and for what only grows, by how much it has grown.
func (p *statsdPush) counts(before, now statsdCounts) {
	for _, t := range now.topics {
		last := topicNamed(before.topics, t.TopicName)
		name := "topic." + t.TopicName + "."
		p.grown(name+"message_count", last.MessageCount, t.MessageCount)
		p.grown(name+"message_bytes", last.MessageBytes, t.MessageBytes)
		p.gauge(name+"depth", t.Depth)
		p.gauge(name+"backend_depth", t.BackendDepth)
		for _, c := range t.Channels {
			last := channelNamed(last.Channels, c.ChannelName)
			name := name + "channel." + c.ChannelName + "."
			p.grown(name+"message_count", last.MessageCount, c.MessageCount)
			p.gauge(name+"depth", c.Depth)
			p.gauge(name+"backend_depth", c.BackendDepth)
			p.gauge(name+"in_flight_count", c.InFlightCount)
			p.gauge(name+"deferred_count", c.DeferredCount)
			p.grown(name+"requeue_count", last.RequeueCount, c.RequeueCount)
			p.grown(name+"timeout_count", last.TimeoutCount, c.TimeoutCount)
			p.gauge(name+"clients", int64(c.ClientCount))
		}
	}
	if m := now.memory; m != nil {
		for _, g := range m.gauges() {
			p.gauge("mem."+g.name, int64(g.value)) //nolint:gosec // bytes and microseconds
		}
		var last uint32
		if before.memory != nil {
			last = before.memory.GCTotalRuns
		}
		p.grown("mem.gc_runs", uint64(last), uint64(m.GCTotalRuns))
	}
}

// grown writes a counter. One that has shrunk belongs to a topic that was made anew.
func (p *statsdPush) grown(name string, before, now uint64) {
	if now < before {
		before = 0
	}
	p.line("%s%s:%d|c\n", name, int64(now-before)) //nolint:gosec // a difference
}

func (p *statsdPush) gauge(name string, value int64) { p.line("%s%s:%d|g\n", name, value) }

// line adds a line to the last packet, or to a new one when it does not fit there.
func (p *statsdPush) line(format, name string, value int64) {
	line := fmt.Appendf(nil, format, p.prefix, name, value)
	last := len(p.packets) - 1
	if last < 0 || len(p.packets[last])+len(line) > p.limit {
		p.packets = append(p.packets, line)
		return
	}
	p.packets[last] = append(p.packets[last], line...)
}

// send sends the packets, spread over the time there is, so that no buffer on the way
// overflows.
func (p *statsdPush) send(ctx context.Context, address string, over time.Duration) error {
	packets := p.packets
	p.packets = nil
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "udp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	pause := time.NewTicker(max(over/time.Duration(max(len(packets), 1)), time.Microsecond))
	defer pause.Stop()
	for i, packet := range packets {
		if i > 0 {
			select {
			case <-pause.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if _, err := conn.Write(packet); err != nil {
			return err
		}
	}
	return nil
}

func topicNamed(topics []topicStats, name string) (t topicStats) {
	for _, t := range topics {
		if t.TopicName == name {
			return t
		}
	}
	return t
}

func channelNamed(channels []channelStats, name string) (c channelStats) {
	for _, c := range channels {
		if c.ChannelName == name {
			return c
		}
	}
	return c
}
