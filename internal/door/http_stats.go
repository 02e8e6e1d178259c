package door

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"time"
)

// stats tells what there is, in text or JSON.
func (s *web) stats(r *request) answer {
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badRequest("INVALID_REQUEST")
	}
	q := statsQuery{
		topic: params.Get("topic"), channel: params.Get("channel"),
		clients: !isFalse(params.Get("include_clients")),
	}
	report := statsReport{Version: s.cfg.Version, StartTime: s.started.Unix(), Topics: s.topicStats(q, r.grant)}
	report.Health, _ = s.health()
	if q.clients && report.Topics != nil { // without the topic asked for nsqd looks no further
		report.Producers = s.producers(q, r.grant)
	}
	if !isFalse(params.Get("include_mem")) {
		m := readMemory()
		report.Memory = &m
	}
	if params.Get("format") != "json" {
		return answer{status: http.StatusOK, body: report.text(s.started)}
	}
	return inJSON(report)
}

// statsReport is the whole answer. In JSON it is nsqd's.
type statsReport struct {
	Version   string        `json:"version"`
	Health    string        `json:"health"`
	StartTime int64         `json:"start_time"`
	Topics    []topicStats  `json:"topics"`
	Memory    *memoryStats  `json:"memory,omitempty"`
	Producers []clientStats `json:"producers"`
}

// text is the report for people, in nsqd's layout.
func (r *statsReport) text(started time.Time) []byte {
	var w bytes.Buffer
	fmt.Fprintf(&w, "nsqd v%s (built w/%s)\n", r.Version, runtime.Version())
	fmt.Fprintf(&w, "start_time %v\n", started.Format(time.RFC3339))
	fmt.Fprintf(&w, "uptime %s\n", time.Since(started))
	fmt.Fprintf(&w, "\nHealth: %s\n", r.Health)
	if r.Memory != nil {
		fmt.Fprintf(&w, "\nMemory:\n")
		for _, g := range append(r.Memory.gauges(), gauge{"gc_total_runs", uint64(r.Memory.GCTotalRuns)}) {
			fmt.Fprintf(&w, "   %-25s\t%d\n", g.name, g.value)
		}
	}
	if len(r.Topics) == 0 {
		fmt.Fprintf(&w, "\nTopics: None\n")
	} else {
		fmt.Fprintf(&w, "\nTopics:")
	}
	for i := range r.Topics {
		r.Topics[i].text(&w)
	}
	if len(r.Producers) == 0 {
		fmt.Fprintf(&w, "\nProducers: None\n")
		return w.Bytes()
	}
	fmt.Fprintf(&w, "\nProducers:\n")
	for i := range r.Producers {
		fmt.Fprintf(&w, "   %s\n", &r.Producers[i])
	}
	return w.Bytes()
}

func (t *topicStats) text(w *bytes.Buffer) {
	fmt.Fprintf(w, "\n%s[%-15s] depth: %-5d be-depth: %-5d msgs: %-8d e2e%%: \n",
		pausedMark(t.Paused), t.TopicName, t.Depth, t.BackendDepth, t.MessageCount)
	for _, c := range t.Channels {
		fmt.Fprintf(w, "   %s[%-25s] depth: %-5d be-depth: %-5d inflt: %-4d def: %-4d re-q: %-5d timeout: %-5d msgs: %-8d e2e%%: \n",
			pausedMark(c.Paused), c.ChannelName, c.Depth, c.BackendDepth,
			c.InFlightCount, c.DeferredCount, c.RequeueCount, c.TimeoutCount, c.MessageCount)
		for i := range c.Clients {
			fmt.Fprintf(w, "        %s\n", &c.Clients[i])
		}
	}
}

func pausedMark(paused bool) string {
	if paused {
		return "*P "
	}
	return "   "
}
