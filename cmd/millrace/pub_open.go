package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/millrace/millrace"
)

const (
	// serveURL is where millrace serve listens unless it is told otherwise.
	serveURL = "nsq://127.0.0.1:4150"
	// tokenVariable is the environment variable with the token that is shown to the
	// broker. A flag would show it to everybody who can list processes.
	tokenVariable = "MILLRACE_TOKEN"
)

// brokerFlag defines --broker for the commands that speak to a broker that is running.
func brokerFlag(f *pflag.FlagSet, value *string) {
	preset := os.Getenv(brokerVariable)
	if preset == "" {
		preset = serveURL
	}
	f.StringVar(value, "broker", preset, "the broker's `URL`: nsq://HOST:PORT, or file:///DIR when nobody else has that open ($"+brokerVariable+")")
	f.Lookup("broker").DefValue = serveURL
}

// brokerHelp explains the URL and the token to those who need them.
const brokerHelp = `--broker is nsq://HOST:PORT, the TCP address of millrace serve or of nsqd, with ?tls=true
for TLS and &ca=FILE for the authorities that sign its certificate. A token for it is
taken from $` + tokenVariable + `.`

// publisher is where messages are published to: millrace.Broker is wider.
type publisher interface {
	// Publish returns when the messages are safe.
	Publish(ctx context.Context, topic string, msgs ...millrace.Message) error
	Close() error
}

// openPublisher connects to the broker at the URL.
func openPublisher(ctx context.Context, brokerURL string) (publisher, error) {
	at, err := parseNSQ(brokerURL)
	switch {
	case err != nil:
		return nil, err
	case at == nil:
		return millrace.Open(ctx, brokerURL)
	}
	return dialPublisher(at)
}

// nsqAddress is what an nsq: URL says.
type nsqAddress struct {
	tcp  string // HOST:PORT
	http string // its HTTP door, HOST:PORT
	tls  *tls.Config
}

// parseNSQ takes an nsq: URL apart; nil when it is of another kind.
func parseNSQ(brokerURL string) (*nsqAddress, error) {
	u, err := url.Parse(brokerURL)
	if err != nil || u.Scheme != "nsq" {
		return nil, nil //nolint:nilerr,nilnil // millrace.Open says what it thinks of it
	}
	bad := func(why string, args ...any) error {
		return fmt.Errorf("%w %q: %s", millrace.ErrBadURL, u.Redacted(), fmt.Sprintf(why, args...))
	}
	if u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.Fragment != "" {
		return nil, bad("write nsq://HOST:PORT")
	}
	options, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, bad("its options cannot be read")
	}
	at := &nsqAddress{tcp: net.JoinHostPort(u.Hostname(), orText(u.Port(), "4150"))}
	var files tlsFiles
	secure := false
	for name, values := range options {
		value := values[len(values)-1]
		switch name {
		case "http":
			if !strings.Contains(value, ":") {
				value = net.JoinHostPort(u.Hostname(), value)
			}
			at.http = value
		case "tls":
			if secure, err = strconv.ParseBool(value); err != nil {
				return nil, bad("tls is true or false")
			}
		case "ca":
			files.ca, secure = value, true
		default:
			return nil, bad("there is no option %q", name)
		}
	}
	if at.http == "" {
		at.http = nextPort(at.tcp, secure)
	}
	if !secure {
		return at, nil
	}
	if at.tls, err = files.client(); err != nil {
		return nil, bad("%v", err)
	}
	at.tls.ServerName = u.Hostname()
	return at, nil
}

// nextPort is where the HTTP door is, unless somebody says otherwise: nsqd's default is the
// next port, and HTTPS at the one after that.
func nextPort(tcp string, secure bool) string {
	host, port, _ := net.SplitHostPort(tcp)
	n, _ := strconv.Atoi(port)
	if n++; secure {
		n++
	}
	return net.JoinHostPort(host, strconv.Itoa(n))
}

func orText(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// refusal is returned when a broker will never take a message, or never this user's.
type refusal struct {
	// reason is what it said.
	reason string
	// message says that it is about one message of those that were published.
	message bool
}

func (r *refusal) Error() string { return "the broker refuses it: " + r.reason }

// refusalIn returns the refusal that err is; nil when it may go better another time.
func refusalIn(err error) *refusal {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, millrace.ErrTooLarge):
		return &refusal{reason: explain(err), message: true}
	case errors.Is(err, millrace.ErrBadName), errors.Is(err, millrace.ErrClosed):
		return &refusal{reason: explain(err)}
	}
	return nil
}
