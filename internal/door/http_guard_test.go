package door

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

func TestWhenTLSIsRequiredPlainHTTPSaysWhereItIs(t *testing.T) {
	d := opened(t, Config{TLSRequired: true, HTTPSPort: 4152})
	if got, want := ask(d.Handler(false), "GET /ping", "").String(), `403 {"message": "TLS_REQUIRED", "https_port": 4152}`; got != want {
		t.Errorf("plain: %s, want %s", got, want)
	}
	if got := ask(d.Handler(true), "GET /ping", "").String(); got != "200 OK" {
		t.Errorf("over TLS: %s", got)
	}
	except := opened(t, Config{TLSRequired: true, TLSExceptHTTP: true}).Handler(false)
	if got := ask(except, "GET /ping", "").String(); got != "200 OK" {
		t.Errorf("with the exception: %s", got)
	}
}

func TestATokenIsAskedForAndAllowsWhatItsLineSays(t *testing.T) {
	d := opened(t, Config{Tokens: tokens(t, "shop-1 shop publish:orders.*\nops-1 ops admin:*\nchan-1 one admin:orders.eu/billing\nview-1 view read:audit")})
	h := d.Handler(false)
	for _, topic := range []string{"orders.eu", "audit"} {
		if _, err := d.broker.Channel(topic, "billing"); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ request, token, want string }{
		{"GET /ping", "", "200 OK"},
		{"POST /pub?topic=orders.eu", "", say(401, "UNAUTHORIZED")},
		{"POST /pub?topic=orders.eu", "shop-2", say(401, "UNAUTHORIZED")},
		{"POST /pub?topic=orders.eu", "shop-1", "200 OK"},
		{"POST /mpub?topic=orders.eu", "shop-1", "200 OK"},
		{"POST /pub?topic=audit", "shop-1", say(403, "FORBIDDEN")},
		{"POST /pub?topic=orders.eu&topic=audit", "shop-1", "200 OK"},
		{"POST /pub?topic=audit&topic=orders.eu", "shop-1", say(403, "FORBIDDEN")},
		{"POST /pub?topic=orders.eu", "view-1", say(403, "FORBIDDEN")},
		{"POST /pub", "view-1", say(400, "MISSING_ARG_TOPIC")},
		{"POST /topic/create?topic=orders.x", "shop-1", say(403, "FORBIDDEN")},
		{"POST /topic/pause?topic=orders.eu&channel=billing", "chan-1", say(403, "FORBIDDEN")},
		{"POST /channel/pause?topic=orders.eu&channel=billing", "chan-1", "200"},
		{"POST /channel/pause?topic=orders.eu&channel=other", "chan-1", say(403, "FORBIDDEN")},
		{"POST /channel/pause?topic=audit&channel=billing", "chan-1", say(403, "FORBIDDEN")},
		{"GET /topics", "", say(401, "UNAUTHORIZED")},
		{"GET /topics", "shop-1", `200 {"topics":["orders.eu"]}`},
		{"GET /topics", "view-1", `200 {"topics":["audit"]}`},
		{"GET /topics", "ops-1", `200 {"topics":["audit","orders.eu"]}`},
		{"GET /lookup?topic=audit", "shop-1", say(404, "TOPIC_NOT_FOUND")},
		{"GET /channels?topic=audit", "shop-1", `200 {"channels":[]}`},
		{"GET /stats?topic=orders.eu&include_mem=0&format=json", "view-1", ask(h, "GET /stats?topic=nope&include_mem=0&format=json", "", "Authorization: Bearer ops-1").String()},
		{"GET /config/log_level", "chan-1", say(403, "FORBIDDEN")},
		{"GET /config/log_level", "ops-1", "200 2"},
		{"GET /debug/pprof/cmdline", "shop-1", say(403, "FORBIDDEN")},
		{"GET /metrics", "", say(401, "UNAUTHORIZED")},
	} {
		ways := []string{"X: y"}
		if c.token != "" {
			ways = []string{"Authorization: Bearer " + c.token, "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("any:"+c.token))}
		}
		for _, way := range ways {
			if got := ask(h, c.request, "x", way).String(); got != c.want {
				t.Errorf("%s as %q: %s, want %s", c.request, c.token, got, c.want)
			}
		}
	}
	if got := ask(h, "GET /stats", "").header.Values("WWW-Authenticate"); len(got) != 2 {
		t.Errorf("WWW-Authenticate: %q", got)
	}
	for _, path := range []string{"/stats", "/stats?format=json", "/metrics", "/nodes"} {
		if got := ask(h, "GET "+path, "", "Authorization: Bearer view-1").String(); strings.Contains(got, "orders") || !strings.Contains(got, "audit") {
			t.Errorf("%s shows %s", path, got)
		}
	}
}

// Every route but /ping must ask for a token: a new one cannot forget to.
func TestNothingButPingIsAnsweredWithoutAToken(t *testing.T) {
	d := opened(t, Config{Tokens: tokens(t, "ops-1 ops admin:*")})
	h := d.Handler(false)
	for _, r := range (&web{Door: d}).routes() {
		want := http.StatusUnauthorized
		if r.path == "/ping" {
			want = http.StatusOK
		}
		if got := ask(h, r.method+" "+r.path+map[bool]string{true: "x"}[r.path == optionPath], "").status; got != want {
			t.Errorf("%s %s: %d", r.method, r.path, got)
		}
	}
}

func TestAPageFromElsewhereCannotPublishOrDelete(t *testing.T) {
	h := opened(t, Config{}).Handler(false)
	for _, c := range []struct{ request, header, want string }{
		{"POST /pub?topic=t", "Sec-Fetch-Site: cross-site", say(403, "CROSS_ORIGIN")},
		{"POST /topic/delete?topic=t", "Origin: http://evil.example", say(403, "CROSS_ORIGIN")},
		{"POST /pub?topic=t", "Sec-Fetch-Site: same-origin", "200 OK"},
		{"POST /pub?topic=t", "X: y", "200 OK"},
		{"GET /ping", "Sec-Fetch-Site: cross-site", "200 OK"},
	} {
		if got := ask(h, c.request, "x", c.header).String(); got != c.want {
			t.Errorf("%s with %s: %s, want %s", c.request, c.header, got, c.want)
		}
	}
}

func TestAPanicEndsOneRequestOnly(t *testing.T) {
	s := &web{Door: opened(t, Config{})}
	s.guard = s.serve(route{answer: func(*request) answer { panic("a mistake") }})
	if got, want := ask(s, "GET /ping", "").String(), say(500, "INTERNAL_ERROR"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
