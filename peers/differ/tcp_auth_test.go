package differ

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsqio/nsq/nsqd"

	"github.com/millrace/millrace/peers/node"
)

// authority is a server that says who may do what, and remembers what it was asked. The
// secret is the answer: a status, a space, and the body.
type authority struct {
	*httptest.Server
	mu    sync.Mutex // guards asked
	asked []string
}

func newAuthority(t *testing.T) *authority {
	a := new(authority)
	a.Server = httptest.NewServer(http.HandlerFunc(a.answer))
	t.Cleanup(a.Close)
	return a
}

func (a *authority) answer(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if r.Method == http.MethodPost {
		_ = r.ParseForm()
		query = r.Form
	}
	a.mu.Lock()
	a.asked = append(a.asked, fmt.Sprintf("%s %s %s %s", r.Method, r.URL.Path, query.Encode(), r.Header.Get("Accept")))
	a.mu.Unlock()
	status, body, _ := strings.Cut(query.Get("secret"), " ")
	code := 0
	_, _ = fmt.Sscan(status, &code)
	w.WriteHeader(code)
	_, _ = w.Write([]byte(body))
}

// heard notes what the authority was asked by this script, whose secret has {T} in it.
func (a *authority) heard() func(*session) {
	return func(s *session) {
		a.mu.Lock()
		asked := slices.Clone(a.asked)
		a.mu.Unlock()
		for _, q := range asked {
			if strings.Contains(q, s.topic) {
				s.note("the authority: %s", q)
			}
		}
	}
}

func auth(secret string) func(*session) {
	return func(s *session) { ask("a", "AUTH\n", sized(s.expand(secret)))(s) }
}

func TestAuth(t *testing.T) {
	t.Parallel()
	// Each broker has one of its own, so that what they were asked can be compared.
	theirs, ours := newAuthority(t), newAuthority(t)
	asking := func(a *authority) func(*Options) {
		return func(o *Options) { o.AuthHTTPAddresses = []string{a.Listener.Addr().String()} }
	}
	p := pair{theirs: start(t, node.NSQD, asking(theirs)), ours: start(t, node.Millrace, asking(ours))}
	heard := func(s *session) {
		if s.node == p.theirs {
			theirs.heard()(s)
			return
		}
		ours.heard()(s)
	}
	allow := func(topic, channels, permissions string) string {
		return `200 {"ttl":60,"identity":"{T}","identity_url":"http://who/?a=1&b=<2>","authorizations":[` +
			`{"topic":"` + topic + `","channels":[` + channels + `],"permissions":[` + permissions + `]}]}`
	}
	all := allow(".*", `".*"`, `"publish","subscribe"`)
	scripts := []script{
		{name: "a client that may", steps: steps{
			open("a"), ask("a", identify(`{"feature_negotiation":true}`)), auth(all), ask("a", pub("{T}", "1")), ask("a", mpub("{T}", "2")), ask("a", dpub("{T}", "0", "3")),
			ask("a", sub("{T}", "c")), send("a", "RDY 3\n"), inAnyOrder("a", 3), state(), heard,
		}},
		{name: "AUTH with arguments", steps: steps{open("a"), fails("a", "AUTH a\n")}},
		{name: "AUTH of nothing", steps: steps{open("a"), fails("a", "AUTH\n", be32(0))}},
		{name: "AUTH of a negative size", steps: steps{open("a"), fails("a", "AUTH\n", be32(-1))}},
		{name: "AUTH of too much", steps: steps{open("a"), fails("a", "AUTH\n", be32(5<<20+1))}},
		{name: "AUTH without a size", steps: steps{open("a"), send("a", "AUTH\n\x00"), shut("a"), end("a")}},
		{name: "AUTH of half a body", steps: steps{open("a"), send("a", "AUTH\n", be32(9), "half"), shut("a"), end("a")}},
		{name: "AUTH twice", steps: steps{open("a"), auth(all), send("a", "AUTH\n", sized("x")), end("a")}},
		{name: "AUTH once subscribed", steps: steps{open("a"), auth(all), ask("a", sub("{T}", "c")), fails("a", "AUTH\n")}},
		{name: "PUB before AUTH", steps: steps{open("a"), fails("a", pub("{T}", "x"))}},
		{name: "MPUB before AUTH", steps: steps{open("a"), fails("a", "MPUB {T}\n")}},
		{name: "DPUB before AUTH", steps: steps{open("a"), fails("a", dpub("{T}", "1", "x"))}},
		{name: "SUB before AUTH", steps: steps{open("a"), fails("a", sub("{T}", "c"))}},
		{name: "NOP before AUTH", steps: steps{open("a"), send("a", "NOP\n"), nothing("a")}},
		{name: "RDY before AUTH", steps: steps{open("a"), fails("a", "RDY 1\n")}},
		{name: "a server that does not know", steps: steps{open("a"), auth("403 {T}"), end("a"), heard}},
		{name: "a server that is broken", steps: steps{open("a"), auth("500 {T}"), end("a"), heard}},
		{name: "a server that says no JSON", steps: steps{open("a"), auth("200 {T}"), end("a")}},
		{name: "no lifetime", steps: steps{open("a"), auth(`200 {"identity":"{T}","authorizations":[{"topic":".*","channels":[".*"],"permissions":["publish"]}]}`), end("a")}},
		{name: "a negative lifetime", steps: steps{open("a"), auth(`200 {"ttl":-1,"identity":"{T}","authorizations":[]}`), end("a")}},
		{name: "nothing allowed", steps: steps{open("a"), auth(`200 {"ttl":60,"identity":"{T}","authorizations":[]}`), end("a")}},
		{name: "a topic that is no pattern", steps: steps{open("a"), auth(allow("(", `".*"`, `"publish"`)), end("a")}},
		{name: "a channel that is no pattern", steps: steps{open("a"), auth(allow(".*", `"("`, `"publish"`)), end("a")}},
		{name: "a permission that nobody knows", steps: steps{open("a"), auth(allow(".*", `".*"`, `"dance"`)), end("a")}},
		{name: "only publishing", steps: steps{open("a"), auth(allow(".*", `".*"`, `"publish"`)), ask("a", pub("{T}", "x")), fails("a", sub("{T}", "c"))}},
		{name: "only subscribing", steps: steps{open("a"), auth(allow(".*", `".*"`, `"subscribe"`)), fails("a", pub("{T}", "x"))}},
		{name: "only subscribing, MPUB", steps: steps{open("a"), auth(allow(".*", `".*"`, `"subscribe"`)), fails("a", "MPUB {T}\n")}},
		{name: "only subscribing, DPUB", steps: steps{open("a"), auth(allow(".*", `".*"`, `"subscribe"`)), fails("a", dpub("{T}", "1", "x"))}},
		{name: "another topic", steps: steps{open("a"), auth(allow("^other$", `".*"`, `"publish"`)), fails("a", pub("{T}", "x"))}},
		{name: "another channel", steps: steps{open("a"), auth(allow(".*", `"^other$"`, `"subscribe"`)), fails("a", sub("{T}", "c"))}},
		{name: "patterns are found anywhere", steps: steps{open("a"), auth(allow("ut", `"^x","c$"`, `"subscribe"`)), ask("a", sub("{T}", "abc"))}},
		{name: "publishing needs a channel's pattern that fits none", steps: steps{open("a"), auth(allow(".*", `"^x$"`, `"publish"`)), send("a", pub("{T}", "x")), shut("a"), end("a")}},
		{name: "no channels", steps: steps{open("a"), auth(allow(".*", ``, `"publish","subscribe"`)), send("a", pub("{T}", "x")), shut("a"), end("a")}},
		{name: "a lifetime that ends", steps: steps{
			open("a"), auth(`200 {"ttl":2,"identity":"{T}","authorizations":[{"topic":".*","channels":[".*"],"permissions":["publish"]}]}`),
			ask("a", pub("{T}", "1")), wait(2200 * time.Millisecond), ask("a", pub("{T}", "2")), heard,
		}},
	}
	p.run(t, "auth", scripts)

	// One of two servers that are asked is not there; clients show certificates.
	cert, key := certificate(t, "localhost")
	theirs2, ours2 := newAuthority(t), newAuthority(t)
	secure := func(a *authority) func(*Options) {
		return func(o *Options) {
			o.AuthHTTPAddresses = []string{"127.0.0.1:1", a.URL + "/auth"}
			o.TLSCert, o.TLSKey, o.TLSClientAuthPolicy, o.TLSRequired = cert, key, "require", nsqd.TLSRequired
		}
	}
	safe := pair{theirs: start(t, node.NSQD, secure(theirs2)), ours: start(t, node.Millrace, secure(ours2))}
	safe.run(t, "authsafe", []script{
		{name: "a client with a certificate", steps: steps{
			open("a"), ask("a", identify(`{"feature_negotiation":true,"tls_v1":true}`)), secured("a", cert, key), frames("a", 1), auth(all), ask("a", pub("{T}", "1")),
			func(s *session) {
				if s.node == safe.theirs {
					theirs2.heard()(s)
					return
				}
				ours2.heard()(s)
			},
		}},
	})

	none := both(t, nil)
	none.run(t, "noauth", []script{
		{name: "AUTH where nobody asks for it", steps: steps{open("a"), fails("a", "AUTH\n", sized("x"))}},
		{name: "AUTH once subscribed where nobody asks for it", steps: steps{open("a"), ask("a", sub("{T}", "c")), fails("a", "AUTH\n")}},
	})
	closed := both(t, func(o *Options) { o.AuthHTTPAddresses = []string{"127.0.0.1:1"} })
	closed.run(t, "authless", []script{
		{name: "a server that is not there", steps: steps{open("a"), fails("a", "AUTH\n", sized("x"))}},
	})
}
