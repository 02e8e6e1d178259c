package rabbitmq

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace"
)

// defaultConsumerTimeout is RabbitMQ's own, since 3.8.17.
const defaultConsumerTimeout = 30 * time.Minute

// address is what a URL says.
type address struct {
	hosts           []string // host:port, at least one
	vhost           string
	user, password  string
	external        bool        // the client's certificate says who it is
	tls             *tls.Config // nil without TLS; ServerName is set for each host
	consumerTimeout time.Duration
	transient       *bool // whether the server permits transient queues; nil when its version tells
}

// parse reads a URL. Returns an error that wraps millrace.ErrBadURL when there is something
// wrong with it, or that of reading a file that it names.
func parse(u *url.URL) (*address, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", millrace.ErrBadURL, fmt.Sprintf(format, args...))
	}
	a := &address{vhost: "/", user: "guest", password: "guest", consumerTimeout: defaultConsumerTimeout}
	secure := u.Scheme == "amqps"
	if u.Host == "" || u.Opaque != "" {
		return nil, bad("write %s://host/vhost", u.Scheme)
	}
	for host := range strings.SplitSeq(u.Host, ",") {
		withPort, err := hostPort(host, secure)
		if err != nil {
			return nil, bad("%q: %v", host, err)
		}
		a.hosts = append(a.hosts, withPort)
	}
	if path := strings.TrimPrefix(u.EscapedPath(), "/"); path != "" {
		vhost, err := url.PathUnescape(path)
		if err != nil || strings.Contains(path, "/") {
			return nil, bad("the vhost %q is not one word: write a slash in its name as %%2F", path)
		}
		a.vhost = vhost
	}
	if u.User != nil {
		a.user = u.User.Username()
		a.password, _ = u.User.Password()
	}
	files := map[string]string{}
	for key, values := range u.Query() {
		switch value := values[len(values)-1]; key {
		case "ca", "cert", "key":
			if !secure {
				return nil, bad("%s=%s is of use with amqps:// only", key, value)
			}
			files[key] = value
		case "consumer_timeout":
			d, err := time.ParseDuration(value)
			if err != nil || d < time.Second {
				return nil, bad("consumer_timeout=%s: write a duration of at least 1s, such as 30m", value)
			}
			a.consumerTimeout = d
		case "transient_queues":
			permitted, err := strconv.ParseBool(value)
			if err != nil {
				return nil, bad("transient_queues=%s: write true or false", value)
			}
			a.transient = &permitted
		default:
			return nil, bad("unknown parameter %q: there are ca, cert, key, consumer_timeout and transient_queues", key)
		}
	}
	if secure {
		return a, a.readCertificates(files, u.User == nil)
	}
	return a, nil
}

// hostPort adds the port that is meant when there is none.
func hostPort(host string, secure bool) (string, error) {
	if strings.HasSuffix(host, ":") {
		return "", errors.New("a port is missing after the colon")
	}
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host, nil
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if bare == "" {
		return "", errors.New("a host is missing")
	}
	if secure {
		return net.JoinHostPort(bare, "5671"), nil
	}
	return net.JoinHostPort(bare, "5672"), nil
}

// readCertificates makes the TLS configuration.
func (a *address) readCertificates(files map[string]string, nobody bool) error {
	a.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if ca := files["ca"]; ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("ca: %w", err)
		}
		a.tls.RootCAs = x509.NewCertPool()
		if !a.tls.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("ca: %s holds no certificate in PEM", ca)
		}
	}
	cert, key := files["cert"], files["key"]
	if cert == "" && key == "" {
		return nil
	}
	if cert == "" || key == "" {
		return fmt.Errorf("%w: cert and key go together", millrace.ErrBadURL)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("cert and key: %w", err)
	}
	// Also when the server does not name its authority: it says more clearly what it wants.
	a.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	a.external = nobody
	return nil
}
