package door

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/millrace/millrace/broker"
)

// opened returns a door of a broker in memory.
func opened(t testing.TB, cfg Config) *Door {
	t.Helper()
	b, err := broker.Open(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	cfg.BroadcastAddress = "me.example"
	cfg.TCPPort, cfg.HTTPPort = 4150, 4151
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return New(b, cfg)
}

// reply is what a request was answered with.
type reply struct {
	status int
	header http.Header
	body   string
}

func replyOf(w *httptest.ResponseRecorder) reply {
	return reply{w.Code, w.Result().Header, w.Body.String()}
}

// String is the status and the body.
func (r reply) String() string {
	return strings.TrimSuffix(fmt.Sprintf("%d %s", r.status, r.body), " ")
}

// ask sends a request "METHOD /path?query" and returns the answer.
func ask(h http.Handler, request, body string, headers ...string) reply {
	method, target, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return replyOf(w)
}

// say is the JSON of a refusal.
func say(status int, reason string) string { return fmt.Sprintf(`%d {"message":%q}`, status, reason) }

// What is expected here was read off nsqd v1.3.0, sent the same requests in this order.
func TestRequestsAreAnsweredAsNsqdDoes(t *testing.T) {
	const okay, silent = "200 OK", "200"
	h := opened(t, Config{}).Handler(false)
	for _, c := range []struct{ request, body, want string }{
		{"GET /ping", "", okay},
		{"HEAD /ping", "", say(405, "METHOD_NOT_ALLOWED")},
		{"POST /stats", "", say(405, "METHOD_NOT_ALLOWED")},
		{"GET /topic/create", "", say(405, "METHOD_NOT_ALLOWED")},
		{"GET /", "", say(404, "NOT_FOUND")},
		{"GET /nope", "", say(404, "NOT_FOUND")},
		{"OPTIONS /nope", "", say(404, "NOT_FOUND")},
		{"OPTIONS /stats", "", silent},
		{"GET /config/", "", say(404, "NOT_FOUND")},
		{"GET /config/a/b", "", say(404, "NOT_FOUND")},

		{"POST /pub", "", say(400, "MSG_EMPTY")},
		{"POST /pub", "x", say(400, "MISSING_ARG_TOPIC")},
		{"POST /pub?topic=", "x", say(400, "INVALID_TOPIC")},
		{"POST /pub?topic=a%20b", "x", say(400, "INVALID_TOPIC")},
		{"POST /pub?topic=a;b", "x", say(400, "INVALID_REQUEST")},
		{"POST /pub?topic=%25zz", "x", say(400, "INVALID_TOPIC")},
		{"POST /pub?topic=t1", "x", okay},
		{"POST /pub?topic=t1&topic=!!", "x", okay},
		{"POST /pub?topic=t1&defer=10", "x", okay},
		{"POST /pub?topic=t1&defer=-1", "x", say(400, "INVALID_DEFER")},
		{"POST /pub?topic=t1&defer=", "x", say(400, "INVALID_DEFER")},
		{"POST /pub?topic=t1&defer=x", "x", say(400, "INVALID_DEFER")},
		{"POST /pub?topic=t1&defer=99999999999999999999", "x", say(400, "INVALID_DEFER")},
		{"POST /pub?topic=t1&defer=9223372036854775807", "x", say(400, "INVALID_DEFER")},
		{"POST /pub?topic=t1", strings.Repeat("x", 1<<20), okay},
		{"POST /pub?topic=t1", strings.Repeat("x", 1<<20+1), say(413, "MSG_TOO_BIG")},
		{"POST /pub?topic=!!", strings.Repeat("x", 1<<20+1), say(413, "MSG_TOO_BIG")},

		{"POST /mpub", "x", say(400, "MISSING_ARG_TOPIC")},
		{"POST /mpub?topic=!!", "x", say(400, "INVALID_TOPIC")},
		{"POST /mpub?topic=!!", strings.Repeat("x", 5<<20+1), say(413, "BODY_TOO_BIG")},
		{"POST /mpub?topic=t2", "", okay},
		{"POST /mpub?topic=t2", "a\nb\n\nc", okay},
		{"POST /mpub?topic=t2", "\n", okay},
		{"POST /mpub?topic=t2", "a\n" + strings.Repeat("x", 1<<20) + "\n", okay},
		{"POST /mpub?topic=t2", "a\n" + strings.Repeat("x", 1<<20+1), say(413, "MSG_TOO_BIG")},
		{"POST /mpub?topic=t2", strings.Repeat("x", 5<<20+1), say(413, "BODY_TOO_BIG")},
		{"POST /mpub?topic=t2&binary=true", "", say(413, "BAD_BODY")},
		{"POST /mpub?topic=t2&binary=true", "\x00\x00", say(413, "BAD_BODY")},
		{"POST /mpub?topic=t2&binary=true", "\x00\x00\x00\x00", say(413, "BAD_BODY")},
		{"POST /mpub?topic=t2&binary=true", "\xff\xff\xff\xff", say(413, "BAD_BODY")},
		{"POST /mpub?topic=t2&binary=true", "\x00\x00\x00\x01", say(413, "BAD_MESSAGE")},
		{"POST /mpub?topic=t2&binary=true", "\x00\x00\x00\x01\x00\x00\x00\x00", say(413, "BAD_MESSAGE")},
		{"POST /mpub?topic=t2&binary=true", "\x00\x00\x00\x01\x00\x00\x00\x02a", say(413, "BAD_MESSAGE")},
		{"POST /mpub?topic=t2&binary=true", "\x00\x00\x00\x01\x00\x00\x00\x02ab", okay},
		{"POST /mpub?topic=t2&binary=yes", "\x00\x00\x00\x01\x00\x00\x00\x02ab", okay},
		{"POST /mpub?topic=t2&binary=yes", "ab", say(413, "BAD_BODY")},
		{"POST /mpub?topic=t2&binary=0", "ab", okay},
		{"POST /mpub?topic=t2&binary=false", "ab", okay},

		{"POST /topic/create", "", say(400, "MISSING_ARG_TOPIC")},
		{"POST /topic/create?topic=!!", "", say(400, "INVALID_TOPIC")},
		{"POST /topic/create?topic=t3", "", silent},
		{"POST /topic/create?topic=t3", "", silent},
		{"POST /topic/empty", "", say(400, "MISSING_ARG_TOPIC")},
		{"POST /topic/empty?topic=!!", "", say(400, "INVALID_TOPIC")},
		{"POST /topic/empty?topic=nope", "", say(404, "TOPIC_NOT_FOUND")},
		{"POST /topic/empty?topic=t3", "", silent},
		{"POST /topic/pause", "", say(400, "MISSING_ARG_TOPIC")},
		{"POST /topic/pause?topic=!!", "", say(404, "TOPIC_NOT_FOUND")},
		{"POST /topic/pause?a=;", "", say(400, "INVALID_REQUEST")},
		{"POST /topic/pause?topic=t3", "", silent},
		{"POST /topic/unpause?topic=t3", "", silent},
		{"POST /channel/create", "", say(400, "MISSING_ARG_TOPIC")},
		{"POST /channel/create?topic=!!", "", say(400, "INVALID_ARG_TOPIC")},
		{"POST /channel/create?topic=t3", "", say(400, "MISSING_ARG_CHANNEL")},
		{"POST /channel/create?topic=nope&channel=!!", "", say(400, "INVALID_ARG_CHANNEL")},
		{"POST /channel/create?topic=nope&channel=c", "", say(404, "TOPIC_NOT_FOUND")},
		{"POST /channel/create?topic=t3&channel=c", "", silent},
		{"POST /channel/empty?topic=t3&channel=nope", "", say(404, "CHANNEL_NOT_FOUND")},
		{"POST /channel/empty?topic=t3&channel=c", "", silent},
		{"POST /channel/pause?topic=t3&channel=nope", "", say(404, "CHANNEL_NOT_FOUND")},
		{"POST /channel/pause?topic=t3&channel=c", "", silent},
		{"POST /channel/unpause?topic=t3&channel=c", "", silent},
		{"POST /channel/delete?topic=t3&channel=c", "", silent},
		{"POST /channel/delete?topic=t3&channel=c", "", say(404, "CHANNEL_NOT_FOUND")},
		{"POST /topic/delete", "", say(400, "MISSING_ARG_TOPIC")},
		{"POST /topic/delete?topic=t3", "", silent},
		{"POST /topic/delete?topic=t3", "", say(404, "TOPIC_NOT_FOUND")},

		{"GET /stats?topic=%25;", "", say(400, "INVALID_REQUEST")},
		{"GET /config/log_level", "", "200 2"},
		{"PUT /config/log_level", "DEBUG", "200 1"},
		{"GET /config/log_level", "", "200 1"},
		{"PUT /config/log_level", "fatal", "200 5"},
		{"PUT /config/log_level", "warn", "200 3"},
		{"PUT /config/log_level", "error", "200 4"},
		{"PUT /config/log_level", "loud", say(400, "INVALID_VALUE")},
		{"PUT /config/log_level", "", say(413, "INVALID_VALUE")},
		{"PUT /config/log_level", strings.Repeat("x", 1<<20+1), say(413, "INVALID_VALUE")},
		{"GET /config/nsqlookupd_tcp_addresses", "", "200 []"},
		{"PUT /config/nsqlookupd_tcp_addresses", `["127.0.0.1:1"]`, `200 ["127.0.0.1:1"]`},
		{"PUT /config/nsqlookupd_tcp_addresses", `{"a":1}`, say(400, "INVALID_VALUE")},
		{"GET /config/nsqlookupd_tcp_addresses", "", `200 ["127.0.0.1:1"]`},
		{"PUT /config/nsqlookupd_tcp_addresses", `[]`, "200 []"},
		{"PUT /config/max_msg_size", "10", say(400, "INVALID_OPTION")},
		{"GET /config/max_msg_size", "", "200 1048576"},
		{"GET /config/msg_timeout", "", "200 60000000000"},
		{"GET /config/auth_http_addresses", "", "200 []"},
		{"GET /config/nothing", "", say(400, "INVALID_OPTION")},
		{"PUT /debug/setblockrate", "", `400 invalid block rate : strconv.Atoi: parsing "": invalid syntax`},
	} {
		resp := ask(h, c.request, c.body)
		if got := resp.String(); got != c.want {
			t.Errorf("%s %.20q: %s, want %s", c.request, c.body, got, c.want)
		}
		plain := strings.Contains(c.request, "/ping") && resp.status == http.StatusOK || strings.Contains(c.request, "/debug/") || strings.HasPrefix(c.request, "OPTIONS /stats")
		if got, want := resp.header.Get("X-NSQ-Content-Type"), "nsq; version=1.0"; !plain && got != want || plain && got != "" {
			t.Errorf("%s: X-NSQ-Content-Type: %q", c.request, got)
		}
		if inJSON := strings.HasPrefix(c.want, "200 ") && strings.Contains(c.request, "/config/") || strings.Contains(c.want, `{"`); inJSON != (resp.header.Get("Content-Type") == "application/json; charset=utf-8") {
			t.Errorf("%s: Content-Type: %q", c.request, resp.header.Get("Content-Type"))
		}
	}
}

func TestAPathThatIsAlmostRightIsRedirectedAndSoSaysAllow(t *testing.T) {
	h := opened(t, Config{}).Handler(false)
	for request, want := range map[string]string{
		"GET /stats/?format=json":     "301 /stats?format=json",
		"GET /PING":                   "301 /ping",
		"GET /topic/../ping":          "301 /ping",
		"GET /Config/Log_Level":       "301 /config/Log_Level",
		"GET /debug/pprof":            "301 /debug/pprof/",
		"POST /Pub?topic=a":           "307 /pub?topic=a",
		"POST /topic/create/?topic=a": "307 /topic/create?topic=a",
		"POST /PING":                  "404 ",
		"GET /debug/pprof/heap/":      "301 /debug/pprof/heap",
	} {
		resp := ask(h, request, "")
		if got := fmt.Sprintf("%d %s", resp.status, resp.header.Get("Location")); got != want {
			t.Errorf("%s: %s, want %s", request, got, want)
		}
	}
	for request, want := range map[string]string{
		"POST /stats": "GET, OPTIONS", "OPTIONS /config/x": "GET, OPTIONS, PUT", "GET /pub": "OPTIONS, POST",
	} {
		if got := ask(h, request, "").header.Get("Allow"); got != want {
			t.Errorf("%s: Allow: %s, want %s", request, got, want)
		}
	}
}
