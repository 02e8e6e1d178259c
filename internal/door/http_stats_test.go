package door

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace"
)

// busy returns a door where a bit has happened: of three messages in a channel one is
// finished, one in flight and one deferred; another channel has them all, and is paused.
func busy(t *testing.T) *tcpDoor {
	t.Helper()
	d := serveTCP(t, Config{BroadcastAddress: "me.example", TCPPort: 4150, HTTPPort: 4151})
	for _, ch := range []string{"work", "archive"} {
		if _, err := d.broker.Channel("orders", ch); err != nil {
			t.Fatal(err)
		}
	}
	producer, consumer := d.dial(), d.dial()
	producer.send(identify(`{"client_id":"p","hostname":"shop","user_agent":"test/1"}`), mpub("orders", "one", "two", "three"))
	producer.want("OK", "OK")
	consumer.send(identify(`{"client_id":"c","hostname":"office","user_agent":"test/1"}`), "SUB orders work\n")
	consumer.want("OK", "OK")
	consumer.send("RDY 3\n")
	first, second := consumer.message(), consumer.message()
	consumer.message()
	consumer.send("FIN "+first.id+"\n", "REQ "+second.id+" 3600000\n", "RDY 1\n")
	eventually(t, "two messages are settled", func() bool {
		depth := d.depth("orders", "work")
		return depth == millrace.Depth{InFlight: 1, Deferred: 1}
	})
	if got := ask(d.Handler(false), "POST /channel/pause?topic=orders&channel=archive", "").String(); got != "200" {
		t.Fatal(got)
	}
	return d
}

var changing = regexp.MustCompile(`"(start_time|connect_ts)":\d+|127\.0\.0\.1:\d+`)

// steady replaces what is different every time.
func steady(s string) string {
	return changing.ReplaceAllStringFunc(s, func(s string) string {
		if name, _, ok := strings.Cut(s, `":`); ok {
			return name + `":1`
		}
		return "ADDR"
	})
}

func TestStatsInJSONHaveTheKeysOfNsqd(t *testing.T) {
	h := busy(t).Handler(false)
	const (
		e2e     = `"e2e_processing_latency":{"count":0,"percentiles":null}`
		tls     = `"tls":false,"tls_cipher_suite":"","tls_version":"","tls_negotiated_protocol":"","tls_negotiated_protocol_is_mutual":false`
		client  = `{"client_id":"c","hostname":"office","version":"V2","remote_address":"ADDR","state":3,"ready_count":1,"in_flight_count":1,"message_count":3,"finish_count":1,"requeue_count":1,"connect_ts":1,"sample_rate":0,"deflate":false,"snappy":false,"user_agent":"test/1",` + tls + `}`
		maker   = `{"client_id":"p","hostname":"shop","version":"V2","remote_address":"ADDR","state":0,"ready_count":0,"in_flight_count":0,"message_count":0,"finish_count":0,"requeue_count":0,"connect_ts":1,"sample_rate":0,"deflate":false,"snappy":false,"user_agent":"test/1","pub_counts":[{"topic":"orders","count":3}],` + tls + `}`
		archive = `{"channel_name":"archive","depth":3,"backend_depth":3,"in_flight_count":0,"deferred_count":0,"message_count":3,"requeue_count":0,"timeout_count":0,"client_count":0,"clients":%s,"paused":true,` + e2e + `}`
		work    = `{"channel_name":"work","depth":0,"backend_depth":0,"in_flight_count":1,"deferred_count":1,"message_count":3,"requeue_count":1,"timeout_count":0,"client_count":1,"clients":%s,"paused":false,` + e2e + `}`
		topic   = `{"topic_name":"orders","channels":[%s],"depth":0,"backend_depth":0,"message_count":3,"message_bytes":11,"paused":false,` + e2e + `}`
		head    = `200 {"version":"1.3.0","health":"OK","start_time":1,"topics":%s,"producers":%s}`
	)
	archives, works := fmt.Sprintf(archive, "null"), fmt.Sprintf(work, "null")
	for query, want := range map[string]string{
		"include_clients=false":          fmt.Sprintf(head, "["+fmt.Sprintf(topic, archives+","+works)+"]", "null"),
		"include_clients=0&channel=work": fmt.Sprintf(head, "["+fmt.Sprintf(topic, works)+"]", "null"),
		"include_clients=true": fmt.Sprintf(head, "["+fmt.Sprintf(topic,
			fmt.Sprintf(archive, "[]")+","+fmt.Sprintf(work, "["+client+"]"))+"]", "["+maker+"]"),
		"topic=orders&channel=work": fmt.Sprintf(head, "["+fmt.Sprintf(topic, fmt.Sprintf(work, "["+client+"]"))+"]", "["+maker+"]"),
		"topic=orders&channel=nope": fmt.Sprintf(head, "[]", "["+maker+"]"),
		"topic=nope":                fmt.Sprintf(head, "null", "null"),
		"channel=nope":              fmt.Sprintf(head, "[]", "["+maker+"]"),
	} {
		if got := steady(ask(h, "GET /stats?format=json&include_mem=false&"+query, "").String()); got != want {
			t.Errorf("%s:\n%s, want\n%s", query, got, want)
		}
	}
}

func TestOfWhatIsEphemeralNothingIsOnTheDisk(t *testing.T) {
	d := opened(t, Config{})
	for _, ch := range []channelName{{"kept", "kept"}, {"kept", "tail#ephemeral"}, {"gone#ephemeral", "c"}} {
		if _, err := d.broker.Channel(ch.topic, ch.channel); err != nil {
			t.Fatal(err)
		}
	}
	for _, topic := range []string{"kept", "gone#ephemeral"} {
		if err := d.broker.Publish(topic, []millrace.Message{{Body: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, topic := range d.topicStats(statsQuery{}, everything) {
		for _, ch := range topic.Channels {
			want := int64(0)
			if ch.ChannelName == "kept" {
				want = 1
			}
			if ch.Depth != 1 || ch.BackendDepth != want {
				t.Errorf("%s %s: depth %d, of them on disk %d", topic.TopicName, ch.ChannelName, ch.Depth, ch.BackendDepth)
			}
		}
	}
}

func TestStatsHaveTheMemoryUnlessItIsNotWanted(t *testing.T) {
	h := opened(t, Config{}).Handler(false)
	var report struct {
		Memory map[string]float64 `json:"memory"`
	}
	if err := json.Unmarshal([]byte(ask(h, "GET /stats?format=json", "").body), &report); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"heap_objects", "heap_idle_bytes", "heap_in_use_bytes", "heap_released_bytes",
		"gc_pause_usec_100", "gc_pause_usec_99", "gc_pause_usec_95", "next_gc_bytes", "gc_total_runs",
	} {
		if _, ok := report.Memory[key]; !ok {
			t.Errorf("%s is missing", key)
		}
	}
	if len(report.Memory) != 9 || report.Memory["heap_in_use_bytes"] == 0 {
		t.Errorf("the memory is %v", report.Memory)
	}
	if got := ask(h, "GET /stats?include_mem=0", "").String(); strings.Contains(got, "Memory") {
		t.Errorf("without: %s", got)
	}
}

func TestStatsInTextLookLikeNsqds(t *testing.T) {
	d := busy(t)
	got := ask(d.Handler(false), "GET /stats", "").String()
	for what, pattern := range map[string]string{
		"head":     `^200 nsqd v1\.3\.0 \(built w/go[^)]+\)\nstart_time 20\S+\nuptime \S+\n\nHealth: OK\n\nMemory:\n   heap_objects             \t\d+\n`,
		"topic":    `\n\nTopics:\n   \[orders         \] depth: 0     be-depth: 0     msgs: 3        e2e%: \n`,
		"paused":   `\n   \*P \[archive                  \] depth: 3     be-depth: 3     inflt: 0    def: 0    re-q: 0     timeout: 0     msgs: 3        e2e%: \n`,
		"channel":  `\n      \[work                     \] depth: 0     be-depth: 0     inflt: 1    def: 1    re-q: 1     timeout: 0     msgs: 3        e2e%: \n`,
		"consumer": `\n        \[V2 office:\d+ test/1 *\] state: 3 inflt: 1    rdy: 1    fin: 1        re-q: 1        msgs: 3        connected: \d+s\n`,
		"producer": `\n\nProducers:\n   \[V2 shop:\d+ test/1 *\] msgs: 3        topics: orders=3 connected: \d+s\n$`,
	} {
		if !regexp.MustCompile(pattern).MatchString(got) {
			t.Errorf("%s: %s does not match\n%s", what, pattern, got)
		}
	}
	empty := ask(opened(t, Config{}).Handler(false), "GET /stats?include_mem=false", "").String()
	if want := "\n\nHealth: OK\n\nTopics: None\n\nProducers: None\n"; !strings.HasSuffix(empty, want) {
		t.Errorf("of an empty broker: %q", empty)
	}
}

func TestMetricsTellPrometheusWhatThereIs(t *testing.T) {
	d := busy(t)
	resp := ask(d.Handler(false), "GET /metrics", "")
	if got := resp.header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=0.0.4") {
		t.Errorf("Content-Type: %s", got)
	}
	got := resp.String()
	for _, line := range []string{
		`millrace_topic_depth{topic="orders"} 0`,
		`millrace_topic_messages_total{topic="orders"} 3`,
		`millrace_topic_message_bytes_total{topic="orders"} 11`,
		`millrace_channel_depth{channel="archive",topic="orders"} 3`,
		`millrace_channel_paused{channel="archive",topic="orders"} 1`,
		`millrace_channel_paused{channel="work",topic="orders"} 0`,
		`millrace_channel_in_flight{channel="work",topic="orders"} 1`,
		`millrace_channel_deferred{channel="work",topic="orders"} 1`,
		`millrace_channel_consumers{channel="work",topic="orders"} 1`,
		`millrace_channel_finished_total{channel="work",topic="orders"} 1`,
		`millrace_channel_requeued_total{channel="work",topic="orders"} 1`,
		`millrace_channel_timed_out_total{channel="work",topic="orders"} 0`,
		`millrace_connections 2`,
		`millrace_healthy 1`,
		`millrace_damaged_records_total 0`,
	} {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("%s is missing", line)
		}
	}
	for _, name := range []string{
		"millrace_channel_oldest_age_seconds", "millrace_commits_total", "millrace_commit_bytes_total",
		"millrace_fsyncs_total", "millrace_fsync_seconds_total", "go_goroutines", "process_start_time_seconds",
	} {
		if !strings.Contains(got, "\n"+name) {
			t.Errorf("%s is missing", name)
		}
	}
	if resp := ask(d.Handler(false), "GET /metrics", ""); resp.status != http.StatusOK {
		t.Errorf("the second time: %d", resp.status)
	}
}

func TestATokenShowsNothingOfOtherTopics(t *testing.T) {
	d := busy(t)
	other := d.dial()
	other.send(pub("audit", "x"))
	other.want("OK")
	d.cfg.Tokens = tokens(t, "ops-1 ops admin:*\nview-1 view read:audit")
	h := d.Handler(false)
	for _, path := range []string{"/stats", "/stats?format=json", "/metrics"} {
		if got := ask(h, "GET "+path, "", "Authorization: Bearer view-1").String(); strings.Contains(got, "orders") || !strings.Contains(got, "audit") ||
			strings.Contains(got, "go_goroutines") {
			t.Errorf("%s shows %s", path, got)
		}
		if got := ask(h, "GET "+path, "", "Authorization: Bearer ops-1").String(); !strings.Contains(got, "orders") || !strings.Contains(got, "audit") {
			t.Errorf("%s shows the admin %s", path, got)
		}
	}
	if got := d.producers(statsQuery{}, mustGrant(t, d.cfg.Tokens, "view-1")); len(got) != 1 || len(got[0].PubCounts) != 1 {
		t.Errorf("the producers are %v", got)
	}
}

func mustGrant(t *testing.T, of *Tokens, token string) *Grant {
	t.Helper()
	g, ok := of.Grant(token)
	if !ok {
		t.Fatalf("there is no token %s", token)
	}
	return g
}

func TestTheAgeOfTheOldestMessageIsThatOfWhatIsNotFinished(t *testing.T) {
	d := busy(t)
	if _, err := d.broker.Channel("empty", "c"); err != nil {
		t.Fatal(err)
	}
	h := d.Handler(false)
	time.Sleep(20 * time.Millisecond)
	ages := regexp.MustCompile(`oldest_age_seconds{channel="(\w+)",topic="orders"} (\S+)`).FindAllStringSubmatch(ask(h, "GET /metrics", "").String(), -1)
	if len(ages) != 2 {
		t.Fatalf("ages: %q", ages)
	}
	if got := ask(h, "GET /metrics", "").String(); !strings.Contains(got, `oldest_age_seconds{channel="c",topic="empty"} 0`+"\n") {
		t.Errorf("an empty channel has another age than 0: %s", got)
	}
	for _, m := range ages {
		var seconds float64
		if _, err := fmt.Sscan(m[2], &seconds); err != nil || seconds < 0.02 || seconds > 60 {
			t.Errorf("%s: %s s", m[1], m[2])
		}
	}
}
