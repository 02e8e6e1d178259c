package door

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace/millrace/broker"
)

// metrics tells Prometheus what there is. The broker counts; it is only read here, when
// somebody asks.
func (s *web) metrics(r *request) answer {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{door: s.Door, grant: r.grant, now: time.Now()})
	if r.grant.AllowsAll() {
		registry.MustRegister(s.process...)
	}
	return answer{status: http.StatusOK, by: promhttp.HandlerFor(registry, promhttp.HandlerOpts{})}
}

// collector reads what the grant lets its bearer see.
type collector struct {
	door  *Door
	grant *Grant
	now   time.Time
}

// metric is a number that can be read from an S.
type metric[S any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*S) float64
}

func newMetric[S any](kind prometheus.ValueType, name, help string, labels []string, read func(*S) float64) metric[S] {
	return metric[S]{prometheus.NewDesc("millrace_"+name, help, labels, nil), kind, read}
}

const (
	total = prometheus.CounterValue // since the broker was opened
	now   = prometheus.GaugeValue
)

// number makes a metric of any number.
func number[N int | int64 | uint64](n N) float64 { return float64(n) }

func flag(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

var ofTopic = []string{"topic"}

var topicMetrics = []metric[broker.TopicStats]{
	newMetric(now, "topic_depth", "Messages that wait in the topic itself, because it has no channel or is paused.", ofTopic,
		func(s *broker.TopicStats) float64 { return number(s.Depth) }),
	newMetric(now, "topic_paused", "1 if the topic is paused.", ofTopic,
		func(s *broker.TopicStats) float64 { return flag(s.Paused) }),
	newMetric(now, "topic_stored_bytes", "Bytes of the topic's log, on disk or in memory.", ofTopic,
		func(s *broker.TopicStats) float64 { return number(s.StoredBytes) }),
	newMetric(now, "topic_retained_bytes", "Bytes of the topic's log that no channel needs any more, kept for --retain.", ofTopic,
		func(s *broker.TopicStats) float64 { return number(s.RetainedBytes) }),
	newMetric(total, "topic_messages_total", "Messages published to the topic.", ofTopic,
		func(s *broker.TopicStats) float64 { return number(s.Messages) }),
	newMetric(total, "topic_message_bytes_total", "Bytes of the messages published to the topic.", ofTopic,
		func(s *broker.TopicStats) float64 { return number(s.Bytes) }),
}

var ofChannel = []string{"topic", "channel"}

var channelMetrics = []metric[broker.ChannelStats]{
	newMetric(now, "channel_depth", "Messages that wait to be delivered.", ofChannel,
		func(s *broker.ChannelStats) float64 { return number(s.Ready) }),
	newMetric(now, "channel_in_flight", "Messages that consumers hold.", ofChannel,
		func(s *broker.ChannelStats) float64 { return number(s.InFlight) }),
	newMetric(now, "channel_deferred", "Messages that wait for their time.", ofChannel,
		func(s *broker.ChannelStats) float64 { return number(s.Deferred) }),
	newMetric(now, "channel_consumers", "Consumers of the channel.", ofChannel,
		func(s *broker.ChannelStats) float64 { return number(s.Consumers) }),
	newMetric(now, "channel_paused", "1 if the channel is paused.", ofChannel,
		func(s *broker.ChannelStats) float64 { return flag(s.Paused) }),
	newMetric(total, "channel_messages_total", "Messages that the channel got.", ofChannel,
		func(s *broker.ChannelStats) float64 { return number(s.Messages) }),
	newMetric(total, "channel_finished_total", "Messages that were finished.", ofChannel,
		func(s *broker.ChannelStats) float64 { return number(s.Finished) }),
	newMetric(total, "channel_requeued_total", "Deliveries that a consumer gave back.", ofChannel,
		func(s *broker.ChannelStats) float64 { return number(s.Requeued) }),
	newMetric(total, "channel_timed_out_total", "Deliveries whose lease ended.", ofChannel,
		func(s *broker.ChannelStats) float64 { return number(s.TimedOut) }),
	newMetric(total, "channel_dead_letters_total", "Messages that used up their attempts and are dead letters now.", ofChannel,
		func(s *broker.ChannelStats) float64 { return number(s.Dead) }),
}

var oldestAge = prometheus.NewDesc("millrace_channel_oldest_age_seconds",
	"How long ago the oldest message that is not finished was published; 0 if there is none.", ofChannel, nil)

var brokerMetrics = []metric[broker.Stats]{
	newMetric(total, "commits_total", "Rounds in which messages were written, for all that published at the time.", nil,
		func(s *broker.Stats) float64 { return number(s.Commits) }),
	newMetric(total, "commit_bytes_total", "Bytes that these rounds wrote.", nil,
		func(s *broker.Stats) float64 { return number(s.CommitBytes) }),
	newMetric(total, "fsyncs_total", "Times that a log was synced to the disk.", nil,
		func(s *broker.Stats) float64 { return number(s.Syncs) }),
	newMetric(total, "fsync_seconds_total", "Time that this took.", nil,
		func(s *broker.Stats) float64 { return s.SyncTime.Seconds() }),
	newMetric(now, "disk_free_bytes", "Bytes that the disk of the data directory has free; -1 if it does not say.", nil,
		func(s *broker.Stats) float64 { return number(s.DiskFree) }),
	newMetric(now, "disk_low_water_bytes", "Bytes below which publishing is refused; 0 for none.", nil,
		func(s *broker.Stats) float64 { return number(s.DiskLowWater) }),
	newMetric(total, "damaged_records_total", "Damaged places that were found on the disk, reported and skipped.", nil,
		func(s *broker.Stats) float64 { return number(s.Damaged) }),
}

var (
	healthy     = prometheus.NewDesc("millrace_healthy", "1 if messages are accepted: what /ping says.", nil, nil)
	connections = prometheus.NewDesc("millrace_connections", "Clients that are connected over TCP.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	describe(descs, topicMetrics)
	describe(descs, channelMetrics)
	describe(descs, brokerMetrics)
	descs <- oldestAge
	descs <- healthy
	descs <- connections
}

func describe[S any](descs chan<- *prometheus.Desc, metrics []metric[S]) {
	for _, m := range metrics {
		descs <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	for _, t := range c.door.broker.Topics() {
		if !c.grant.Allows(Read, t.Name(), "") {
			continue
		}
		s := t.Stats()
		collect(out, topicMetrics, &s, t.Name())
		for _, ch := range t.Channels() {
			s := ch.Stats()
			collect(out, channelMetrics, &s, t.Name(), ch.Name())
			out <- prometheus.MustNewConstMetric(oldestAge, prometheus.GaugeValue, c.age(s.Oldest), t.Name(), ch.Name())
		}
	}
	s := c.door.broker.Stats()
	collect(out, brokerMetrics, &s)
	_, well := c.door.health()
	out <- prometheus.MustNewConstMetric(healthy, prometheus.GaugeValue, flag(well))
	out <- prometheus.MustNewConstMetric(connections, prometheus.GaugeValue, number(c.door.connections()))
}

func collect[S any](out chan<- prometheus.Metric, metrics []metric[S], s *S, labels ...string) {
	for _, m := range metrics {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, m.read(s), labels...)
	}
}

// age is how long ago that was, in seconds.
func (c *collector) age(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return max(c.now.Sub(t).Seconds(), 0)
}

// connections is how many clients are connected over TCP.
func (d *Door) connections() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}
