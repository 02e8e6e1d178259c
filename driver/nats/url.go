package nats

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	natsio "github.com/nats-io/nats.go"

	"github.com/millrace/millrace"
)

// target is what a URL says.
type target struct {
	hosts          string // as in the URL, for messages
	servers        []string
	user, password string
	token          string // instead of user and password
	replicas       int
	secure         bool
	ca, cert, key  string // files
	creds          string // file
}

// parse reads a URL. Its errors wrap millrace.ErrBadURL.
func parse(u *url.URL) (target, error) {
	t := target{hosts: u.Host, replicas: 1}
	switch {
	case u.Host == "":
		return t, badURL("%s names no host: write nats://host:4222", u.Redacted())
	case u.Path != "" && u.Path != "/":
		return t, badURL("%s has a path, %s, and NATS has none", u.Redacted(), u.Path)
	case u.Fragment != "":
		return t, badURL("%s has a '#', which is written %%23 in a URL", u.Redacted())
	}
	for host := range strings.SplitSeq(u.Host, ",") {
		if host == "" || strings.HasPrefix(host, ":") {
			return t, badURL("%s has a server without a name: write nats://a:4222,b:4222", u.Redacted())
		}
		t.servers = append(t.servers, "nats://"+host)
	}
	if u.User != nil {
		if password, both := u.User.Password(); both {
			t.user, t.password = u.User.Username(), password
		} else {
			t.token = u.User.Username()
			u.User = url.UserPassword("", t.token) // which is not shown when u is
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return t, badURL("its options %q cannot be read: %w", u.RawQuery, err)
	}
	for _, key := range slices.Sorted(maps.Keys(query)) {
		if len(query[key]) > 1 {
			return t, badURL("%s is there %d times", key, len(query[key]))
		}
		if err := t.option(key, query.Get(key)); err != nil {
			return t, err
		}
	}
	if (t.cert == "") != (t.key == "") {
		return t, badURL("cert and key go together, and only one is there")
	}
	return t, nil
}

func (t *target) option(key, value string) error {
	files := map[string]*string{"ca": &t.ca, "cert": &t.cert, "creds": &t.creds, "key": &t.key}
	switch file := files[key]; {
	case file != nil && value == "":
		return badURL("%s needs the name of a file", key)
	case file != nil:
		*file = value
	case key == "tls":
		secure, err := strconv.ParseBool(value)
		if err != nil {
			return badURL("tls=%s: write tls=true", value)
		}
		t.secure = secure
	case key == "replicas":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > 5 {
			return badURL("replicas=%s: write a number from 1 to 5", value)
		}
		t.replicas = n
	default:
		return badURL("there is no option %q; there are ca, cert, creds, key, replicas and tls", key)
	}
	return nil
}

func badURL(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{millrace.ErrBadURL}, args...)...)
}

// options are what the client is told.
func (t *target) options() []natsio.Option {
	opts := []natsio.Option{func(o *natsio.Options) error {
		o.Servers = t.servers
		return nil
	}}
	switch {
	case t.creds != "":
		opts = append(opts, natsio.UserCredentials(t.creds))
	case t.token != "":
		opts = append(opts, natsio.Token(t.token))
	case t.user != "":
		opts = append(opts, natsio.UserInfo(t.user, t.password))
	}
	if t.secure {
		opts = append(opts, natsio.Secure())
	}
	if t.ca != "" {
		opts = append(opts, natsio.RootCAs(t.ca))
	}
	if t.cert != "" {
		opts = append(opts, natsio.ClientCert(t.cert, t.key))
	}
	return opts
}
