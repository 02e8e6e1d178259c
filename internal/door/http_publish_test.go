package door

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// received returns what the channel delivers at once.
func received(t *testing.T, d *Door, topic, channel string) []millrace.Delivery {
	t.Helper()
	depth, err := d.broker.Depth(topic, channel)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.broker.Subscribe(topic, channel, millrace.SubscribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all := make([]millrace.Delivery, depth.Ready)
	for n := 0; n < len(all); {
		more, err := c.Receive(t.Context(), all[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += more
	}
	return all
}

func bodies(deliveries []millrace.Delivery) []string {
	var bodies []string
	for _, m := range deliveries {
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

func TestWhatIsPublishedOverHTTPIsDelivered(t *testing.T) {
	for _, c := range []struct {
		request, body string
		want          []string
	}{
		{"POST /pub?topic=t", "one\ntwo\n", []string{"one\ntwo\n"}},
		{"POST /mpub?topic=t", "one\ntwo", []string{"one", "two"}},
		{"POST /mpub?topic=t", "\none\r\n\ntwo\n\n", []string{"one\r", "two"}},
		{"POST /mpub?topic=t&binary=true", "\x00\x00\x00\x02\x00\x00\x00\x04one\n\x00\x00\x00\x03twotrailing", []string{"one\n", "two"}},
		{"POST /mpub?topic=t", "\n", nil},
	} {
		d := opened(t, Config{})
		if _, err := d.broker.Channel("t", "c"); err != nil {
			t.Fatal(err)
		}
		if got := ask(d.Handler(false), c.request, c.body).String(); got != "200 OK" {
			t.Errorf("%s: %s", c.request, got)
		}
		if got := bodies(received(t, d, "t", "c")); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q is delivered, want %q", c.request, got, c.want)
		}
	}
}

// A refused request publishes nothing; its topic is there all the same, as at nsqd.
func TestARefusedRequestPublishesNothing(t *testing.T) {
	d := opened(t, Config{})
	h := d.Handler(false)
	for request, body := range map[string]string{
		"POST /pub?topic=a&defer=x":      "x",
		"POST /mpub?topic=b":             "x\n" + strings.Repeat("x", 1<<20+1),
		"POST /mpub?topic=c&binary=true": "\x00\x00\x00\x02\x00\x00\x00\x03one",
	} {
		if resp := ask(h, request, body); resp.status < 400 {
			t.Errorf("%s: %d", request, resp.status)
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		if topic := d.broker.Lookup(name); topic == nil || topic.Depth() != 0 {
			t.Errorf("topic %s: %v, want it there and empty", name, topic)
		}
	}
}

func TestADeferredMessageWaits(t *testing.T) {
	d := opened(t, Config{MaxReqTimeout: time.Hour})
	h := d.Handler(false)
	if _, err := d.broker.Channel("t", "c"); err != nil {
		t.Fatal(err)
	}
	for request, want := range map[string]string{
		"POST /pub?topic=t&defer=3600000": "200 OK",
		"POST /pub?topic=t&defer=3600001": say(400, "INVALID_DEFER"),
	} {
		if got := ask(h, request, "later").String(); got != want {
			t.Errorf("%s: %s, want %s", request, got, want)
		}
	}
	c, err := d.broker.Subscribe("t", "c", millrace.SubscribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := d.broker.Publish("t", []millrace.Message{{Body: []byte("now")}}); err != nil {
		t.Fatal(err)
	}
	got := make([]millrace.Delivery, 4)
	if n, err := c.Receive(t.Context(), got); err != nil || n != 1 || string(got[0].Body) != "now" {
		t.Errorf("%q is delivered: %v", bodies(got[:n]), err)
	}
	if depth, _ := d.broker.Depth("t", "c"); depth.Deferred != 1 {
		t.Errorf("%d messages are deferred", depth.Deferred)
	}
}

func TestABrokerWithoutRoomSaysSo(t *testing.T) {
	b, err := broker.Open(broker.Options{MaxMemory: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	h := New(b, Config{Logger: quiet()}).Handler(false)
	if got, want := ask(h, "POST /pub?topic=t", strings.Repeat("x", 20_000)).String(), `507 {"message":"NO_SPACE - publish to topic t: `; !strings.HasPrefix(got, want) {
		t.Errorf("full: %s, want %s", got, want)
	}
	if got := ask(h, "POST /pub?topic=t", "small").String(); got != "200 OK" {
		t.Errorf("small: %s", got)
	}
	b.Close()
	if got, want := ask(h, "POST /pub?topic=t", "x").String(), say(503, "EXITING"); got != want {
		t.Errorf("closed: %s, want %s", got, want)
	}
}

// A body of unknown length is read no further than it may be long.
func TestABodyWithoutALengthIsLimitedToo(t *testing.T) {
	h := opened(t, Config{}).Handler(false)
	for target, want := range map[string]string{
		"/pub?topic=t": say(413, "MSG_TOO_BIG"), "/mpub?topic=t": say(413, "BODY_TOO_BIG"), "/mpub?topic=t&binary=1": say(413, "BAD_BODY"),
	} {
		body := &endless{}
		r := httptest.NewRequest(http.MethodPost, target, bufio.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := replyOf(w).String(); got != want || body.read > 6<<20 {
			t.Errorf("%s: %s, want %s; %d bytes were read", target, got, want, body.read)
		}
	}
}

type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

func TestABodyThatBreaksOffIsNotPublished(t *testing.T) {
	d := opened(t, Config{})
	r := httptest.NewRequest(http.MethodPost, "/pub?topic=t", io.MultiReader(strings.NewReader("half"), broken{}))
	w := httptest.NewRecorder()
	d.Handler(false).ServeHTTP(w, r)
	if got, want := replyOf(w).String(), say(500, "INTERNAL_ERROR"); got != want || len(d.broker.Topics()) > 0 {
		t.Errorf("%s, want %s", got, want)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("broken") }

func FuzzPublishing(f *testing.F) {
	f.Add("topic=t", "x", false)
	f.Add("topic=t&defer=10", "x", false)
	f.Add("topic=t&binary=true", "\x00\x00\x00\x01\x00\x00\x00\x02ab", true)
	f.Add("topic=%zz;&binary", "\x00\xff\xff\xff", true)
	f.Fuzz(func(t *testing.T, query, body string, many bool) {
		d := opened(t, Config{MaxMsgSize: 100, MaxBodySize: 1000})
		path := "/pub"
		if many {
			path = "/mpub"
		}
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		d.Handler(false).ServeHTTP(w, r)
		if w.Code != 200 && (w.Code < 400 || w.Code > 413) {
			t.Errorf("%s %q: %s", query, body, replyOf(w).String())
		}
		for _, topic := range d.broker.Topics() {
			if millrace.CheckName(topic.Name()) != nil {
				t.Errorf("%s made the topic %q", query, topic.Name())
			}
		}
	})
}
