package door

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func auth(secret string) string { return "AUTH\n" + sized(secret) }

func TestWithTokensAClientMayDoWhatItsTokenAllows(t *testing.T) {
	d := serveTCP(t, Config{Tokens: tokens(t, "p-1 shop publish:orders.*\ns-1 billing subscribe:orders.*/billing\n")})
	runs := func(name string, parts []string, want ...string) {
		t.Run(name, func(t *testing.T) {
			c := (&tcpDoor{Door: d.Door, t: t, addr: d.addr}).dial()
			c.send(parts...)
			c.want(want...)
		})
	}
	const shop = `{"identity":"shop","identity_url":"","permission_count":1}`
	const billing = `{"identity":"billing","identity_url":"","permission_count":1}`
	runs("it is told so", []string{identify(`{"feature_negotiation":true}`)},
		`{"max_rdy_count":2500,"version":"1.3.0","max_msg_timeout":9223372036854,"msg_timeout":60000,"tls_v1":false,"deflate":false,"deflate_level":6,`+
			`"max_deflate_level":6,"snappy":false,"sample_rate":0,"auth_required":true,"output_buffer_size":16384,"output_buffer_timeout":250}`)
	runs("PUB before AUTH", []string{pub("orders.eu", "x")}, "!E_AUTH_FIRST AUTH required before PUB", "")
	runs("DPUB before AUTH", []string{"DPUB orders.eu 5\n", sized("x")}, "!E_AUTH_FIRST AUTH required before DPUB", "")
	runs("MPUB before AUTH", []string{"MPUB orders.eu\n"}, "!E_AUTH_FIRST AUTH required before MPUB", "")
	runs("SUB before AUTH", []string{"SUB orders.eu billing\n"}, "!E_AUTH_FIRST AUTH required before SUB", "")
	runs("PUB allowed", []string{auth("p-1"), pub("orders.eu", "x"), pub("orders.us", "x")}, shop, "OK", "OK")
	runs("PUB elsewhere", []string{auth("p-1"), pub("orders.eu", "x"), pub("other", "x")}, shop, "OK", `!E_UNAUTHORIZED AUTH failed for PUB on "other" ""`, "")
	runs("MPUB elsewhere", []string{auth("p-1"), mpub("other", "x")}, shop, `!E_UNAUTHORIZED AUTH failed for MPUB on "other" ""`, "")
	runs("SUB with a publisher's token", []string{auth("p-1"), "SUB orders.eu billing\n"}, shop, `!E_UNAUTHORIZED AUTH failed for SUB on "orders.eu" "billing"`, "")
	runs("SUB allowed", []string{auth("s-1"), "SUB orders.eu billing\n"}, billing, "OK")
	runs("SUB to another channel", []string{auth("s-1"), "SUB orders.eu other\n"}, billing, `!E_UNAUTHORIZED AUTH failed for SUB on "orders.eu" "other"`, "")
	runs("an unknown token", []string{auth("x")}, "!E_AUTH_FAILED AUTH failed", "")
	runs("AUTH twice", []string{auth("p-1"), auth("p-1")}, shop, "!E_INVALID AUTH already set", "")
	runs("AUTH with a parameter", []string{"AUTH x\n"}, "!E_INVALID AUTH invalid number of parameters", "")
	runs("AUTH with nothing", []string{auth("")}, "!E_BAD_BODY AUTH invalid body size 0", "")
	runs("AUTH with too much", []string{"AUTH\n", be32(5<<20 + 1)}, "!E_BAD_BODY AUTH body too big 5242881 > 5242880", "")
	if d.broker.Lookup("other") != nil {
		t.Error("a topic was made for a client that may not")
	}
}

func TestWithoutAuthenticationAUTHIsRefused(t *testing.T) {
	c := serveTCP(t, Config{}).dial()
	c.send(auth("x"))
	c.want("!E_AUTH_DISABLED AUTH disabled")
	c.wantEnd()
}

// An authServer answers with what is stored in it.
type authServer struct {
	*httptest.Server
	asked  atomic.Int64
	last   atomic.Pointer[http.Request]
	answer atomic.Value // string; a number is a status
}

func newAuthServer(t *testing.T, answer string) *authServer {
	s := &authServer{}
	s.answer.Store(answer)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		_ = r.ParseForm()
		s.last.Store(r)
		var status int
		if _, err := fmt.Sscanf(s.answer.Load().(string), "%d", &status); err == nil {
			w.WriteHeader(status)
			return
		}
		_, _ = w.Write([]byte(s.answer.Load().(string)))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *authServer) address() string { return strings.TrimPrefix(s.URL, "http://") }

const allowed = `{"ttl":100,"identity":"me","identity_url":"http://me","authorizations":[
	{"topic":"^orders","channels":[".*"],"permissions":["publish"]},
	{"topic":"eu$","channels":["^bill"],"permissions":["subscribe"]}]}`

const told = `{"identity":"me","identity_url":"http://me","permission_count":2}`

func TestAnAuthServerIsAskedWhatAClientMayDo(t *testing.T) {
	for _, post := range []bool{false, true} {
		server := newAuthServer(t, allowed)
		d := serveTCP(t, Config{AuthHTTPAddresses: []string{server.address()}, AuthHTTPPost: post})
		c := d.dial()
		c.send(auth("a secret&more"), pub("orders.eu", "x"), pub("orders", "x"), "SUB orders.eu billing\n")
		c.want(told, "OK", "OK", "OK")
		r := server.last.Load()
		if r.URL.Path != "/auth" || r.Form.Get("secret") != "a secret&more" || r.Form.Get("remote_ip") != "127.0.0.1" ||
			r.Form.Get("tls") != "false" || !r.Form.Has("common_name") || (r.Method == http.MethodPost) != post || post && r.URL.RawQuery != "" {
			t.Errorf("it was asked %s %s with %v", r.Method, r.URL, r.Form)
		}
		if n := server.asked.Load(); n != 1 {
			t.Errorf("it was asked %d times, want once", n)
		}
		s := d.onlyClient(func(clientStats) bool { return true })
		if !s.Authed || s.AuthIdentity != "me" || s.AuthIdentityURL != "http://me" {
			t.Errorf("statistics are %+v", s)
		}
		for command, want := range map[string]string{
			pub("x.orders", "x"):     `!E_UNAUTHORIZED AUTH failed for PUB on "x.orders" ""`,
			"SUB orders.us bill\n":   `!E_UNAUTHORIZED AUTH failed for SUB on "orders.us" "bill"`,
			"SUB orders.eu unbill\n": `!E_UNAUTHORIZED AUTH failed for SUB on "orders.eu" "unbill"`,
		} {
			c := d.dial()
			c.send(auth("s"), command)
			c.want(told, want)
		}
	}
}

func TestAnAuthServerThatFailsLetsNobodyIn(t *testing.T) {
	for _, answer := range []string{
		"500", "403", "nonsense", `{}`, `{"ttl":0,"authorizations":[]}`,
		`{"ttl":1,"authorizations":[{"topic":"(","channels":[],"permissions":["publish"]}]}`,
		`{"ttl":1,"authorizations":[{"topic":".*","channels":["("],"permissions":["publish"]}]}`,
		`{"ttl":1,"authorizations":[{"topic":".*","channels":[".*"],"permissions":["everything"]}]}`,
	} {
		d := serveTCP(t, Config{AuthHTTPAddresses: []string{newAuthServer(t, answer).address()}})
		c := d.dial()
		c.send(auth("s"))
		c.want("!E_AUTH_FAILED AUTH failed")
		c.wantEnd()
	}
	d := serveTCP(t, Config{AuthHTTPAddresses: []string{newAuthServer(t, `{"ttl":1,"authorizations":[]}`).address()}})
	c := d.dial()
	c.send(auth("s"))
	c.want("!E_UNAUTHORIZED AUTH no authorizations found")
	c.wantEnd()
}

func TestAnyOfTheAuthServersWillDo(t *testing.T) {
	good := newAuthServer(t, allowed)
	d := serveTCP(t, Config{
		Tokens:            tokens(t, "p-1 shop publish:orders.*\n"),
		AuthHTTPAddresses: []string{"127.0.0.1:1", newAuthServer(t, "500").URL + "/elsewhere", good.URL + "/auth"},
	})
	for range 5 {
		c := d.dial()
		c.send(auth("s"))
		c.want(told)
	}
	c := d.dial()
	c.send(auth("p-1")) // a token needs no server
	c.want(`{"identity":"shop","identity_url":"","permission_count":1}`)
	if n := good.asked.Load(); n != 5 {
		t.Errorf("the server was asked %d times, want 5", n)
	}
}

func TestAnAuthorizationThatExpiredIsAskedForAgain(t *testing.T) {
	server := newAuthServer(t, strings.Replace(allowed, `"ttl":100`, `"ttl":1`, 1))
	d := serveTCP(t, Config{AuthHTTPAddresses: []string{server.address()}})
	c := d.dial()
	c.send(auth("s"), pub("orders", "x"))
	c.want(told, "OK")
	time.Sleep(1100 * time.Millisecond)
	c.send(pub("orders", "x"))
	c.want("OK")
	if n := server.asked.Load(); n != 2 {
		t.Errorf("the server was asked %d times, want twice", n)
	}
	server.answer.Store("500")
	time.Sleep(1100 * time.Millisecond)
	c.send(pub("orders", "x"))
	c.want("!E_AUTH_FAILED AUTH failed")
	c.wantEnd()
}

func TestTheSecretIsNotInTheError(t *testing.T) {
	d := serveTCP(t, Config{AuthHTTPAddresses: []string{"127.0.0.1:1", "http://bad host"}})
	_, err := d.authenticate(t.Context(), credentials{secret: "s3cret"})
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the error is %v", err)
	}
}
