package differ

import (
	"bufio"
	"compress/flate"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/nsqio/nsq/nsqd"

	"github.com/millrace/millrace/peers/node"
)

// secured goes on over TLS, with a client certificate if files name one.
func secured(name string, files ...string) func(*session) {
	return func(s *session) {
		cfg := &tls.Config{InsecureSkipVerify: true}
		if len(files) == 2 {
			cert, err := tls.LoadX509KeyPair(files[0], files[1])
			if err != nil {
				s.abandon("%v", err)
			}
			cfg.Certificates = []tls.Certificate{cert}
		}
		c := s.conn(name)
		secure := tls.Client(c.Conn, cfg)
		_ = secure.SetDeadline(time.Now().Add(patience))
		if err := secure.Handshake(); err != nil {
			s.note("%s: TLS fails: %v", name, err)
		}
		c.Conn, c.in = secure, bufio.NewReader(secure)
	}
}

// compressed is a connection whose bytes are compressed in both directions.
type compressed struct {
	net.Conn
	w interface {
		Write(p []byte) (int, error)
		Flush() error
	}
}

// Write implements net.Conn.
func (c compressed) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if err == nil {
		err = c.w.Flush()
	}
	return n, err
}

func snapped(name string) func(*session) {
	return func(s *session) {
		c := s.conn(name)
		c.in = snappy.NewReader(c.in) // what has come already is in it
		c.Conn = compressed{c.Conn, snappy.NewBufferedWriter(c.Conn)}
	}
}

func deflated(name string) func(*session) {
	return func(s *session) {
		c := s.conn(name)
		w, err := flate.NewWriter(c.Conn, 6)
		if err != nil {
			s.abandon("%v", err)
		}
		c.in = flate.NewReader(c.in)
		c.Conn = compressed{c.Conn, w}
	}
}

// exchange publishes, also what does not compress and what is long, and gets it back.
func exchange(name string) func(*session) {
	return steps{
		ask(name, pub("{T}", "short")), ask(name, pub("{T}", noise(5000))), ask(name, pub("{T}", strings.Repeat("long ", 20000))),
		ask(name, sub("{T}", "c")), send(name, "RDY 3\n"), inAnyOrder(name, 3), send(name, "FIN <1>\n"), ask(name, "FIN <1>\n"),
		state(), fails(name, "BOGUS\n"),
	}.play
}

// noise is text that is the same each time, and that nothing makes shorter.
func noise(n int) string {
	var b strings.Builder
	for x := uint32(1); b.Len() < n; {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b.WriteByte(byte(x >> 7))
	}
	return b.String()
}

func TestCompression(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	with := func(more string) func(*session) {
		return ask("a", identify(`{"feature_negotiation":true,`+more+`}`))
	}
	p.run(t, "compress", []script{
		{name: "snappy", steps: steps{open("a"), with(`"snappy":true`), snapped("a"), frames("a", 1), exchange("a")}},
		{name: "deflate", steps: steps{open("a"), with(`"deflate":true`), deflated("a"), frames("a", 1), exchange("a")}},
		{name: "deflate, level 1", steps: steps{open("a"), with(`"deflate":true,"deflate_level":1`), deflated("a"), frames("a", 1), exchange("a")}},
		{name: "deflate, level 9 where 6 is the most", steps: steps{open("a"), with(`"deflate":true,"deflate_level":9`), deflated("a"), frames("a", 1), exchange("a")}},
		{name: "deflate, level -1", steps: steps{open("a"), with(`"deflate":true,"deflate_level":-1`), deflated("a"), frames("a", 1), exchange("a")}},
		{name: "heartbeats are compressed too", steps: steps{
			open("a"), with(`"snappy":true,"heartbeat_interval":1000`), snapped("a"), frames("a", 1), beat("a"), ask("a", pub("{T}", "x")),
		}},
		{name: "what is no deflate ends the connection", steps: steps{
			open("a"), with(`"deflate":true`), send("a", "\xff\xff\xff\xff"), deflated("a"), end("a"),
		}},
		{name: "snappy asked for twice", steps: steps{open("a"), with(`"snappy":true`), snapped("a"), frames("a", 1), ask("a", identify(`{"msg_timeout":2000}`)), exchange("a")}},
		{name: "what is no snappy ends the connection", steps: steps{
			open("a"), with(`"snappy":true`), send("a", "NOP\nNOP\nNOP\nNOP\n"), snapped("a"), end("a"),
		}},
	})

	none := both(t, func(o *Options) { o.SnappyEnabled, o.DeflateEnabled = false, false })
	none.run(t, "nocompress", []script{
		{name: "none where none is allowed", steps: steps{open("a"), with(`"snappy":true,"deflate":true`), exchange("a")}},
	})
	nine := both(t, func(o *Options) { o.MaxDeflateLevel = 9 })
	nine.run(t, "nine", []script{
		{name: "level 9 where it is allowed", steps: steps{open("a"), with(`"deflate":true,"deflate_level":9`), deflated("a"), frames("a", 1), exchange("a")}},
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, "localhost")
	clientCert, clientKey := certificate(t, "somebody")
	with := func(more string) func(*session) {
		return ask("a", identify(`{"feature_negotiation":true,"tls_v1":true`+more+`}`))
	}
	mayBe := both(t, func(o *Options) { o.TLSCert, o.TLSKey = cert, key })
	mayBe.run(t, "tls", []script{
		{name: "TLS", steps: steps{open("a"), with(""), secured("a"), frames("a", 1), exchange("a")}},
		{name: "TLS and snappy", steps: steps{open("a"), with(`,"snappy":true`), secured("a"), frames("a", 1), snapped("a"), frames("a", 1), exchange("a")}},
		{name: "TLS and deflate", steps: steps{open("a"), with(`,"deflate":true`), secured("a"), frames("a", 1), deflated("a"), frames("a", 1), exchange("a")}},
		{name: "TLS with a certificate that nobody asked for", steps: steps{open("a"), with(""), secured("a", clientCert, clientKey), frames("a", 1), exchange("a")}},
		{name: "without TLS where it may be", steps: steps{open("a"), ask("a", identify(`{"feature_negotiation":true}`)), exchange("a")}},
		{name: "no TLS where it was agreed on", steps: steps{open("a"), with(""), fails("a", "PUB {T}\n", sized("x"))}},
		{
			name: "TLS asked for twice", because: "a second IDENTIFY",
			steps: steps{open("a"), with(""), secured("a"), frames("a", 1), with(""), shut("a"), end("a")},
			ours:  []string{"a: " + agreed("true"), `a: response "OK"`, "a: " + agreed("false"), "a: end"},
		},
		{name: "IDENTIFY after TLS", steps: steps{open("a"), with(""), secured("a"), frames("a", 1), ask("a", identify(`{"msg_timeout":1000}`)), exchange("a")}},
		{name: "TLS asked for without negotiation", steps: steps{open("a"), ask("a", identify(`{"tls_v1":true}`)), ask("a", pub("{T}", "x"))}},
		{name: "HTTPS", steps: steps{webTLS("GET", "/ping"), webTLS("POST", "/pub?topic={T}", "x"), web("GET", "/ping")}},
	})

	must := both(t, func(o *Options) { o.TLSCert, o.TLSKey, o.TLSRequired = cert, key, nsqd.TLSRequired })
	scripts := []script{
		{name: "required, and there", steps: steps{open("a"), with(""), secured("a"), frames("a", 1), small("a")}},
		{name: "required of HTTP too", steps: steps{
			web("GET", "/ping"), web("GET", "/stats"), web("POST", "/pub?topic={T}", "x"), web("GET", "/nowhere"), web("PUT", "/ping"),
			webTLS("GET", "/ping"), webTLS("POST", "/pub?topic={T}", "x"),
		}},
	}
	for _, command := range []string{"PUB {T}", "MPUB {T}", "DPUB {T} 1", "SUB {T} c", "RDY 1", "FIN x", "REQ x 1", "TOUCH x", "CLS", "NOP", "AUTH", "BOGUS", ""} {
		scripts = append(scripts, script{name: fmt.Sprintf("%q where TLS is required", command), steps: steps{open("a"), fails("a", command+"\n")}})
	}
	must.run(t, "tlsmust", scripts)

	butHTTP := both(t, func(o *Options) { o.TLSCert, o.TLSKey, o.TLSRequired = cert, key, nsqd.TLSRequiredExceptHTTP })
	butHTTP.run(t, "tlsbut", []script{
		{name: "required but of HTTP", steps: steps{web("GET", "/ping"), web("POST", "/pub?topic={T}", "x"), open("a"), fails("a", "NOP\n")}},
	})

	known := both(t, func(o *Options) {
		o.TLSCert, o.TLSKey, o.TLSClientAuthPolicy, o.TLSRootCAFile = cert, key, "require-verify", clientCert
	})
	known.run(t, "tlsknown", []script{
		{name: "a client with the right certificate", steps: steps{open("a"), with(""), secured("a", clientCert, clientKey), frames("a", 1), small("a")}},
		{name: "a client with another certificate", steps: steps{open("a"), with(""), secured("a", cert, key), rejected("a")}},
		{name: "a client without a certificate", steps: steps{open("a"), with(""), secured("a"), rejected("a")}},
		{name: "HTTPS without a certificate", steps: steps{func(s *session) {
			resp, err := client().Get("https://" + s.node.HTTPS + "/ping")
			if err == nil {
				_ = resp.Body.Close()
			}
			s.note("a certificate is required: %t", strings.Contains(fmt.Sprint(err), "certificate required"))
		}}},
	})
}

// agreed is what IDENTIFY is told with or without TLS.
func agreed(secure string) string {
	return `response "{\"max_rdy_count\":2500,\"version\":\"1.3.0\",\"max_msg_timeout\":900000,\"msg_timeout\":60000,\"tls_v1\":` + secure + `,\"deflate\":false,` +
		`\"deflate_level\":6,\"max_deflate_level\":6,\"snappy\":false,\"sample_rate\":0,\"auth_required\":false,\"output_buffer_size\":16384,\"output_buffer_timeout\":1}"`
}

// small is exchange where HTTP has nothing to say without TLS.
func small(name string) func(*session) {
	return steps{ask(name, pub("{T}", "x")), ask(name, sub("{T}", "c")), ask(name, "RDY 1\n")}.play
}

// rejected waits for the connection to break.
func rejected(name string) func(*session) {
	return func(s *session) {
		line := s.wanted(name)
		if strings.HasPrefix(line, broken+"remote error: tls") || line == ended {
			line = "rejected"
		}
		s.note("%s: %s", name, line)
	}
}

// certificate makes one that has signed itself, and returns its files.
func certificate(t *testing.T, name string) (cert, key string) {
	t.Helper()
	cert, key, err := node.Certificate(t.TempDir(), name)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}
