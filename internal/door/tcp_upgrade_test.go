package door

import (
	"bufio"
	"bytes"
	"compress/flate"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// serverTLS is a certificate of its own, and what a client needs to trust it.
func serverTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "door"}, DNSNames: []string{"door"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(certificate)
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, MinVersion: tls.VersionTLS12},
		&tls.Config{RootCAs: pool, ServerName: "door", Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

// over makes the client speak through what wraps its connection.
func (c *client) over(wrapped net.Conn) { c.Conn, c.in = wrapped, bufio.NewReader(wrapped) }

func (c *client) startTLS(cfg *tls.Config) {
	c.t.Helper()
	secure := tls.Client(c.Conn, cfg)
	if err := secure.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.over(secure)
}

// packed is a connection through a compressor.
type packed struct {
	net.Conn
	r io.Reader
	w io.Writer
	f flusher
}

func (p packed) Read(b []byte) (int, error) { return p.r.Read(b) }

func (p packed) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	if err == nil && p.f != nil {
		err = p.f.Flush()
	}
	return n, err
}

func (c *client) startSnappy() {
	// What was read ahead is compressed too.
	c.over(packed{Conn: c.Conn, r: newSnappyReader(c.in), w: newSnappyWriter(c.Conn)})
}

func (c *client) startDeflate() {
	w, err := flate.NewWriter(c.Conn, 6)
	if err != nil {
		c.t.Fatal(err)
	}
	c.over(packed{Conn: c.Conn, r: flate.NewReader(c.in), w: w, f: w})
}

// negotiate identifies, and returns what the broker told.
func (c *client) negotiate(json string) string {
	c.t.Helper()
	c.send(identify(`{"feature_negotiation":true,` + json + `}`))
	return c.frame()
}

func TestAConnectionCanBeUpgraded(t *testing.T) {
	server, trust := serverTLS(t)
	for _, kind := range []string{"tls", "snappy", "deflate", "tls+snappy", "tls+deflate"} {
		t.Run(kind, func(t *testing.T) {
			d := serveTCP(t, Config{TLS: server})
			p, c := d.dial(), d.dial()
			has := func(what string) bool { return strings.Contains(kind, what) }
			for _, c := range []*client{p, c} {
				told := c.negotiate(fmt.Sprintf(`"tls_v1":%v,"snappy":%v,"deflate":%v,"deflate_level":9`, has("tls"), has("snappy"), has("deflate")))
				if want := fmt.Sprintf(`"tls_v1":%v,"deflate":%v,"deflate_level":6,"max_deflate_level":6,"snappy":%v`, has("tls"), has("deflate"), has("snappy")); !strings.Contains(told, want) {
					t.Fatalf("told %s, want %s", told, want)
				}
				if has("tls") {
					c.startTLS(trust)
					c.want("OK")
				}
				if has("snappy") {
					c.startSnappy()
					c.want("OK")
				}
				if has("deflate") {
					c.startDeflate()
					c.want("OK")
				}
			}
			c.send("SUB t c\n", "RDY 100\n")
			c.want("OK")
			large := strings.Repeat("0123456789", 30_000)
			for _, body := range []string{"x", large, "y"} {
				p.send(pub("t", body))
				p.want("OK")
				m := c.message()
				if m.body != body {
					t.Fatalf("%d bytes came, want the %d that were sent", len(m.body), len(body))
				}
				c.send("FIN ", m.id, "\n")
			}
			s := d.onlyClient(func(s clientStats) bool { return s.producer })
			if s.TLS != has("tls") || s.Snappy != has("snappy") || s.Deflate != has("deflate") || (s.TLSVersion == "TLS1.3") != has("tls") {
				t.Errorf("statistics are %+v", s)
			}
			p.send("FOO\n")
			p.want("!E_INVALID invalid command FOO")
			p.wantEnd()
		})
	}
}

func TestCompressionCanBeRefused(t *testing.T) {
	d := serveTCP(t, Config{NoSnappy: true, NoDeflate: true})
	c := d.dial()
	if told := c.negotiate(`"snappy":true,"deflate":true`); !strings.Contains(told, `"deflate":false,"deflate_level":6,"max_deflate_level":6,"snappy":false`) {
		t.Errorf("told %s", told)
	}
	c.send(pub("t", "x"))
	c.want("OK")
}

func TestWithTLSRequiredOnlyIDENTIFYIsAllowedBefore(t *testing.T) {
	server, trust := serverTLS(t)
	d := serveTCP(t, Config{TLS: server, TLSRequired: true})
	for _, command := range []string{"NOP", "PUB", "SUB", "AUTH", "FOO"} {
		c := d.dial()
		c.send(command, " t c\n")
		c.want("!E_INVALID cannot " + command + " in current state (TLS required)")
		c.wantEnd()
	}
	c := d.dial()
	c.send(identify(`{}`), pub("t", "x"))
	c.want("OK", "!E_INVALID cannot PUB in current state (TLS required)")
	c = d.dial()
	c.negotiate(`"tls_v1":true`)
	c.startTLS(trust)
	c.send(pub("t", "x"))
	c.want("OK", "OK")
}

// What somebody in between adds to the clear text must not be taken for the client's.
func TestWhatWasSentBeforeTheHandshakeIsNotReadAfterIt(t *testing.T) {
	server, trust := serverTLS(t)
	d := serveTCP(t, Config{TLS: server})
	c := d.dial()
	c.send(identify(`{"feature_negotiation":true,"tls_v1":true}`) + pub("injected", "x"))
	if told := c.frame(); !strings.Contains(told, `"tls_v1":true`) {
		t.Fatalf("told %s", told)
	}
	c.startTLS(trust)
	c.want("OK")
	c.send(pub("t", "x"))
	c.want("OK")
	if d.broker.Lookup("injected") != nil {
		t.Error("what was injected was published")
	}
}

func TestAHandshakeThatFailsEndsTheConnection(t *testing.T) {
	server, _ := serverTLS(t)
	server.ClientAuth = tls.RequireAndVerifyClientCert
	d := serveTCP(t, Config{TLS: server})
	c := d.dial()
	c.negotiate(`"tls_v1":true`)
	c.send(strings.Repeat("no handshake", 10))
	if rest, err := io.ReadAll(c.in); err != nil && !errors.Is(err, net.ErrClosed) && !bytes.Contains(rest, []byte("E_IDENTIFY_FAILED")) {
		t.Errorf("%q, %v", rest, err)
	}
	eventually(t, "the connection is forgotten", func() bool {
		n := 0
		d.eachClient(func(clientStats) { n++ })
		return n == 0
	})
}

func TestDamagedCompressedInputEndsTheConnection(t *testing.T) {
	d := serveTCP(t, Config{})
	c := d.dial()
	c.negotiate(`"snappy":true`)
	raw := c.Conn
	c.startSnappy()
	c.want("OK")
	if _, err := raw.Write([]byte("\x00\x00\x00\x00 no snappy")); err != nil {
		t.Fatal(err)
	}
	c.wantEnd()
	c = d.dial()
	c.negotiate(`"deflate":true`)
	raw = c.Conn
	c.startDeflate()
	c.want("OK")
	if _, err := raw.Write(bytes.Repeat([]byte{0xff}, 100)); err != nil {
		t.Fatal(err)
	}
	c.wantEnd()
}

// Heartbeats come through TLS and compression, whose reader waits when they are due.
func TestHeartbeatsComeThroughEveryUpgrade(t *testing.T) {
	server, trust := serverTLS(t)
	for _, kind := range []string{"tls", "snappy", "deflate"} {
		t.Run(kind, func(t *testing.T) {
			virtually(t, Config{TLS: server}, func(t *testing.T, _ *tcpDoor, dial func() *client) {
				c := dial()
				c.negotiate(fmt.Sprintf(`"tls_v1":%v,"snappy":%v,"deflate":%v`, kind == "tls", kind == "snappy", kind == "deflate"))
				switch kind {
				case "tls":
					c.startTLS(atAnyTime(trust))
				case "snappy":
					c.startSnappy()
				case "deflate":
					c.startDeflate()
				}
				c.want("OK")
				for range 3 {
					c.wantIn("_heartbeat_", 30*time.Second)
					c.send("NOP\n")
				}
				c.wantIn("_heartbeat_", 30*time.Second)
				start := time.Now()
				if _, err := io.Copy(io.Discard, c.in); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || time.Since(start) != 30*time.Second {
					t.Errorf("the end came after %v, with %v", time.Since(start), err)
				}
				_ = c.Close()
			})
		})
	}
}

// atAnyTime does not look at the certificate, which is not valid in virtual time.
func atAnyTime(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	cfg.InsecureSkipVerify = true //nolint:gosec // what is tested is something else
	return cfg
}

// A heartbeat in the clear would break a handshake that takes its time.
func TestNoHeartbeatComesBetweenTheMessagesOfAHandshake(t *testing.T) {
	server, trust := serverTLS(t)
	virtually(t, Config{TLS: server}, func(_ *testing.T, _ *tcpDoor, dial func() *client) {
		c := dial()
		c.negotiate(`"tls_v1":true,"heartbeat_interval":1000`)
		time.Sleep(4500 * time.Millisecond)
		c.startTLS(atAnyTime(trust))
		c.want("OK")
		c.wantIn("_heartbeat_", time.Second)
		_ = c.Close()
	})
}

func TestAHandshakeHasFiveSeconds(t *testing.T) {
	server, _ := serverTLS(t)
	virtually(t, Config{TLS: server}, func(t *testing.T, _ *tcpDoor, dial func() *client) {
		c := dial()
		c.negotiate(`"tls_v1":true`)
		start := time.Now()
		if _, err := io.Copy(io.Discard, c.in); err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("the end came after %v, with %v", time.Since(start), err)
		}
		_ = c.Close()
	})
}
