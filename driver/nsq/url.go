package nsq

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace"
)

// tokenVariable is the environment variable with the secret, unless the URL has one: a URL
// on a command line is shown to everybody who can list processes.
const tokenVariable = "MILLRACE_TOKEN"

// settings are what a URL says.
type settings struct {
	nodes   []endpoint // fixed; none with lookupd
	lookupd []string   // HTTP addresses, HOST:PORT
	access  access
}

// endpoint is where a node listens.
type endpoint struct {
	tcp  string // HOST:PORT
	http string // HOST:PORT of its HTTP API, or HTTPS
}

// access is how a node lets us in.
type access struct {
	secret string      // "" for none
	tls    *tls.Config // nil for none
}

// parse reads the URL of a broker. Its errors wrap millrace.ErrBadURL. The secret is
// taken out of the URL, which is quoted in errors.
func parse(u *url.URL) (s settings, err error) {
	if u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.Fragment != "" || u.Opaque != "" {
		return s, badURL("write %s://HOST:PORT, or several as HOST:PORT,HOST:PORT", u.Scheme)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		u.RawQuery = ""
		return s, badURL("its options cannot be read: %w", err)
	}
	if query.Has("secret") {
		s.access.secret = query.Get("secret")
		shown := maps.Clone(query)
		shown.Set("secret", "xxxxx")
		u.RawQuery = shown.Encode()
	} else {
		s.access.secret = os.Getenv(tokenVariable)
	}
	for _, key := range slices.Sorted(maps.Keys(query)) {
		switch known := []string{"ca", "cert", "http", "key", "secret", "tls"}; {
		case !slices.Contains(known, key):
			return s, badURL("there is no option %q; there are %s", key, strings.Join(known, ", "))
		case len(query[key]) > 1:
			return s, badURL("%s is there %d times", key, len(query[key]))
		case query.Get(key) == "":
			return s, badURL("%s is empty: leave it out or say what it is", key)
		}
	}
	if s.access.tls, err = parseTLS(query); err != nil {
		return s, err
	}
	hosts := strings.Split(u.Host, ",")
	if u.Scheme == lookupdScheme {
		if query.Has("http") {
			return s, badURL("http is told by nsqlookupd: leave it out")
		}
		s.lookupd, err = addresses(hosts, "4161")
		return s, err
	}
	s.nodes, err = endpoints(hosts, query.Get("http"), s.access.tls != nil)
	return s, err
}

// HTTPAPI is where a node is asked over HTTP, and how it lets us in.
type HTTPAPI struct {
	// Address is HOST:PORT, and Base what its URLs begin with, as in https://host:4152.
	Address, Base string
	// TLS is nil without TLS.
	TLS *tls.Config
	// Token is what Authorization: Bearer is to show; "" for none.
	Token string
}

// HTTPAPIs returns the HTTP APIs of the nodes that a URL names. Nothing is connected. Returns
// an error that wraps millrace.ErrBadURL when it is not the URL of nodes: those of
// nsqlookupd:// are known to nsqlookupd alone.
func HTTPAPIs(brokerURL string) ([]HTTPAPI, error) {
	u, err := url.Parse(brokerURL)
	if err != nil || u.Scheme != nodesScheme {
		return nil, badURL("write %s://HOST:PORT, the address of a broker", nodesScheme)
	}
	s, err := parse(u)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.Redacted(), err)
	}
	all := make([]HTTPAPI, len(s.nodes))
	for i, at := range s.nodes {
		all[i] = HTTPAPI{Address: at.http, Base: s.access.scheme() + at.http, TLS: s.access.tls, Token: s.access.secret}
	}
	return all, nil
}

// scheme is what URLs of HTTP APIs begin with.
func (a *access) scheme() string {
	if a.tls != nil {
		return "https://"
	}
	return "http://"
}

// addresses makes each of the hosts HOST:PORT.
func addresses(hosts []string, port string) ([]string, error) {
	var all []string
	for _, host := range hosts {
		u := url.URL{Host: host}
		name := u.Hostname()
		if name == "" {
			return nil, badURL("one of its hosts is empty")
		}
		p := u.Port()
		if p == "" {
			p = port
		}
		if _, err := strconv.ParseUint(p, 10, 16); err != nil {
			return nil, badURL("%s is no port: write HOST:PORT", p)
		}
		address := net.JoinHostPort(name, p)
		if slices.Contains(all, address) {
			return nil, badURL("%s is there twice", address)
		}
		all = append(all, address)
	}
	return all, nil
}

// endpoints adds to each host where its HTTP API is. As nsqd has it by default, that is at
// the next port, and HTTPS at the one after that; else api says where, once for all or for
// one after the other, as PORT or HOST:PORT.
func endpoints(hosts []string, api string, secure bool) ([]endpoint, error) {
	tcp, err := addresses(hosts, "4150")
	if err != nil {
		return nil, err
	}
	var apis []string
	if api != "" {
		apis = strings.Split(api, ",")
	}
	if len(apis) > 1 && len(apis) != len(tcp) {
		return nil, badURL("http has %d ports for %d hosts: write one for all, or one for each", len(apis), len(tcp))
	}
	all := make([]endpoint, len(tcp))
	for i, address := range tcp {
		host, port, _ := net.SplitHostPort(address)
		n, _ := strconv.Atoi(port)
		if n++; secure {
			n++
		}
		at := strconv.Itoa(n)
		if len(apis) > 0 {
			at = apis[min(i, len(apis)-1)]
		}
		if h, p, err := net.SplitHostPort(at); err == nil && h != "" {
			host, at = h, p
		}
		if _, err := strconv.ParseUint(at, 10, 16); err != nil {
			return nil, badURL("http=%s: write PORT or HOST:PORT", at)
		}
		all[i] = endpoint{tcp: address, http: net.JoinHostPort(host, at)}
	}
	return all, nil
}

// parseTLS reads the options that have to do with TLS; nil when there are none.
func parseTLS(query url.Values) (*tls.Config, error) {
	ca, cert, key := query.Get("ca"), query.Get("cert"), query.Get("key")
	wanted := ca != "" || cert != "" || key != ""
	if query.Has("tls") {
		on, err := strconv.ParseBool(query.Get("tls"))
		if err != nil || !on && wanted {
			return nil, badURL("tls=%s: write tls=true, or leave out ca, cert and key", query.Get("tls"))
		}
		wanted = on
	}
	if !wanted {
		return nil, nil //nolint:nilnil // no TLS is no error
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, badURL("ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, badURL("ca=%s: there is no certificate in it, in PEM", ca)
		}
	}
	if (cert == "") != (key == "") {
		return nil, badURL("cert and key go together: a certificate of ours, and its key")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, badURL("cert and key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func badURL(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{millrace.ErrBadURL}, args...)...)
}
