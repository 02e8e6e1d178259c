package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// credentials are what is known of a client that wants to be let in.
type credentials struct {
	secret     string
	remoteIP   string
	tls        bool
	commonName string // of its certificate
}

// authority is what a client may do: what its token allows, or what a server said. nil
// is a client that did not authenticate.
type authority struct {
	TTL            int             `json:"ttl"` // seconds; 0: for ever
	Authorizations []authorization `json:"authorizations"`
	Identity       string          `json:"identity"`
	IdentityURL    string          `json:"identity_url"`

	grant   *Grant // of a token
	expires time.Time
}

// authorization allows actions on the topics and channels that its patterns are found in.
type authorization struct {
	Topic       string   `json:"topic"`
	Channels    []string `json:"channels"`
	Permissions []string `json:"permissions"`

	topic    *regexp.Regexp
	channels []*regexp.Regexp
}

// permits is how many rules there are.
func (a *authority) permits() int {
	switch {
	case a == nil:
		return 0
	case a.grant != nil:
		return len(a.grant.rules)
	}
	return len(a.Authorizations)
}

func (a *authority) expired() bool { return !a.expires.IsZero() && a.expires.Before(time.Now()) }

func (a *authority) allows(action Action, topic, channel string) bool {
	if a.grant != nil {
		return a.grant.Allows(action, topic, channel)
	}
	for i := range a.Authorizations {
		if a.Authorizations[i].allows(action, topic, channel) {
			return true
		}
	}
	return false
}

// allows goes by what nsqd's auth servers mean: publishing needs a channel pattern too,
// which "" matches.
func (a *authorization) allows(action Action, topic, channel string) bool {
	want := "publish"
	if action == Subscribe {
		want = "subscribe"
	}
	permitted := false
	for _, p := range a.Permissions {
		permitted = permitted || p == want
	}
	if !permitted || !a.topic.MatchString(topic) {
		return false
	}
	for _, c := range a.channels {
		if c.MatchString(channel) {
			return true
		}
	}
	return false
}

var errUnknownToken = errors.New("there is no such token")

// authenticate finds out what the client may do, from the tokens and else from the auth
// servers, of which any will do.
func (d *Door) authenticate(ctx context.Context, who credentials) (*authority, error) {
	if d.cfg.Tokens != nil {
		if grant, ok := d.cfg.Tokens.Grant(who.secret); ok {
			return &authority{Identity: grant.Name, grant: grant}, nil
		}
	}
	servers := d.cfg.AuthHTTPAddresses
	if len(servers) == 0 {
		return nil, errUnknownToken
	}
	var failed []error
	first := rand.IntN(len(servers)) //nolint:gosec // nothing secret
	for i := range servers {
		server := servers[(first+i)%len(servers)]
		a, err := d.askAuthServer(ctx, server, who)
		if err == nil {
			return a, nil
		}
		failed = append(failed, fmt.Errorf("failed to auth against %s: %w", server, err))
	}
	return nil, errors.Join(failed...)
}

// maxAuthAnswer is the most bytes that are read of an answer.
const maxAuthAnswer = 1 << 20

// askAuthServer asks one server.
func (d *Door) askAuthServer(ctx context.Context, server string, who credentials) (*authority, error) {
	req, err := d.authRequest(ctx, server, who)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: d.cfg.HTTPClientConnectTimeout}).DialContext,
		TLSHandshakeTimeout: d.cfg.HTTPClientConnectTimeout,
		TLSClientConfig:     d.cfg.AuthTLS,
		DisableKeepAlives:   true,
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAuthAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("got response %s %.200q", resp.Status, body)
	}
	return parseAuthority(body)
}

// withoutURL takes the URL out of the error, because the client's secret is in it.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func (d *Door) authRequest(ctx context.Context, server string, who credentials) (*http.Request, error) {
	query := url.Values{
		"remote_ip":   {who.remoteIP},
		"tls":         {fmt.Sprint(who.tls)},
		"secret":      {who.secret},
		"common_name": {who.commonName},
	}.Encode()
	if !strings.Contains(server, "://") {
		server = "http://" + server + "/auth"
	}
	method, target, form := http.MethodGet, server+"?"+query, io.Reader(nil)
	if d.cfg.AuthHTTPPost {
		method, target, form = http.MethodPost, server, strings.NewReader(query)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, form)
	if err != nil {
		return nil, withoutURL(err)
	}
	req.Header.Set("Accept", "application/vnd.nsq; version=1.0")
	if d.cfg.AuthHTTPPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, nil
}

// parseAuthority reads a server's answer.
func parseAuthority(answer []byte) (*authority, error) {
	var a authority
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, err
	}
	for i := range a.Authorizations {
		if err := a.Authorizations[i].compile(); err != nil {
			return nil, err
		}
	}
	if a.TTL <= 0 {
		return nil, fmt.Errorf("invalid TTL %d (must be >0)", a.TTL)
	}
	a.expires = time.Now().Add(time.Duration(min(a.TTL, maxAuthTTL)) * time.Second)
	return &a, nil
}

// maxAuthTTL is a hundred years, in seconds.
const maxAuthTTL = 100 * 365 * 24 * 3600

// compile checks an authorization, and makes it ready to use.
func (a *authorization) compile() error {
	for _, p := range a.Permissions {
		if p != "subscribe" && p != "publish" {
			return fmt.Errorf("unknown permission %s", p)
		}
	}
	var err error
	if a.topic, err = regexp.Compile(a.Topic); err != nil {
		return fmt.Errorf("unable to compile topic %q %w", a.Topic, err)
	}
	for _, channel := range a.Channels {
		re, err := regexp.Compile(channel)
		if err != nil {
			return fmt.Errorf("unable to compile channel %q %w", channel, err)
		}
		a.channels = append(a.channels, re)
	}
	return nil
}
