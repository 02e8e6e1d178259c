package drivers_test

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/driver/drivertest"
	_ "github.com/millrace/millrace/driver/rabbitmq"
	"github.com/millrace/millrace/peers/node"
)

// rabbitTimeout is the consumer_timeout of the server here, far below RabbitMQ's half hour, so that
// all tests run into it if the driver does.
const rabbitTimeout = 5 * time.Second

// rabbitMaxSize is the max_message_size of the server, below what all drivers take.
const rabbitMaxSize = 32 << 20

// rabbit is the one real server of the tests below, which takes seconds to start.
type rabbit struct {
	*node.RabbitMQ
	ca string // the file of its certificate, which has signed itself

	vhosts atomic.Int64 // that were made
}

// rabbitClaim is a test that uses the server.
type rabbitClaim struct {
	name string
	test func(t *testing.T, r *rabbit)
}

// TestRabbitMQ starts the server, and has all that is claimed of the driver below it.
func TestRabbitMQ(t *testing.T) {
	r := startRabbit(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent(), goleak.IgnoreAnyFunction("os/exec.(*Cmd).writerDescriptor.func1"))
	t.Run("together", func(t *testing.T) {
		for _, claim := range []rabbitClaim{
			{"tasks", rabbitTasks},
			{"a worker in Node", rabbitForeignWorker},
			{"a client in Node", rabbitForeignClient},
			{"direct reply-to", rabbitDirectReply},
			{"an answer to nobody", rabbitAnswerToNobody},
			{"messages of others", rabbitForeignMessages},
			{"delays", rabbitDelays},
			{"the first channel", rabbitFirstChannel},
			{"the last acks", rabbitLastAcks},
			{"a deaf subscription", rabbitDeaf},
			{"a paused subscription", rabbitPaused},
			{"a census", rabbitCensus},
			{"a deleted topic", rabbitDeletedTopic},
			{"long deliveries", rabbitLongTasks},
			{"a broken network", rabbitNetwork},
			{"a small max_message_size", rabbitSmallMessages},
			{"TLS", rabbitTLS},
			{"bad URLs", rabbitBadURLs},
			{"several hosts", rabbitHosts},
			{"another host", rabbitOtherHost},
			{"no transient queues", rabbitNoTransients},
		} {
			t.Run(claim.name, func(t *testing.T) {
				t.Parallel()
				claim.test(t, r)
			})
		}
	})
	for _, claim := range []rabbitClaim{ // what others would notice
		{"it conforms", rabbitConforms},
		{"a server short of memory", rabbitBlocked},
		{"a server that dies", rabbitDies},
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
		"max_message_size = " + strconv.Itoa(rabbitMaxSize),
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
		if err := server.Kill(); err != nil { // which is quicker than to stop it
			t.Error(err)
		}
	})
	return &rabbit{RabbitMQ: server, ca: cert}
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// vhost makes a virtual host for a test, and returns the URL for it.
func (r *rabbit) vhost(t *testing.T) string {
	t.Helper()
	name := fmt.Sprint("vhost", r.vhosts.Add(1))
	if err := r.AddVhost(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return r.URL(name) + "?consumer_timeout=" + rabbitTimeout.String()
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

// queues lists the queues of the virtual host that the URL names.
func (r *rabbit) queues(t *testing.T, of string) []string {
	t.Helper()
	u, err := url.Parse(of)
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.Ctl(t.Context(), "list_queues", "-p", strings.TrimPrefix(u.Path, "/"), "name", "--no-table-headers")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(out)
}

// rabbitEventually waits until the check is true.
func rabbitEventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	rabbitWithin(t, 10*time.Second, what, check)
}

func rabbitWithin(t *testing.T, d time.Duration, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !check(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}

// soonCtx bounds what must happen soon.
func soonCtx(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
