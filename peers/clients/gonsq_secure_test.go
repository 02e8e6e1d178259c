package clients

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsqio/go-nsq"
	"github.com/nsqio/nsq/nsqd"

	"github.com/millrace/millrace/peers/node"
)

// flows publishes and consumes with the same settings, in messages large and small.
func flows(t *testing.T, n *node.Node, change func(*nsq.Config)) {
	t.Helper()
	all := append(bodies("m", 500), strings.Repeat("long ", 50000))
	p := producer(t, n, change)
	for chunk := range slices.Chunk(all, 100) {
		if err := p.MultiPublish("t", asBytes(chunk)); err != nil {
			t.Fatal(err)
		}
	}
	in := new(inbox)
	connect(t, n, consumer(t, "t", "c", in, 2, change))
	in.want(t, all...)
	if ch := wantDone(t, n, "t", "c"); ch.Requeued+ch.TimedOut > 0 {
		t.Errorf("the channel says %+v", ch)
	}
}

func TestCompressed(t *testing.T) {
	for name, change := range map[string]func(*nsq.Config){
		"snappy":  func(c *nsq.Config) { c.Snappy = true },
		"deflate": func(c *nsq.Config) { c.Deflate, c.DeflateLevel = true, 6 },
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, nil, func(t *testing.T, n *node.Node) { flows(t, n, change) })
		})
	}
}

func TestOverTLS(t *testing.T) {
	cert, key, err := node.Certificate(t.TempDir(), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	secure := func(o *node.Options) {
		o.TLSCert, o.TLSKey, o.TLSRequired = cert, key, nsqd.TLSRequiredExceptHTTP
	}
	over := func(c *nsq.Config) { c.TlsV1, c.TlsConfig = true, &tls.Config{RootCAs: roots, ServerName: "localhost"} }
	for name, change := range map[string]func(*nsq.Config){
		"alone":        over,
		"with snappy":  func(c *nsq.Config) { over(c); c.Snappy = true },
		"with deflate": func(c *nsq.Config) { over(c); c.Deflate, c.DeflateLevel = true, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, secure, func(t *testing.T, n *node.Node) { flows(t, n, change) })
		})
	}
	t.Run("required", func(t *testing.T) {
		onBoth(t, secure, func(t *testing.T, n *node.Node) {
			if err := producer(t, n, nil).Publish("t", []byte("x")); err == nil {
				t.Error("published without TLS where it is required")
			}
		})
	})
}

func TestAuthenticated(t *testing.T) {
	authority := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		permissions := map[string]string{"both": `"publish","subscribe"`, "reader": `"subscribe"`}[r.URL.Query().Get("secret")]
		if permissions == "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = fmt.Fprintf(w, `{"ttl":60,"identity":"somebody","authorizations":[{"topic":"^t$","channels":[".*"],"permissions":[%s]}]}`, permissions)
	}))
	defer authority.Close()
	asking := func(o *node.Options) { o.AuthHTTPAddresses = []string{authority.Listener.Addr().String()} }
	with := func(secret string) func(*nsq.Config) {
		return func(c *nsq.Config) { c.AuthSecret = secret }
	}
	// The subtests are parallel and the server must outlive them.
	t.Run("all", func(t *testing.T) {
		t.Run("allowed", func(t *testing.T) {
			onBoth(t, asking, func(t *testing.T, n *node.Node) { flows(t, n, with("both")) })
		})
		t.Run("refused", func(t *testing.T) {
			onBoth(t, asking, func(t *testing.T, n *node.Node) {
				for _, secret := range []string{"", "nobody", "reader"} {
					if err := producer(t, n, with(secret)).Publish("t", []byte("x")); err == nil {
						t.Errorf("published with the secret %q", secret)
					}
				}
				if err := producer(t, n, with("both")).Publish("other", []byte("x")); err == nil || !strings.Contains(err.Error(), "E_UNAUTHORIZED") {
					t.Errorf("published to another topic: %v", err)
				}
			})
		})
	})
}

func TestSampled(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		in := new(inbox)
		connect(t, n, consumer(t, "t", "c", in, 1, func(c *nsq.Config) { c.SampleRate = 30 }))
		all := bodies("m", 2000)
		for chunk := range slices.Chunk(all, 100) {
			publish(t, n, "t", chunk...)
		}
		if ch := wantDone(t, n, "t", "c"); ch.Messages != len(all) {
			t.Errorf("the channel says %+v", ch)
		}
		time.Sleep(100 * time.Millisecond)
		if got := len(in.has()); got < 400 || got > 800 {
			t.Errorf("%d of 2000 messages at a rate of 30", got)
		}
	})
}
