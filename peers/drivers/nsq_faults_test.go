package drivers_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsqio/nsq/nsqd"

	gonsq "github.com/nsqio/go-nsq"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/peers/node"
)

// wantRefused opens the broker and makes sure that it fails in time, with one line that
// says so.
func wantRefused(t *testing.T, url string, says ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	b, err := millrace.Open(ctx, url)
	if err == nil {
		_ = b.Close()
		t.Errorf("%s was opened", url)
		return
	}
	t.Log(err)
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%s: %q, want it to say %q", url, err, s)
		}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "wrongsecret") || ctx.Err() != nil {
		t.Errorf("%s: %q (%v)", url, err, ctx.Err())
	}
}

// freeAddr is an address where nobody listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestWhatIsWrongWithABrokerOfNSQIsSaid(t *testing.T) {
	nobody := freeAddr(t)
	wantRefused(t, "nsq://"+nobody, "no broker answers at "+nobody, "connection refused")
	wantRefused(t, "nsq://no-such-host.invalid", "no broker answers at no-such-host.invalid:4150")
	wantRefused(t, "nsqlookupd://"+nobody, "nsqlookupd at "+nobody, "connection refused")
	onEachNSQ(t, func(t *testing.T, start node.Start) {
		n := startNSQ(t, start, nil)
		wantRefused(t, "nsq://"+n.HTTP, "does not speak NSQ's protocol")
		wantRefused(t, nsqURL(n)+"&tls=true", "offers no TLS")
		wantRefused(t, "nsqlookupd://"+n.TCP, "nsqlookupd at "+n.TCP)
		// One that is there is enough.
		if err := openNSQ(t, "nsq://"+nobody+","+n.TCP).Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestASecretOpensABrokerOfNSQ(t *testing.T) {
	authority := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("secret") != "opensesame" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		_, _ = w.Write([]byte(`{"ttl":60,"identity":"me","authorizations":[{"topic":"^allowed$","channels":[".*"],"permissions":["subscribe","publish"]}]}`))
	}))
	t.Cleanup(authority.Close)
	onEachNSQ(t, func(t *testing.T, start node.Start) {
		n := startNSQ(t, start, func(o *node.Options) { o.AuthHTTPAddresses = []string{authority.Listener.Addr().String()} })
		wantRefused(t, nsqURL(n), "wants a token", "?secret=")
		wantRefused(t, nsqURL(n)+"&secret=wrongsecret", "does not accept our token")
		b := openNSQ(t, nsqURL(n)+"&secret=opensesame")
		defer b.Close()
		sub, err := b.Subscribe(t.Context(), "allowed", "c", millrace.SubscribeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "allowed", millrace.Message{Body: []byte("x")}); err != nil {
			t.Error(err)
		}
		wantBody(t, sub, "x")
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err = b.Publish(ctx, "forbidden", millrace.Message{Body: []byte("x")})
		if err == nil || !strings.Contains(err.Error(), "E_UNAUTHORIZED") || !errors.Is(err, millrace.ErrRefused) || ctx.Err() != nil {
			t.Errorf("publish to what is not allowed: %v", err)
		}
		_, err = b.Subscribe(ctx, "forbidden", "c", millrace.SubscribeOptions{})
		if err == nil || !strings.Contains(err.Error(), "E_UNAUTHORIZED") || !errors.Is(err, millrace.ErrRefused) || ctx.Err() != nil {
			t.Errorf("subscribe to what is not allowed: %v", err)
		}
	})
}

func TestABrokerOfNSQThatWantsTLSForATokenSaysSo(t *testing.T) {
	onEachNSQ(t, func(t *testing.T, start node.Start) {
		cert, key, err := node.Certificate(t.TempDir(), "server")
		if err != nil {
			t.Fatal(err)
		}
		n := startNSQ(t, start, func(o *node.Options) {
			o.TLSCert, o.TLSKey, o.TLSRequired = cert, key, nsqd.TLSRequiredExceptHTTP
			o.AuthHTTPAddresses = []string{freeAddr(t)} // which is not asked
		})
		wantRefused(t, nsqURL(n)+"&secret=opensesame", "wants TLS", "?tls=true")
	})
}

// wantBody receives one message, and acks it.
func wantBody(t *testing.T, sub millrace.Subscription, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var buf [1]millrace.Delivery
	if _, err := sub.Receive(ctx, buf[:]); err != nil {
		t.Fatalf("waiting for %q: %v", want, err)
	}
	if string(buf[0].Body) != want {
		t.Errorf("got %q, want %q", buf[0].Body, want)
	}
	if err := sub.Ack(ctx, buf[0]); err != nil {
		t.Errorf("ack %q: %v", want, err)
	}
}

func TestABrokerOfNSQIsSpokenToOverTLS(t *testing.T) {
	onEachNSQ(t, func(t *testing.T, start node.Start) {
		dir := t.TempDir()
		cert, key, err := node.Certificate(dir, "server")
		if err != nil {
			t.Fatal(err)
		}
		other, _, err := node.Certificate(dir, "other")
		if err != nil {
			t.Fatal(err)
		}
		n := startNSQ(t, start, func(o *node.Options) {
			o.TLSCert, o.TLSKey, o.TLSRequired = cert, key, nsqd.TLSRequired
			o.TCPAddress, o.HTTPSAddress = "127.0.0.1:0", "127.0.0.1:0" // which the certificate is for
		})
		_, https, _ := net.SplitHostPort(n.HTTPS)
		url := "nsq://" + n.TCP + "?http=" + https
		wantRefused(t, url+"&tls=true", "certificate")
		wantRefused(t, url+"&ca="+other, "certificate")
		wantRefused(t, url+"&ca="+filepath.Join(dir, "none"), "no such file")
		plain := openNSQ(t, nsqURL(n))
		defer plain.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, subscribed := plain.Subscribe(ctx, "t", "c", millrace.SubscribeOptions{})
		for what, err := range map[string]error{
			"publish": plain.Publish(ctx, "t", millrace.Message{}), "declare": plain.Declare(ctx, "t", "c"), "subscribe": subscribed,
		} {
			if t.Log(err); err == nil || !strings.Contains(err.Error(), "TLS") {
				t.Errorf("%s without TLS: %v", what, err)
			}
		}
		b := openNSQ(t, url+"&ca="+cert)
		defer b.Close()
		if err := b.Declare(t.Context(), "t", "c"); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "t", millrace.Message{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		sub, err := b.Subscribe(t.Context(), "t", "c", millrace.SubscribeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wantBody(t, sub, "x")
	})
}

// While the broker is away what is published waits, and says for what; it goes on by itself.
func TestPublishWaitsForABrokerThatIsAway(t *testing.T) {
	onEachNSQ(t, func(t *testing.T, start node.Start) {
		n := startNSQ(t, start, nil)
		b := openNSQ(t, nsqURL(n))
		defer b.Close()
		sub, err := b.Subscribe(t.Context(), "t", "c", millrace.SubscribeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n.down()
		msg := millrace.Message{Body: []byte("x")}
		for what, do := range map[string]func(context.Context) error{
			"publish": func(ctx context.Context) error { return b.Publish(ctx, "t", msg) },
			"declare": func(ctx context.Context) error { return b.Declare(ctx, "other", "c") },
			"subscribe": func(ctx context.Context) error {
				_, err := b.Subscribe(ctx, "t", "d", millrace.SubscribeOptions{})
				return err
			},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			if err := do(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), n.TCP) || !strings.Contains(err.Error(), "refused") {
				t.Errorf("%s: %v, want it to end with its context and to say what it waited for", what, err)
			}
			cancel()
		}
		published := make(chan error, 1)
		go func() { published <- b.Publish(t.Context(), "t", msg) }()
		time.Sleep(100 * time.Millisecond)
		n.up()
		select {
		case err := <-published:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the broker is back, and nothing is published")
		}
		wantBody(t, sub, "x")
	})
}

// What a node was declared while it was away it has before anything is published to it.
func TestANodeThatComesBackHasWhatWasDeclared(t *testing.T) {
	onEachNSQ(t, func(t *testing.T, start node.Start) {
		a, away := startNSQ(t, start, nil), startNSQ(t, start, nil)
		b := openNSQ(t, nsqURL(a, away))
		defer b.Close()
		away.down()
		for _, channel := range []string{"one", "two"} {
			if err := b.Declare(t.Context(), "t", channel); err != nil {
				t.Fatal(err)
			}
		}
		a.down()
		away.up()
		if err := b.Publish(t.Context(), "t", millrace.Message{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		for _, channel := range []string{"one", "two"} {
			sub, err := b.Subscribe(t.Context(), "t", channel, millrace.SubscribeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			wantBody(t, sub, "x")
		}
		a.up()
	})
}

// The message of a program that knows nothing of us arrives as it is, and ours reaches it
// with its headers in front.
func TestForeignMessagesOfNSQArriveAsTheyAre(t *testing.T) {
	onEachNSQ(t, func(t *testing.T, start node.Start) {
		n := startNSQ(t, start, nil)
		b := openNSQ(t, nsqURL(n))
		defer b.Close()
		sub, err := b.Subscribe(t.Context(), "t", "c", millrace.SubscribeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cfg := gonsq.NewConfig()
		producer, err := gonsq.NewProducer(n.TCP, cfg)
		if err != nil {
			t.Fatal(err)
		}
		producer.SetLogger(nil, gonsq.LogLevelMax)
		defer producer.Stop()
		for _, body := range []string{"plain", `MR1 {"id": "spaced"}` + "\nx", "MR1 {", "\x00"} {
			if err := producer.Publish("t", []byte(body)); err != nil {
				t.Fatal(err)
			}
			wantBody(t, sub, body)
		}
		consumer, err := gonsq.NewConsumer("t", "theirs", cfg)
		if err != nil {
			t.Fatal(err)
		}
		consumer.SetLogger(nil, gonsq.LogLevelMax)
		if err := b.Declare(t.Context(), "t", "theirs"); err != nil {
			t.Fatal(err)
		}
		bodies := make(chan string, 1)
		consumer.AddHandler(gonsq.HandlerFunc(func(m *gonsq.Message) error { bodies <- string(m.Body); return nil }))
		if err := consumer.ConnectToNSQD(n.TCP); err != nil {
			t.Fatal(err)
		}
		defer func() { consumer.Stop(); <-consumer.StopChan }()
		msg := millrace.Message{Headers: millrace.Headers(nil).Append(millrace.HeaderID, "job-1"), Body: []byte("x")}
		if err := b.Publish(t.Context(), "t", msg); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-bodies:
			if want := `MR1 {"id":"job-1"}` + "\nx"; got != want {
				t.Errorf("they got %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Error("they got nothing")
		}
	})
}

// A subscription whose channel somebody else deletes ends, and does not make it again.
func TestASubscriptionEndsWithItsChannel(t *testing.T) {
	onEachNSQ(t, func(t *testing.T, start node.Start) {
		n, m := startNSQ(t, start, nil), startNSQ(t, start, nil)
		b, other := openNSQ(t, nsqURL(n, m)), openNSQ(t, nsqURL(n, m))
		defer b.Close()
		defer other.Close()
		sub, err := b.Subscribe(t.Context(), "t", "c", millrace.SubscribeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Delete(t.Context(), "t", "c"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := sub.Receive(ctx, make([]millrace.Delivery, 1)); !errors.Is(err, millrace.ErrClosed) {
			t.Errorf("receive: %v", err)
		}
		if d, err := other.Depth(ctx, "t", "c"); !errors.Is(err, millrace.ErrNotFound) {
			t.Errorf("the channel holds %+v (%v)", d, err)
		}
	})
}

// Killed, a node loses what it was doing with all connections; nsqd what it has in memory
// too. gather asks again for what was lost.
func TestAJobOverNSQOutlivesTheKillingOfItsBroker(t *testing.T) {
	dir := t.TempDir()
	millracePath, err := node.BuildMillrace(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	nsqdPath, err := node.Tool(t.Context(), "nsqd")
	if err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(string) (*node.Process, error){
		"millrace": func(dir string) (*node.Process, error) { return node.MillraceProcess(millracePath, dir) },
		"nsqd": func(dir string) (*node.Process, error) {
			return node.NSQDProcess(nsqdPath, dir, "--broadcast-address=127.0.0.1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			data := filepath.Join(dir, "data-"+name)
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
			p, err := make(data)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = p.Kill() }()
			kill := func() {
				if err := errors.Join(p.Kill(), p.Start()); err != nil {
					t.Error(err)
				}
			}
			_, http, _ := net.SplitHostPort(p.HTTP)
			j := &job{
				t: t, url: "nsq://" + p.TCP + "?http=" + http, tasks: 2000, resend: 2 * time.Second,
				at: map[int]func(){600: kill, 1300: kill},
			}
			j.run()
			if left := left(t, p.HTTP); left != nil && name == "millrace" {
				t.Errorf("left on the node: %s", left)
			}
		})
	}
}
