package nsq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/millrace/millrace"
)

// apiTimeout is how long an answer over HTTP may take.
const apiTimeout = 5 * time.Second

// maxAnswer is the longest answer over HTTP that is read.
const maxAnswer = 64 << 20

// api speaks to the HTTP API of nodes, and of nsqlookupd.
type api struct {
	access access
	client *http.Client
}

func newAPI(a access) *api {
	transport := &http.Transport{TLSClientConfig: a.tls, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second}
	return &api{access: a, client: &http.Client{Transport: transport, Timeout: apiTimeout}}
}

// errNoAPI is returned when nobody answers over HTTP.
var errNoAPI = errors.New("its HTTP API does not answer")

// apiBusy is how long a node that is there may take requests and not answer them in time:
// nsqd syncs a file for each channel that is made, one after the other, which takes many
// seconds on a disk that is busy.
const apiBusy = 30 * time.Second

// patience is how long to ask again a node that is there when its HTTP API fails like this.
func patience(err error) time.Duration {
	var slow interface{ Timeout() bool }
	if errors.As(err, &slow) && slow.Timeout() {
		return apiBusy
	}
	return apiPatience
}

// apiError is a refusal over HTTP.
type apiError struct {
	status int
	reason string
}

func (e *apiError) Error() string { return fmt.Sprintf("its HTTP API says %d %s", e.status, e.reason) }

// is says whether err is a refusal with that status.
func isStatus(err error, status int) bool {
	var refused *apiError
	return errors.As(err, &refused) && refused.status == status
}

// node asks a node. A path begins with a slash.
func (a *api) node(ctx context.Context, method string, at endpoint, path string, params url.Values) ([]byte, error) {
	answer, err := a.ask(ctx, method, a.access.scheme()+at.http+path, params, a.access.secret)
	if err != nil {
		return nil, fmt.Errorf("the broker at %s: %w", at.tcp, err)
	}
	return answer, nil
}

// lookupd asks an nsqlookupd.
func (a *api) lookupd(ctx context.Context, method, at, path string, params url.Values) ([]byte, error) {
	answer, err := a.ask(ctx, method, "http://"+at+path, params, "")
	if err != nil {
		return nil, fmt.Errorf("nsqlookupd at %s: %w", at, err)
	}
	return answer, nil
}

// ask sends a request, and returns the body of an answer that says that all is well.
func (a *api) ask(ctx context.Context, method, where string, params url.Values, secret string) ([]byte, error) {
	if len(params) > 0 {
		where += "?" + params.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, where, http.NoBody)
	if err != nil {
		return nil, err
	}
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	resp, err := a.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("%w at %s: %w", errNoAPI, r.URL.Host, plain(err))
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%w at %s: %w", errNoAPI, r.URL.Host, plain(err))
	}
	if resp.StatusCode == http.StatusOK {
		return body, nil
	}
	var told struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &told) != nil {
		told.Message = strings.TrimSpace(string(body[:min(len(body), 200)]))
	}
	return nil, &apiError{resp.StatusCode, told.Message}
}

// name are the parameters that name a topic, and unless channel is "" a channel of it.
func name(topic, channel string) url.Values {
	params := url.Values{"topic": {topic}}
	if channel != "" {
		params.Set("channel", channel)
	}
	return params
}

// create creates a topic, and unless channel is "" the channel.
func (a *api) create(ctx context.Context, at endpoint, topic, channel string) error {
	_, err := a.node(ctx, http.MethodPost, at, "/topic/create", name(topic, ""))
	if err == nil && channel != "" {
		_, err = a.node(ctx, http.MethodPost, at, "/channel/create", name(topic, channel))
	}
	return err
}

// remove deletes a channel, or the topic when channel is "".
func (a *api) remove(ctx context.Context, at endpoint, topic, channel string) error {
	_, err := a.node(ctx, http.MethodPost, at, removal(channel), name(topic, channel))
	if isStatus(err, http.StatusNotFound) {
		err = nil
	}
	return err
}

// forget has an nsqlookupd forget a channel, or the topic when channel is "".
func (a *api) forget(ctx context.Context, lookupd, topic, channel string) error {
	_, err := a.lookupd(ctx, http.MethodPost, lookupd, removal(channel), name(topic, channel))
	if isStatus(err, http.StatusNotFound) {
		err = nil
	}
	return err
}

// removal is the path under which a channel is deleted, or the topic when channel is "".
func removal(channel string) string {
	if channel == "" {
		return "/topic/delete"
	}
	return "/channel/delete"
}

// stats is what a node tells of one channel.
type stats struct {
	topic   bool // there is one
	channel bool // there is one
	depth   millrace.Depth
}

// stats asks for a channel.
func (a *api) stats(ctx context.Context, at endpoint, topic, channel string) (s stats, err error) {
	params := name(topic, channel)
	params.Set("format", "json")
	params.Set("include_clients", "false")
	params.Set("include_mem", "false")
	answer, err := a.node(ctx, http.MethodGet, at, "/stats", params)
	if err != nil {
		return s, err
	}
	var told struct {
		Topics []struct {
			Name     string `json:"topic_name"`
			Channels []struct {
				Name     string `json:"channel_name"`
				Depth    int64  `json:"depth"`
				InFlight int64  `json:"in_flight_count"`
				Deferred int64  `json:"deferred_count"`
			} `json:"channels"`
		} `json:"topics"`
	}
	if err := json.Unmarshal(answer, &told); err != nil {
		return s, fmt.Errorf("the broker at %s: its /stats cannot be read: %w", at.tcp, err)
	}
	for _, t := range told.Topics {
		s.topic = s.topic || t.Name == topic
		for _, c := range t.Channels {
			if t.Name == topic && c.Name == channel {
				s.channel = true
				s.depth = millrace.Depth{Ready: c.Depth, InFlight: c.InFlight, Deferred: c.Deferred}
			}
		}
	}
	return s, nil
}

// limits asks what a node takes. What it does not say is its default.
func (a *api) limits(ctx context.Context, at endpoint) limits {
	l := limits{defaultMessage, defaultBody}
	for option, value := range map[string]*int{"max_msg_size": &l.message, "max_body_size": &l.body} {
		answer, err := a.node(ctx, http.MethodGet, at, "/config/"+option, nil)
		if n := 0; err == nil && json.Unmarshal(answer, &n) == nil && n > 0 {
			*value = n
		}
	}
	return l
}

// nodes asks an nsqlookupd for the nodes of the fleet.
func (a *api) nodes(ctx context.Context, lookupd string) ([]endpoint, error) {
	answer, err := a.lookupd(ctx, http.MethodGet, lookupd, "/nodes", nil)
	if err != nil {
		return nil, err
	}
	type producers struct {
		Producers []struct {
			Address  string `json:"broadcast_address"`
			TCPPort  int    `json:"tcp_port"`
			HTTPPort int    `json:"http_port"`
		} `json:"producers"`
	}
	var told producers
	if err := json.Unmarshal(answer, &told); err != nil {
		return nil, fmt.Errorf("nsqlookupd at %s: its /nodes cannot be read: %w", lookupd, err)
	}
	var nodes []endpoint
	for _, p := range told.Producers {
		nodes = append(nodes, endpoint{tcp: hostPort(p.Address, p.TCPPort), http: hostPort(p.Address, p.HTTPPort)})
	}
	return nodes, nil
}
