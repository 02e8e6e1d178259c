package millrace

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// ErrBadURL is returned by Open when it is given something that is not the URL of a
// broker it knows.
var ErrBadURL = errors.New("millrace: bad broker URL")

// Opener connects to the broker that a URL names. Drivers supply one to Register.
type Opener func(ctx context.Context, u *url.URL) (Broker, error)

// drivers is the registry that the drivers' packages fill from their init
// functions, as those of database/sql do.
var drivers struct {
	sync.RWMutex
	open map[string]Opener
}

// Register makes a driver known to Open under a URL scheme. It is called from the
// init function of the driver's package; it panics when the scheme is taken.
func Register(scheme string, open Opener) {
	drivers.Lock()
	defer drivers.Unlock()
	if drivers.open == nil {
		drivers.open = make(map[string]Opener)
	}
	if _, taken := drivers.open[scheme]; taken {
		panic("millrace: two drivers for the URL scheme " + scheme)
	}
	drivers.open[scheme] = open
}

// Schemes returns the URL schemes that Open knows, sorted: those of the drivers
// whose packages the program imports.
func Schemes() []string {
	drivers.RLock()
	defer drivers.RUnlock()
	schemes := make([]string, 0, len(drivers.open))
	for scheme := range drivers.open {
		schemes = append(schemes, scheme)
	}
	slices.Sort(schemes)
	return schemes
}

// Open connects to the broker at the URL, for example "mem:" or "file:///var/lib/jobs".
// The program must import the driver's package. Returns an error that wraps
// ErrBadURL when the URL cannot be parsed or its scheme has no driver, and else what
// the driver returns.
func Open(ctx context.Context, brokerURL string) (Broker, error) {
	u, err := url.Parse(brokerURL)
	if err != nil && !strings.Contains(brokerURL, "://") {
		return nil, fmt.Errorf("%w %q: it has no scheme: write for example nsq://%s", ErrBadURL, brokerURL, brokerURL)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadURL, err)
	}
	drivers.RLock()
	open := drivers.open[u.Scheme]
	drivers.RUnlock()
	if open == nil {
		return nil, fmt.Errorf("%w %q: %s", ErrBadURL, u.Redacted(), known(u.Scheme))
	}
	b, err := open(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("open broker %s: %w", u.Redacted(), err)
	}
	return b, nil
}

// packages are the drivers of this module, by the schemes of their URLs.
var packages = map[string]string{
	"mem": "embedded", "file": "embedded", "nsq": "nsq", "nsqlookupd": "nsq", "amqp": "rabbitmq", "amqps": "rabbitmq", "nats": "nats",
}

// known says why a scheme has no driver.
func known(scheme string) string {
	if name := packages[scheme]; name != "" {
		return fmt.Sprintf(`this program has no driver for it: import _ "github.com/millrace/millrace/driver/%s"`, name)
	}
	if schemes := Schemes(); len(schemes) > 0 {
		return "its scheme must be one of " + strings.Join(schemes, ", ")
	}
	return "this program has no driver; they are below github.com/millrace/millrace/driver"
}
