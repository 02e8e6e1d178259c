package drivers_test

import (
	"context"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/driver/drivertest"
	_ "github.com/millrace/millrace/driver/rabbitmq"
	"github.com/millrace/millrace/peers/node"
)

// rabbitTimeout is the consumer_timeout of the server here, far below RabbitMQ's half hour, so that
// all tests run into it if the driver does.
const rabbitTimeout = 5 * time.Second

// rabbit is the one real server of the tests below, which takes seconds to start.
type rabbit struct {
	*node.RabbitMQ
	ca string // the file of its certificate, which has signed itself
}

// TestRabbitMQ starts the server, and has all that is claimed of the driver below it.
func TestRabbitMQ(t *testing.T) {
	r := startRabbit(t)
	for _, claim := range []struct {
		name string
		test func(t *testing.T, r *rabbit)
	}{
		{"it conforms", rabbitConforms},
	} {
		t.Run(claim.name, func(t *testing.T) { claim.test(t, r) })
	}
}

func startRabbit(t *testing.T) *rabbit {
	t.Helper()
	dir := t.TempDir()
	cert, key, err := node.Certificate(dir, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	server, err := node.NewRabbitMQ(dir, []string{
		"consumer_timeout = " + millis(rabbitTimeout),
		"listeners.ssl.default = AMQPS",
		"ssl_options.certfile = " + cert, "ssl_options.keyfile = " + key, "ssl_options.cacertfile = " + cert,
		"ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = false",
	}, "{channel_tick_interval, 1000}") // how often it looks for what is held for too long
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &rabbit{server, cert}
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// vhost makes a virtual host for a test, and returns the URL for it.
func (r *rabbit) vhost(t *testing.T) string {
	t.Helper()
	name := "vhost" + time.Now().Format("150405.000000")
	if err := r.AddVhost(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return r.URL(name) + "?consumer_timeout=" + url.QueryEscape(rabbitTimeout.String())
}

func (r *rabbit) open(t *testing.T, url string) millrace.Broker {
	t.Helper()
	b, err := millrace.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func rabbitConforms(t *testing.T, r *rabbit) {
	vhost := sync.OnceValue(func() string { return r.vhost(t) })
	drivertest.Run(t, func(t *testing.T) drivertest.Harness {
		return drivertest.Harness{
			Open: func(t *testing.T) millrace.Broker { return r.open(t, vhost()) },
			Restart: func(t *testing.T) {
				if err := r.Stop(); err != nil {
					t.Error(err)
				}
				if err := r.Start(); err != nil {
					t.Fatal(err)
				}
			},
			Lease: time.Second, Slack: 8 * time.Second,
		}
	})
}

// soonCtx bounds what must happen soon.
func soonCtx(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
