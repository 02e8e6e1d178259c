package door

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
)

// queued is a door of a topic with two channels, where c has one message done, one in flight
// and one deferred; the others are ready. A minute lies between any two.
func queued(t *testing.T, cfg Config) *Door {
	t.Helper()
	d := opened(t, cfg)
	c, err := d.broker.Subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 3, Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := d.broker.Channel("t", "other"); err != nil {
		t.Fatal(err)
	}
	for i, body := range []string{"done", "held", "later", "<text & more>", "\xff\x00"} {
		m := millrace.Message{Body: []byte(body)}
		if i == 3 {
			m.Headers = m.Headers.Append("k", "v").Append("k", "w")
		}
		if err := d.broker.Publish("t", []millrace.Message{m}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
	}
	buf := make([]millrace.Delivery, 3)
	for n := 0; n < 3; {
		k, err := c.Receive(t.Context(), buf[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	c.SetPrefetch(0)
	if err := c.AckSeqs([]uint64{1}); err != nil {
		t.Fatal(err)
	}
	if err := c.NackSeqs(time.Hour, 3); err != nil {
		t.Fatal(err)
	}
	return d
}

// peeks asks, and says "sequence:state:attempt" of each message.
func peeks(t *testing.T, r reply) string {
	t.Helper()
	var got struct{ Messages []peekedMessage }
	if err := json.Unmarshal([]byte(r.body), &got); r.status != 200 || err != nil {
		return r.String()
	}
	var words []string
	for _, m := range got.Messages {
		words = append(words, fmt.Sprintf("%d:%s:%d", m.Sequence, m.State, m.Attempt))
	}
	return strings.Join(words, " ")
}

func TestAQueueCanBeSeenWithoutConsumingIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := queued(t, Config{}).Handler(false)
		start := time.Now().Add(-5 * time.Minute).UnixNano()
		want := fmt.Sprintf(`200 {"messages":[`+
			`{"id":"0000000000000002","sequence":2,"published":%d,"state":"in_flight","attempt":1,"until":%d,"body":"held"},`+
			`{"id":"0000000000000003","sequence":3,"published":%d,"state":"deferred","attempt":1,"until":%d,"body":"later"},`+
			`{"id":"0000000000000004","sequence":4,"published":%d,"state":"ready","attempt":0,"headers":{"k":"v"},"body":"\u003ctext \u0026 more\u003e"},`+
			`{"id":"0000000000000005","sequence":5,"published":%d,"state":"ready","attempt":0,"body_base64":"/wA="}]}`,
			start+int64(time.Minute), start+int64(65*time.Minute), start+int64(2*time.Minute), start+int64(65*time.Minute),
			start+int64(3*time.Minute), start+int64(4*time.Minute))
		for range 2 {
			if got := ask(h, "GET /peek?topic=t&channel=c", "").String(); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
		at := time.Now().Add(-150 * time.Second).UTC().Format(time.RFC3339)
		for request, want := range map[string]string{
			"topic=t&channel=c&n=2":                       "2:in_flight:1 3:deferred:1",
			"topic=t&channel=c&from=3&n=1":                "3:deferred:1",
			"topic=t&channel=c&from=0000000000000004":     "4:ready:0 5:ready:0",
			"topic=t&channel=c&from=2m":                   "4:ready:0 5:ready:0",
			"topic=t&channel=c&from=" + at:                "4:ready:0 5:ready:0",
			"topic=t&channel=c&from=0s":                   "",
			"topic=t&channel=c&from=6":                    "",
			"topic=t&channel=other&n=2":                   "1:ready:0 2:ready:0",
			"topic=t":                                     "1::0 2::0 3::0 4::0 5::0",
			"topic=t&channel=&n=1000&from=5":              "5::0",
			"topic=t&channel=c&from=18446744073709551615": "",
		} {
			if got := peeks(t, ask(h, "GET /peek?"+request, "")); got != want {
				t.Errorf("%s: %s, want %s", request, got, want)
			}
		}
		if got, want := ask(h, "GET /peek?topic=t&from=6", "").String(), `200 {"messages":[]}`; got != want {
			t.Errorf("nothing is %s, want %s", got, want)
		}
	})
}

func TestAChannelIsReplayedOverHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := queued(t, Config{}).Handler(false)
		const all = "1:ready:0 2:ready:0 3:ready:0 4:ready:0 5:ready:0"
		for _, c := range []struct{ from, answer, then string }{
			{"3m", `200 {"from":3,"messages":1,"cut":false}`, "2:in_flight:1 3:ready:0 4:ready:0 5:ready:0"},
			{"2", `200 {"from":2,"messages":1,"cut":false}`, all[len("1:ready:0 "):]},
			{"0000000000000001", `200 {"from":1,"messages":1,"cut":false}`, all},
			{"1", `200 {"from":1,"messages":0,"cut":false}`, all},
			{time.Now().Format(time.RFC3339), `200 {"from":1,"messages":0,"cut":false}`, all},
			{"2", say(400, "INVALID_FROM - channel c of topic t: replay: broker: the channel has not come that far: message 1 is the next that it delivers, and it was to go back to 2"), all},
		} {
			if got := ask(h, "POST /channel/replay?topic=t&channel=c&from="+strings.ReplaceAll(c.from, "+", "%2B"), "").String(); got != c.answer {
				t.Errorf("from %s: %s, want %s", c.from, got, c.answer)
			}
			if got := peeks(t, ask(h, "GET /peek?topic=t&channel=c", "")); got != c.then {
				t.Errorf("after that: %s, want %s", got, c.then)
			}
		}
	})
}

func TestWhatIsWrongWithALookIntoAQueueIsSaid(t *testing.T) {
	h := opened(t, Config{})
	if _, err := h.broker.Channel("t", "c"); err != nil {
		t.Fatal(err)
	}
	const n, from = "INVALID_N - write a number of messages from 1 to 1000", "INVALID_FROM - write a sequence number, a message's id of 16 hexadecimal digits, a time such as 2026-01-31T12:00:00Z, or how long ago, such as 90m"
	for request, want := range map[string]string{
		"GET /peek":                                        say(400, "MISSING_ARG_TOPIC"),
		"GET /peek?topic=!!":                               say(400, "INVALID_ARG_TOPIC"),
		"GET /peek?topic=t&channel=!!":                     say(400, "INVALID_ARG_CHANNEL"),
		"GET /peek?topic=nope":                             say(404, "TOPIC_NOT_FOUND"),
		"GET /peek?topic=t&channel=nope":                   say(404, "CHANNEL_NOT_FOUND"),
		"GET /peek?topic=t&n=0":                            say(400, n),
		"GET /peek?topic=t&n=1001":                         say(400, n),
		"GET /peek?topic=t&n=":                             say(400, n),
		"GET /peek?topic=t&from=yesterday":                 say(400, from),
		"GET /peek?topic=t&from=-1":                        say(400, from),
		"GET /peek?topic=t&from=-1h":                       say(400, from),
		"GET /peek?topic=t&a=;":                            say(400, "INVALID_REQUEST"),
		"POST /peek?topic=t":                               say(405, "METHOD_NOT_ALLOWED"),
		"GET /channel/replay?topic=t":                      say(405, "METHOD_NOT_ALLOWED"),
		"POST /channel/replay?topic=t":                     say(400, "MISSING_ARG_CHANNEL"),
		"POST /channel/replay?topic=nope&channel=c&from=1": say(404, "TOPIC_NOT_FOUND"),
		"POST /channel/replay?topic=t&channel=nope&from=1": say(404, "CHANNEL_NOT_FOUND"),
		"POST /channel/replay?topic=t&channel=c":           say(400, "MISSING_ARG_FROM"+strings.TrimPrefix(from, "INVALID_FROM")),
		"POST /channel/replay?topic=t&channel=c&from=x":    say(400, from),
	} {
		if got := ask(h.Handler(false), request, "").String(); got != want {
			t.Errorf("%s: %s, want %s", request, got, want)
		}
	}
}

func TestWhoMaySubscribeMayPeekAndWhoIsAdminMayReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := queued(t, Config{Tokens: tokens(t, "sub-1 a subscribe:t/c\nall-1 b subscribe:t\nview-1 c read:* publish:*\nadmin-1 d admin:t/c")}).Handler(false)
		const peek, replay = "GET /peek?topic=t&channel=c&from=9", "POST /channel/replay?topic=t&channel=c&from=4"
		const nothing, forbidden = `200 {"messages":[]}`, `403 {"message":"FORBIDDEN"}`
		for _, c := range []struct{ request, token, want string }{
			{peek, "sub-1", nothing},
			{peek, "all-1", nothing},
			{peek, "admin-1", nothing},
			{peek, "view-1", forbidden},
			{peek, "none", say(401, "UNAUTHORIZED")},
			{"GET /peek?topic=t&from=9", "all-1", nothing},
			{"GET /peek?topic=t&from=9", "sub-1", forbidden},
			{"GET /peek?topic=t&from=9", "admin-1", forbidden},
			{"GET /peek?topic=t&channel=other", "sub-1", forbidden},
			{"GET /peek?topic=u&channel=c", "all-1", forbidden},
			{replay, "sub-1", forbidden},
			{replay, "all-1", forbidden},
			{replay, "view-1", forbidden},
			{replay, "admin-1", `200 {"from":4,"messages":0,"cut":false}`},
		} {
			if got := ask(h, c.request, "", "Authorization: Bearer "+c.token).String(); got != c.want {
				t.Errorf("%s as %s: %s, want %s", c.request, c.token, got, c.want)
			}
		}
	})
}
