package differ

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What Millrace does otherwise on purpose, as far as no other file has it: see tableFile.
func TestApart(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	p.run(t, "apart", []script{
		{
			name: "a deferral while there is no channel", because: "a deferral without a channel",
			steps: steps{
				open("a"), ask("a", dpub("{T}", "3000", "x")), wait(3100 * time.Millisecond),
				consumer("b"), send("b", "RDY 1\n"), something("b"),
			},
			ours: []string{`a: response "OK"`, `b: response "OK"`, `b: message <1> attempt 1 "x"`},
		},
		{
			name: "a deferral over HTTP that wraps", because: "a delay beyond 64 bits",
			steps: steps{web("POST", "/pub?topic={T}&defer=18446744073710", "x")},
			ours:  []string{`POST /pub?topic={T}&defer=18446744073710: 400 ` + inJSON + ` "{\"message\":\"INVALID_DEFER\"}"`},
		},
		{
			name: "IDENTIFY twice", because: "a second IDENTIFY",
			steps: steps{
				given("1"), open("a"), ask("a", identify(`{"msg_timeout":1000}`)), ask("a", identify(`{"msg_timeout":9000}`)),
				ask("a", sub("{T}", "c")), ask("a", "RDY 1\n"), send("a", "RDY 0\n"), wait(1300 * time.Millisecond),
				pick("/stats?format=json&include_clients=0&topic={T}", `"(in_flight|timeout)_count":\d+`),
			},
			ours: []string{
				`giver: response "OK"`, `a: response "OK"`, `a: response "OK"`, `a: response "OK"`, `a: message <1> attempt 1 "1"`,
				`"in_flight_count":1 "timeout_count":0`,
			},
		},
		{
			name: "messages that wait are on the disk", because: "backend_depth",
			steps: steps{given("1", "2"), pick("/stats?format=json&topic={T}&include_mem=0", `"backend_depth":\d+`)},
			ours:  []string{`giver: response "OK"`, `"backend_depth":2`},
		},
		{
			name: "headers are no part of the body", because: "message_bytes",
			steps: steps{given(`MR1 {"k":"v"}` + "\nbody"), pick("/stats?format=json&topic={T}", `"message_bytes":\d+`)},
			ours:  []string{`giver: response "OK"`, `"message_bytes":4`},
		},
		{
			name: "a body where none is read", because: "a body that nobody asked for",
			steps: steps{web("POST", "/topic/create?topic={T}"), raw("POST /topic/pause?topic={T} HTTP/1.1\r\nHost: nsqd\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n")},
			ours:  []string{`POST /topic/create?topic={T}: 200 X-Nsq-Content-Type=nsq; version=1.0 ""`, `200 ""`},
		},
		{
			name: "a large header", because: "a large header",
			steps: steps{status("GET", "/ping", "X-Long", strings.Repeat("x", 80<<10))},
			ours:  []string{"GET /ping: 431"},
		},
		{
			name: "a page from elsewhere", because: "a page from elsewhere",
			steps: steps{headed("POST", "/topic/create?topic={T}", "Origin", "http://elsewhere.example")},
			ours:  []string{`POST /topic/create?topic={T}: 403 ` + inJSON + ` "{\"message\":\"CROSS_ORIGIN\"}"`},
		},
		{
			name: "paths that nsqd has not", because: "paths that nsqd has not",
			steps: steps{
				web("POST", "/topic/create?topic={T}"), status("GET", "/metrics"), status("GET", "/lookup?topic={T}"),
				status("GET", "/channels?topic={T}"), status("GET", "/topics"), status("GET", "/nodes"), status("GET", "/peek?topic={T}"),
				web("POST", "/channel/create?topic={T}&channel=c"), status("POST", "/channel/replay?topic={T}&channel=c&from=1"),
			},
			ours: []string{
				`POST /topic/create?topic={T}: 200 X-Nsq-Content-Type=nsq; version=1.0 ""`, "GET /metrics: 200", "GET /lookup?topic={T}: 200",
				"GET /channels?topic={T}: 200", "GET /topics: 200", "GET /nodes: 200", "GET /peek?topic={T}: 200",
				`POST /channel/create?topic={T}&channel=c: 200 X-Nsq-Content-Type=nsq; version=1.0 ""`, "POST /channel/replay?topic={T}&channel=c&from=1: 200",
			},
		},
	})
}

// The same where the brokers are told something special.
func TestApartWithOptions(t *testing.T) {
	t.Parallel()
	full := both(t, func(o *Options) { o.MemQueueSize = 1 })
	full.run(t, "full", []script{
		{
			name: "deferrals that overflow", because: "a deferral that overflows",
			steps: steps{
				open("a"), ask("a", dpub("{T}", "3600000", "1")), ask("a", dpub("{T}", "3600000", "2")),
				consumer("b"), send("b", "RDY 9\n"), something("b"),
			},
			ours: []string{`a: response "OK"`, `a: response "OK"`, `b: response "OK"`, `b: nothing`},
		},
		{
			name: "an ephemeral topic that overflows", because: "an ephemeral topic or channel that overflows",
			steps: steps{
				open("a"), ask("a", mpub("{T}#ephemeral", "1", "2", "3")),
				open("b"), ask("b", sub("{T}#ephemeral", "c")), send("b", "RDY 9\n"), something("b"), something("b"), something("b"),
			},
			ours: []string{
				`a: response "OK"`, `b: response "OK"`, `b: message <1> attempt 1 "1"`, `b: message <2> attempt 1 "2"`, `b: message <3> attempt 1 "3"`,
			},
		},
	})

	full.run(t, "lost", []script{{
		name: "an ephemeral channel that overflows", because: "an ephemeral topic or channel that overflows",
		steps: steps{
			open("b"), ask("b", sub("{T}", "c#ephemeral")), given("1", "2", "3"), eventually("message_count", 3),
			send("b", "RDY 9\n"), something("b"), something("b"), something("b"),
		},
		ours: []string{
			`b: response "OK"`, `giver: response "OK"`, "message_count is 3 to 3",
			`b: message <1> attempt 1 "1"`, `b: message <2> attempt 1 "2"`, `b: message <3> attempt 1 "3"`,
		},
	}})

	small := both(t, func(o *Options) { o.MaxBodySize, o.MaxMsgSize = 100, 60 })
	large := batch(strings.Repeat("x", 50), strings.Repeat("y", 50))
	small.run(t, "small", []script{
		{
			name: "MPUB that is larger than it says", because: "a batch larger than it says",
			steps: steps{open("a"), send("a", "MPUB {T}\n", be32(50), large), shut("a"), end("a")},
			ours:  []string{`a: error "E_BAD_BODY MPUB body too big 112 > 100"`, `a: end`},
		},
		{
			name: "a binary mpub that does not say how large it is", because: "a batch larger than it says",
			steps: steps{chunked("POST", "/mpub?topic={T}&binary=true", large)},
			ours:  []string{`POST /mpub?topic={T}&binary=true: 413 ` + inJSON + ` "{\"message\":\"BAD_BODY\"}"`},
		},
	})

	timed := both(t, func(o *Options) { o.E2EProcessingLatencyPercentiles = []float64{0.99} })
	timed.run(t, "timed", []script{{
		name: "latencies", because: "e2e_processing_latency",
		steps: steps{
			given("1"), consumer("a"), ask("a", "RDY 1\n"), send("a", "FIN <1>\n"), eventually("in_flight_count", 0),
			pick("/stats?format=json&topic={T}", `"e2e_processing_latency":{"count":\d+`),
		},
		ours: []string{
			`giver: response "OK"`, `a: response "OK"`, `a: message <1> attempt 1 "1"`, "in_flight_count is 0 to 0",
			`"e2e_processing_latency":{"count":0 "e2e_processing_latency":{"count":0`,
		},
	}})

	hasty := both(t, func(o *Options) { o.ClientTimeout = time.Second })
	hasty.run(t, "hasty", []script{{
		name: "a client that does not even begin", because: "a client that does not begin",
		steps: steps{connect("a"), send("a", "  "), wait(1500 * time.Millisecond), something("a")},
		ours:  []string{"a: end"},
	}})

	cert, key := certificate(t, "localhost")
	secure := both(t, func(o *Options) { o.TLSCert, o.TLSKey = cert, key })
	secure.run(t, "cipher", []script{{
		name: "the cipher suite of TLS 1.3", because: "tls_cipher_suite",
		steps: steps{
			open("a"), ask("a", identify(`{"feature_negotiation":true,"tls_v1":true}`)), secured("a"), frames("a", 1), ask("a", sub("{T}", "c")),
			pick("/stats?format=json&topic={T}", `"tls_cipher_suite":"(Unknown|TLS)`),
		},
		ours: []string{
			"a: " + agreed("true"),
			`a: response "OK"`, `a: response "OK"`, `"tls_cipher_suite":"TLS`,
		},
	}})
}

// Clients that keep a broker waiting.
func TestApartFromTheSlow(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	speaks := func(s *session) {
		for range 15 {
			send("a", "NOP\n")(s)
			wait(200 * time.Millisecond)(s)
		}
	}
	p.run(t, "slow", []script{
		{
			name: "a client that speaks, and does not read", because: "a client that does not read",
			steps: steps{
				open("p"), ask("p", mpub("{T}", mib(100), mib(100), mib(100), mib(100))), repeated(5, ask("p", mpub("{T}", mib(100), mib(100), mib(100), mib(100)))),
				open("a"), ask("a", identify(`{"heartbeat_interval":1000}`)), ask("a", sub("{T}", "c")), send("a", "RDY 100\n"), speaks,
				pick("/stats?format=json&include_clients=0&topic={T}", `"client_count":\d+`),
			},
			ours: []string{
				`p: response "OK"`, `p: response "OK"`, `p: response "OK"`, `p: response "OK"`, `p: response "OK"`, `p: response "OK"`,
				`a: response "OK"`, `a: response "OK"`, `"client_count":0`,
			},
		},
		{
			name: "half a head over HTTP", because: "a slow HTTP client",
			steps: steps{halfHead(10500 * time.Millisecond)},
			ours:  []string{"closed"},
		},
	})
}

// repeated does a step n times.
func repeated(n int, step func(*session)) func(*session) {
	return func(s *session) {
		for range n {
			step(s)
		}
	}
}

// halfHead begins a request over HTTP, and waits.
func halfHead(d time.Duration) func(*session) {
	return func(s *session) {
		conn, err := net.Dial("tcp", s.node.HTTP)
		if err != nil {
			s.abandon("%v", err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(d))
		if _, err := io.WriteString(conn, "GET /ping HTTP/1.1\r\nHost: "); err != nil {
			s.abandon("%v", err)
		}
		if _, err := io.Copy(io.Discard, conn); err == nil {
			s.note("closed")
		} else {
			s.note("still open")
		}
	}
}

// One by one, because nsqd names one of the topics that a client published to: which one
// is left to chance.
func TestApartAlone(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	p.compare(t, script{
		because: "pub_counts",
		steps: steps{
			open("a"), ask("a", pub("{T}.a", "x")), ask("a", pub("{T}.b", "x")),
			pick("/stats?format=json", `"pub_counts":\[[^]]*\]`),
		},
		ours: []string{
			`a: response "OK"`, `a: response "OK"`, `"pub_counts":[{"topic":"{T}.a","count":1},{"topic":"{T}.b","count":1}]`,
		},
	}, "counts")
}

// inJSON are the headers of an answer in JSON.
const inJSON = "Content-Type=application/json; charset=utf-8 X-Nsq-Content-Type=nsq; version=1.0"

// pick notes what a pattern finds in the answer to a GET, with nothing given another name.
func pick(target, pattern string) func(*session) {
	found := regexp.MustCompile(pattern)
	return func(s *session) {
		resp, err := http.Get("http://" + s.node.HTTP + s.expand(target))
		if err != nil {
			s.abandon("%v", err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			s.abandon("%v", err)
		}
		s.note("%s", strings.Join(found.FindAllString(string(body), -1), " "))
	}
}

// status notes only the status of the answer. Headers may be given, by name and value.
func status(method, target string, headers ...string) func(*session) {
	return func(s *session) {
		req, err := http.NewRequest(method, "http://"+s.node.HTTP+s.expand(target), http.NoBody)
		if err != nil {
			s.abandon("%v", err)
		}
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := client().Do(req)
		if err != nil {
			s.abandon("%v", err)
		}
		_ = resp.Body.Close()
		s.note("%s %s: %d", method, s.expand(target), resp.StatusCode)
	}
}

// headed is web with one more header.
func headed(method, target, header, value string) func(*session) {
	return func(s *session) {
		req, err := http.NewRequest(method, "http://"+s.node.HTTP+s.expand(target), http.NoBody)
		if err != nil {
			s.abandon("%v", err)
		}
		req.Header.Set(header, value)
		resp, err := client().Do(req)
		if err != nil {
			s.note("%s %s: %v", method, s.expand(target), err)
			return
		}
		s.answer(method, s.expand(target), resp)
	}
}

// raw sends bytes to the HTTP door, and notes the status and the body of the answer.
func raw(request string) func(*session) {
	return func(s *session) {
		conn, err := net.Dial("tcp", s.node.HTTP)
		if err != nil {
			s.abandon("%v", err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, s.expand(request)); err != nil {
			s.abandon("%v", err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			s.note("%v", err)
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		line := fmt.Sprintf("%d %s", resp.StatusCode, tell(string(body)))
		if err != nil {
			line += " " + err.Error()
		}
		s.note("%s", line)
	}
}
