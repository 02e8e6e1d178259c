package door

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// What nsqlookupd would say if it knew of this one broker, so that consumers, nsqadmin and
// KEDA's scaler can be given this door's address in place of nsqlookupd's.

// producer is how nsqlookupd describes a broker.
type producer struct {
	RemoteAddress    string `json:"remote_address"`
	Hostname         string `json:"hostname"`
	BroadcastAddress string `json:"broadcast_address"`
	TCPPort          int    `json:"tcp_port"`
	HTTPPort         int    `json:"http_port"`
	Version          string `json:"version"`
}

func (d *Door) producer() producer {
	who := d.cfg.identification()
	return producer{
		RemoteAddress:    net.JoinHostPort(who.BroadcastAddress, strconv.Itoa(who.TCPPort)),
		Hostname:         who.Hostname,
		BroadcastAddress: who.BroadcastAddress,
		TCPPort:          who.TCPPort, HTTPPort: who.HTTPPort, Version: who.Version,
	}
}

// visible returns the names of the topics that whoever asks may see, sorted.
func (s *web) visible(g *Grant) []string {
	names := []string{}
	for _, t := range s.broker.Topics() {
		if g.Allows(Read, t.Name(), "") {
			names = append(names, t.Name())
		}
	}
	slices.Sort(names)
	return names
}

func (s *web) topics(r *request) answer {
	return inJSON(struct {
		Topics []string `json:"topics"`
	}{s.visible(r.grant)})
}

func (s *web) channels(r *request) answer {
	return s.ofTopic(r, func(channels []string, _ bool) answer {
		return inJSON(struct {
			Channels []string `json:"channels"`
		}{channels})
	})
}

func (s *web) lookup(r *request) answer {
	return s.ofTopic(r, func(channels []string, exists bool) answer {
		if !exists {
			return refuse(http.StatusNotFound, "TOPIC_NOT_FOUND")
		}
		return inJSON(struct {
			Channels  []string   `json:"channels"`
			Producers []producer `json:"producers"`
		}{channels, []producer{s.producer()}})
	})
}

// ofTopic answers with the channels of the topic that is asked for, sorted.
func (s *web) ofTopic(r *request, tell func(channels []string, exists bool) answer) answer {
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badRequest("INVALID_REQUEST")
	}
	if !params.Has("topic") {
		return badRequest("MISSING_ARG_TOPIC")
	}
	channels := []string{}
	name := params.Get("topic")
	t := s.broker.Lookup(name)
	if t == nil || !r.grant.Allows(Read, name, "") {
		return tell(channels, false)
	}
	for _, ch := range t.Channels() {
		channels = append(channels, ch.Name())
	}
	slices.SortFunc(channels, strings.Compare)
	return tell(channels, true)
}

func (s *web) nodes(r *request) answer {
	type node struct {
		producer
		Tombstones []bool   `json:"tombstones"`
		Topics     []string `json:"topics"`
	}
	topics := s.visible(r.grant)
	return inJSON(struct {
		Producers []node `json:"producers"`
	}{[]node{{s.producer(), make([]bool, len(topics)), topics}}})
}
