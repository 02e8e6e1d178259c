package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/driver/embedded"
	"github.com/millrace/millrace/driver/nsq"
	"github.com/millrace/millrace/internal/door"
)

// apiWithin bounds how long an answer of the HTTP API may take.
const apiWithin = time.Minute

// api is the HTTP API of a broker: of one that runs, or of one in a directory that nobody else
// has open, which is asked without a network.
type api struct {
	base   string // of its URLs
	name   string // of the broker, to people
	client *http.Client
	token  string
	close  func() error
}

// errNoAnswer is returned when nobody answers over HTTP.
var errNoAnswer = errors.New("no broker answers over HTTP")

// apiError is returned when the broker does not do what it is asked to.
type apiError struct {
	word string // of nsqd's API, as in TOPIC_NOT_FOUND
	text string
}

func (e *apiError) Error() string { return e.text }

// openAPI returns the HTTP API of the broker at the URL. Nothing is connected before it is
// asked. Returns an error that wraps millrace.ErrBadURL when such brokers have none, or there
// are several.
func openAPI(brokerURL string) (*api, error) {
	if oneProcess(brokerURL) {
		return openDirAPI(brokerURL)
	}
	nodes, err := nsq.HTTPAPIs(brokerURL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w; only millrace serve, or a directory, as in file:///var/lib/jobs, can do this", err)
	case len(nodes) > 1:
		return nil, fmt.Errorf("%w: write one of the %d brokers, the one that is meant", millrace.ErrBadURL, len(nodes))
	}
	at := nodes[0]
	transport := &http.Transport{TLSClientConfig: at.TLS}
	return &api{
		base: at.Base, name: at.Address, token: at.Token,
		client: &http.Client{Transport: transport, Timeout: apiWithin},
		close:  func() error { transport.CloseIdleConnections(); return nil },
	}, nil
}

// openDirAPI opens the broker in a directory.
func openDirAPI(brokerURL string) (*api, error) {
	opts, err := lookingOptions(brokerURL)
	if err != nil {
		return nil, err
	}
	b, err := broker.Open(opts)
	if errors.Is(err, broker.ErrInUse) {
		return nil, fmt.Errorf("%s is in use by another process: give the address of the broker that runs there, as in --broker %s", opts.Dir, serveURL)
	} else if err != nil {
		return nil, err
	}
	h := door.New(b, door.Config{Logger: opts.Logger}).Handler(false)
	return &api{base: "http://broker", name: opts.Dir, client: &http.Client{Transport: handled{h}}, close: b.Close}, nil
}

// lookingOptions is how a broker in a directory is opened by who only looks, and must not
// throw away what somebody retains.
func lookingOptions(brokerURL string) (broker.Options, error) {
	opts, err := embedded.Options(brokerURL)
	opts.Logger = slog.New(slog.DiscardHandler)
	opts.Retain = math.MaxInt64
	return opts, err
}

// get asks for something, and reads the JSON of the answer into v.
func (a *api) get(ctx context.Context, path string, params url.Values, v any) error {
	return a.ask(ctx, http.MethodGet, path, params, v)
}

// post asks for something to be done, and reads the JSON of the answer into v.
func (a *api) post(ctx context.Context, path string, params url.Values, v any) error {
	return a.ask(ctx, http.MethodPost, path, params, v)
}

func (a *api) ask(ctx context.Context, method, path string, params url.Values, v any) error {
	r, err := http.NewRequestWithContext(ctx, method, a.base+path+"?"+params.Encode(), http.NoBody)
	if err != nil {
		return err
	}
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	resp, err := a.client.Do(r)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%w at %s: %s; does millrace serve run there? ?http=PORT in --broker says where its HTTP API is", errNoAnswer, a.name, sentence(err))
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("the answer of %s breaks off: %s", a.name, sentence(err))
	}
	if resp.StatusCode != http.StatusOK {
		return a.refused(resp.StatusCode, body, params)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("the answer of %s is not that of a broker: %w", a.name, err)
	}
	return nil
}

// refused says why the broker did not do what it was asked to.
func (a *api) refused(status int, body []byte, params url.Values) error {
	var told struct{ Message string }
	if json.Unmarshal(body, &told) != nil {
		return fmt.Errorf("what answers at %s is no broker: status %d", a.name, status)
	}
	word, why, explained := strings.Cut(told.Message, " - ")
	says := func(format string, args ...any) error { return &apiError{word, fmt.Sprintf(format, args...)} }
	switch word {
	case "UNAUTHORIZED":
		return says("the broker at %s wants a token: set $%s", a.name, tokenVariable)
	case "FORBIDDEN":
		return says("the broker at %s does not allow it to this token", a.name)
	case "TLS_REQUIRED":
		return says("the broker at %s wants TLS: write ?tls=true in --broker", a.name)
	case "NOT_FOUND":
		return says("the broker at %s cannot do this: is it nsqd, or an older millrace?", a.name)
	case noTopic:
		return says("there is no topic %s", params.Get("topic"))
	case noChannel:
		return says("topic %s has no channel %s", params.Get("topic"), params.Get("channel"))
	case "INVALID_FROM":
		return flagError("from", "%s", explain(errors.New(why)))
	}
	if explained {
		return says("%s", explain(errors.New(why)))
	}
	return says("the broker at %s says %s", a.name, told.Message)
}

// What the API says of what is not there.
const (
	noTopic   = "TOPIC_NOT_FOUND"
	noChannel = "CHANNEL_NOT_FOUND"
)

// hasTopic says whether there is such a topic.
func (a *api) hasTopic(ctx context.Context, topic string) (bool, error) {
	var told struct {
		Topics []struct {
			Name string `json:"topic_name"`
		}
	}
	params := url.Values{"format": {"json"}, "topic": {topic}, "include_clients": {"false"}, "include_mem": {"false"}}
	err := a.get(ctx, "/stats", params, &told)
	for _, t := range told.Topics {
		if t.Name == topic {
			return true, err
		}
	}
	return false, err
}

// handled is a http.RoundTripper that a handler in this process answers.
type handled struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (h handled) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &handledAnswer{header: make(http.Header), status: http.StatusOK}
	h.ServeHTTP(w, r)
	return &http.Response{
		StatusCode: w.status, Header: w.header, Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
	}, nil
}

type handledAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *handledAnswer) Header() http.Header         { return w.header }
func (w *handledAnswer) WriteHeader(status int)      { w.status = status }
func (w *handledAnswer) Write(p []byte) (int, error) { return w.body.Write(p) }
