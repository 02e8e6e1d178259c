package door

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/nsqwire"
)

// requestSeeds reach every route of the HTTP door, well and badly asked.
var requestSeeds = []struct{ method, target, body string }{
	{"POST", "/pub?topic=t", "x"},
	{"POST", "/pub?topic=t&defer=99999999999999999999", "x"},
	{"POST", "/mpub?topic=t", "a\nb\n\nc"},
	{"POST", "/mpub?topic=t&binary=true", "\x00\x00\x00\x01\x00\x00\x00\x02ab"},
	{"POST", "/topic/create?topic=t", ""},
	{"POST", "/topic/empty?topic=t", ""},
	{"POST", "/topic/pause?topic=t", ""},
	{"POST", "/topic/unpause?topic=t", ""},
	{"POST", "/topic/delete?topic=t", ""},
	{"POST", "/channel/create?topic=t&channel=c", ""},
	{"POST", "/channel/empty?topic=t&channel=c", ""},
	{"POST", "/channel/pause?topic=t&channel=c", ""},
	{"POST", "/channel/unpause?topic=t&channel=c", ""},
	{"POST", "/channel/delete?topic=t&channel=c", ""},
	{"POST", "/channel/replay?topic=t&channel=c&from=1h", ""},
	{"POST", "/channel/replay?topic=t&channel=c&from=0000000000000001", ""},
	{"GET", "/peek?topic=t&channel=c&n=10&from=2000-01-01T00:00:00Z", ""},
	{"GET", "/peek?topic=t&n=-1&from=%zz", ""},
	{"GET", "/stats?format=json&topic=t&channel=c&include_clients=false&include_mem=0", ""},
	{"GET", "/stats?topic=%25;", ""},
	{"GET", "/info", ""},
	{"GET", "/ping", ""},
	{"GET", "/metrics", ""},
	{"GET", "/lookup?topic=t", ""},
	{"GET", "/nodes", ""},
	{"GET", "/topics", ""},
	{"GET", "/channels?topic=t", ""},
	{"GET", "/config/log_level", ""},
	{"PUT", "/config/nsqlookupd_tcp_addresses", `["127.0.0.1:1"]`},
	{"PUT", "/config/log_level", "debug"},
	{"OPTIONS", "/%2e%2e//Stats/", ""},
}

// FuzzRequests asks the HTTP door anything. It answers: with what it was asked for, or why
// not, but never that it does not know what went wrong; JSON is JSON; and there is no topic
// or channel without a name.
func FuzzRequests(f *testing.F) {
	for _, s := range requestSeeds {
		f.Add(s.method, s.target, s.body)
	}
	f.Fuzz(func(t *testing.T, method, target, body string) {
		if strings.Contains(strings.ToLower(target), "debug") {
			return // profiles take their time
		}
		r, err := http.NewRequest(method, "http://127.0.0.1:4151", strings.NewReader(body))
		if err != nil {
			return
		}
		r.URL.Path, r.URL.RawQuery, _ = strings.Cut(target, "?")
		r.RemoteAddr, r.RequestURI = "127.0.0.1:1", target
		d := opened(t, Config{MaxMsgSize: 100, MaxBodySize: 1000})
		if err := d.broker.Publish("t", []millrace.Message{{Body: []byte("there")}}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.broker.Channel("t", "c"); err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		d.Handler(false).ServeHTTP(w, r)
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("%s %q: %s", method, target, replyOf(w))
		}
		if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %q: this is not JSON: %s", method, target, w.Body)
		}
		for _, topic := range d.broker.Topics() {
			for _, ch := range topic.Channels() {
				if millrace.CheckName(ch.Name()) != nil {
					t.Errorf("%s %q made channel %q", method, target, ch.Name())
				}
			}
			if millrace.CheckName(topic.Name()) != nil {
				t.Errorf("%s %q made topic %q", method, target, topic.Name())
			}
		}
	})
}

// tokenSeeds are token files, good ones and bad ones.
var tokenSeeds = []string{
	"# token name rules\n\nshop-1  shop publish:orders.*\nbill-1 billing subscribe:orders.*/billing read:audit\n",
	"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae ops admin:*\n",
	"one n admin:t/c\none m read:x\n", "secret", "secret name", "secret name write:x", "secret name publish:a/b",
	"sha256:zz name admin:*", "secret name subscribe:[a]", "secret name read:?\x00", "\xff\xfe", "a b admin:*\r\n",
}

// FuzzTokens reads arbitrary text as a token file. It never gives a token away in an error,
// and what it takes for a token grants no more than its line says.
func FuzzTokens(f *testing.F) {
	for _, s := range tokenSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		const ours = "want a token, a name, and one or more of"
		grants, err := parseTokens([]byte(text))
		for line := range strings.Lines(text) {
			fields := strings.Fields(line)
			if err == nil || len(fields) == 0 || len(fields[0]) < 12 || strings.HasPrefix(fields[0], "#") {
				continue
			}
			if token := fields[0]; strings.Contains(err.Error(), token) && strings.Count(text, token) == 1 && !strings.Contains(ours, token) {
				t.Errorf("%v gives away %q", err, token)
			}
		}
		for _, g := range grants {
			if len(g.rules) == 0 || g.Name == "" {
				t.Errorf("%+v of %q", g, text)
			}
			mentioned := func(what string) bool { return strings.Contains(text, what+":") }
			if g.Allows(Publish, "t", "") && !mentioned("publish") && !mentioned("admin") ||
				g.Allows(Subscribe, "t", "c") && !mentioned("subscribe") && !mentioned("admin") ||
				g.Allows(Admin, "t", "c") && !mentioned("admin") || g.AllowsAll() && !g.Allows(Admin, "anything", "x") {
				t.Errorf("%+v of %q", g, text)
			}
		}
	})
}

// The seeds reach every route and every command; a new one has to be added to them.
func TestTheFuzzSeedsReachEverything(t *testing.T) {
	s, _ := opened(t, Config{}).Handler(false).(*web)
	var targets strings.Builder
	for _, seed := range requestSeeds {
		targets.WriteString(seed.method + " " + seed.target + "\n")
	}
	for _, r := range s.routes() {
		if !strings.Contains(r.path, "debug") && r.path != "/" && !strings.Contains(targets.String(), r.method+" "+r.path) {
			t.Errorf("no seed asks %s %s", r.method, r.path)
		}
	}
	said := strings.Join(fuzzSeeds, "\n")
	for _, command := range []string{
		"IDENTIFY", "SUB ", "RDY", "FIN ", "REQ ", "TOUCH ", "CLS", "NOP", "PUB ", "MPUB ", "DPUB ", "AUTH", nsqwire.Magic,
		`"snappy":true`, `"deflate":true`, `"sample_rate"`, "#ephemeral", "\r\n",
	} {
		if !strings.Contains(said, command) {
			t.Errorf("no seed of a conversation says %q", command)
		}
	}
	taken, refused := 0, 0
	for _, text := range tokenSeeds {
		if grants, err := parseTokens([]byte(text)); err != nil {
			refused++
		} else if len(grants) > 0 {
			taken++
		}
	}
	if taken < 3 || refused < 6 {
		t.Errorf("%d token files are taken, %d refused", taken, refused)
	}
}
