package door

import (
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// The JSON of these types is nsqd's: names, order, and which lists are null.

// topicStats is what /stats says of a topic.
type topicStats struct {
	TopicName    string         `json:"topic_name"`
	Channels     []channelStats `json:"channels"`
	Depth        int64          `json:"depth"`
	BackendDepth int64          `json:"backend_depth"`
	MessageCount uint64         `json:"message_count"`
	MessageBytes uint64         `json:"message_bytes"`
	Paused       bool           `json:"paused"`
	E2E          latency        `json:"e2e_processing_latency"`
}

// channelStats is what /stats says of a channel.
type channelStats struct {
	ChannelName   string        `json:"channel_name"`
	Depth         int64         `json:"depth"`
	BackendDepth  int64         `json:"backend_depth"`
	InFlightCount int64         `json:"in_flight_count"`
	DeferredCount int64         `json:"deferred_count"`
	MessageCount  uint64        `json:"message_count"`
	RequeueCount  uint64        `json:"requeue_count"`
	TimeoutCount  uint64        `json:"timeout_count"`
	ClientCount   int           `json:"client_count"`
	Clients       []clientStats `json:"clients"`
	Paused        bool          `json:"paused"`
	E2E           latency       `json:"e2e_processing_latency"`
	// DeadLetterCount is ours: nsqd has none.
	DeadLetterCount uint64 `json:"dead_letter_count,omitempty"`
}

// latency is what nsqd says when it was not told which percentiles to measure; the
// broker does not measure them.
type latency struct {
	Count       int   `json:"count"`
	Percentiles []int `json:"percentiles"`
}

// statsQuery says what of the broker is asked for; "" stands for all.
type statsQuery struct {
	topic, channel string
	clients        bool
}

// topicStats returns what is asked for and the grant lets its bearer see, sorted by name;
// nil when there is no such topic.
func (d *Door) topicStats(q statsQuery, grant *Grant) []topicStats {
	var topics []*broker.Topic
	if q.topic == "" {
		topics = d.broker.Topics()
		slices.SortFunc(topics, func(a, b *broker.Topic) int { return strings.Compare(a.Name(), b.Name()) })
	} else if t := d.broker.Lookup(q.topic); t != nil && grant.Allows(Read, q.topic, "") {
		topics = append(topics, t)
	} else {
		return nil
	}
	var clients map[channelName][]clientStats
	if q.clients {
		clients = d.clientsByChannel(q, grant)
	}
	stats := make([]topicStats, 0, len(topics))
	for _, t := range topics {
		if !grant.Allows(Read, t.Name(), "") || q.channel != "" && t.Lookup(q.channel) == nil {
			continue
		}
		stats = append(stats, d.oneTopic(t, q, clients))
	}
	return stats
}

func (d *Door) oneTopic(t *broker.Topic, q statsQuery, clients map[channelName][]clientStats) topicStats {
	s := t.Stats()
	stats := topicStats{
		TopicName: t.Name(), Channels: []channelStats{},
		Depth: s.Depth, BackendDepth: onDisk(s.Depth, t.Name()), MessageCount: s.Messages, MessageBytes: s.Bytes, Paused: s.Paused,
	}
	for _, ch := range t.Channels() {
		if q.channel != "" && q.channel != ch.Name() {
			continue
		}
		s := ch.Stats()
		c := channelStats{
			ChannelName: ch.Name(),
			Depth:       s.Ready, BackendDepth: onDisk(s.Ready, t.Name(), ch.Name()), InFlightCount: s.InFlight, DeferredCount: s.Deferred,
			MessageCount: s.Messages, RequeueCount: s.Requeued, TimeoutCount: s.TimedOut,
			ClientCount: s.Consumers, Paused: s.Paused, DeadLetterCount: s.Dead,
		}
		if q.clients {
			c.Clients = clients[channelName{t.Name(), ch.Name()}]
			if c.Clients == nil {
				c.Clients = []clientStats{}
			}
		}
		stats.Channels = append(stats.Channels, c)
	}
	slices.SortFunc(stats.Channels, func(a, b channelStats) int { return strings.Compare(a.ChannelName, b.ChannelName) })
	return stats
}

// clientsByChannel returns the clients of the channels that are asked for.
func (d *Door) clientsByChannel(q statsQuery, grant *Grant) map[channelName][]clientStats {
	clients := make(map[channelName][]clientStats)
	d.eachClient(func(c clientStats) {
		if c.channel == (channelName{}) || q.topic != "" && q.topic != c.channel.topic {
			return
		}
		c.PubCounts = countsOf(c.PubCounts, q, grant)
		clients[c.channel] = append(clients[c.channel], c)
	})
	return clients
}

// producers returns the clients that have published, as far as the grant lets its bearer
// see to what; nil when there are none.
func (d *Door) producers(q statsQuery, grant *Grant) []clientStats {
	var producers []clientStats
	d.eachClient(func(c clientStats) {
		visible := countsOf(c.PubCounts, statsQuery{}, grant)
		if c.producer && len(visible) > 0 {
			c.PubCounts = countsOf(visible, q, grant)
			producers = append(producers, c)
		}
	})
	return producers
}

// countsOf returns the counts for the topic that is asked for.
func countsOf(counts []pubCount, q statsQuery, grant *Grant) []pubCount {
	return slices.DeleteFunc(slices.Clone(counts), func(c pubCount) bool {
		return q.topic != "" && q.topic != c.Topic || !grant.Allows(Read, c.Topic, "")
	})
}

// onDisk is how many of the messages that wait are on the disk: all of them, from the
// beginning, unless their topic or channel is ephemeral.
func onDisk(depth int64, names ...string) int64 {
	if slices.ContainsFunc(names, millrace.Ephemeral) {
		return 0
	}
	return depth
}

// memoryStats is what /stats says of the Go runtime.
type memoryStats struct {
	HeapObjects       uint64 `json:"heap_objects"`
	HeapIdleBytes     uint64 `json:"heap_idle_bytes"`
	HeapInUseBytes    uint64 `json:"heap_in_use_bytes"`
	HeapReleasedBytes uint64 `json:"heap_released_bytes"`
	GCPauseUsec100    uint64 `json:"gc_pause_usec_100"`
	GCPauseUsec99     uint64 `json:"gc_pause_usec_99"`
	GCPauseUsec95     uint64 `json:"gc_pause_usec_95"`
	NextGCBytes       uint64 `json:"next_gc_bytes"`
	GCTotalRuns       uint32 `json:"gc_total_runs"`
}

func readMemory() memoryStats {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	pauses := slices.Clone(m.PauseNs[:min(int(m.NumGC), len(m.PauseNs))])
	slices.Sort(pauses)
	return memoryStats{
		HeapObjects: m.HeapObjects, HeapIdleBytes: m.HeapIdle, HeapInUseBytes: m.HeapInuse, HeapReleasedBytes: m.HeapReleased,
		GCPauseUsec100: percentile(pauses, 1) / 1000,
		GCPauseUsec99:  percentile(pauses, 0.99) / 1000,
		GCPauseUsec95:  percentile(pauses, 0.95) / 1000,
		NextGCBytes:    m.NextGC, GCTotalRuns: m.NumGC,
	}
}

// gauges returns all but the number of runs, under the names of its JSON.
func (m *memoryStats) gauges() []gauge {
	return []gauge{
		{"heap_objects", m.HeapObjects},
		{"heap_idle_bytes", m.HeapIdleBytes},
		{"heap_in_use_bytes", m.HeapInUseBytes},
		{"heap_released_bytes", m.HeapReleasedBytes},
		{"gc_pause_usec_100", m.GCPauseUsec100},
		{"gc_pause_usec_99", m.GCPauseUsec99},
		{"gc_pause_usec_95", m.GCPauseUsec95},
		{"next_gc_bytes", m.NextGCBytes},
	}
}

type gauge struct {
	name  string
	value uint64
}

// percentile returns the value of the nearest rank in sorted values; 0 when there are none.
func percentile(sorted []uint64, p float64) uint64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Floor(p*float64(len(sorted)) + 0.5))
	return sorted[min(rank, len(sorted)-1)]
}
