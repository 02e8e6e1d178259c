package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace/millrace"
)

func TestABrokerThatRunsIsPeekedIntoAndReplayed(t *testing.T) {
	t.Parallel()
	s := serveProcess(t, "millrace", "--data-path", t.TempDir(), "--retain", "1h")
	p := s.publisher()
	for i := range 2500 {
		if err := p.Publish("orders", fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	s.take("orders", "billing", 5)
	var out, notes bytes.Buffer
	o := peekOptions{topic: "orders", channel: "billing", broker: s.url(), count: 3000, json: true}
	if err := runPeek(t.Context(), &o, &out, &notes); err != nil {
		t.Fatal(err)
	}
	// Over three pages; what was in flight when the client went is ready again.
	if n := strings.Count(out.String(), `"state":"ready"`); n < 2400 || n > 2495 || notes.Len() > 0 {
		t.Errorf("%d messages, %s", n, &notes)
	}
	if last := `"body":"2499"}` + "\n"; !strings.HasSuffix(out.String(), last) {
		t.Errorf("it ends with %s", out.String()[out.Len()-100:])
	}
	out.Reset()
	r := replayOptions{topic: "orders", channel: "billing", broker: s.url(), from: "1h"}
	if err := runReplay(t.Context(), &r, &out); err != nil || !strings.HasSuffix(out.String(), " messages come again, from 0000000000000001 on\n") {
		t.Errorf("%s, %v", &out, err)
	}
	out.Reset()
	if err := runPeek(t.Context(), &o, &out, &notes); err != nil || strings.Count(out.String(), "\n") != 2500 {
		t.Errorf("%d messages after the replay, %v", strings.Count(out.String(), "\n"), err)
	}
}

func TestWhoIsNotLetInByTheHTTPAPIIsToldWhatToDo(t *testing.T) {
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	if err := os.WriteFile(tokens, []byte("read-1 a read:*\nall-1 b admin:*\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveProcess(t, "millrace", "--data-path", dir, "--auth-token-file", tokens)
	for token, want := range map[string]string{
		"":       "the broker at " + s.http + " wants a token: set $MILLRACE_TOKEN",
		"wrong":  "the broker at " + s.http + " wants a token: set $MILLRACE_TOKEN",
		"read-1": "the broker at " + s.http + " does not allow it to this token",
		"all-1":  "there is no topic t",
	} {
		t.Setenv(tokenVariable, token)
		err := runPeek(t.Context(), &peekOptions{topic: "t", broker: s.url(), count: 1}, nil, nil)
		if err == nil || err.Error() != want {
			t.Errorf("with %q: %v, want %s", token, err, want)
		}
	}
	for body, want := range map[string]string{
		`404 {"message":"NOT_FOUND"}`:                           "cannot do this: is it nsqd, or an older millrace?",
		`403 {"message": "TLS_REQUIRED", "https_port": 4152}`:   "wants TLS: write ?tls=true in --broker",
		`507 {"message":"NO_SPACE - replay: the disk is full"}`: "replay: the disk is full",
		`503 {"message":"EXITING"}`:                             "says EXITING",
		`500 <html>`:                                            "is no broker: status 500",
		`200 <html>`:                                            "is not that of a broker",
	} {
		var status int
		_, _ = fmt.Sscan(body, &status)
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body[4:]))
		}))
		url := "nsq://127.0.0.1:1?http=" + other.Listener.Addr().String()
		err := runPeek(t.Context(), &peekOptions{topic: "t", broker: url, count: 1}, nil, nil)
		if err == nil || !strings.HasSuffix(strings.SplitN(err.Error(), ": invalid character", 2)[0], want) {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
		other.Close()
	}
}

// The directory of a broker that runs is asked at its address; one that does not is looked at,
// and what it retains stays.
func TestADirectoryIsPeekedIntoWhenNobodyHasItOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := serveProcess(t, "millrace", "--data-path", dir)
	url := "file://" + dir
	err := runPeek(t.Context(), &peekOptions{topic: "t", broker: url, count: 1}, nil, nil)
	if want := dir + " is in use by another process: give the address of the broker that runs there, as in --broker nsq://127.0.0.1:4150"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	s.end(syscall.SIGTERM)
	opts, err := lookingOptions(url)
	if err != nil || opts.Retain < 1<<62 {
		t.Errorf("%+v, %v", opts, err)
	}
}

// What cannot be asked over HTTP is refused with a sentence.
func TestOnlyOneBrokerThatCanShowItsMessagesIsAsked(t *testing.T) {
	for url, says := range map[string]string{
		"amqp://h": "only millrace serve, or a directory", "nats://h": "only millrace serve", "nsqlookupd://h": "only millrace serve",
		"nsq://a,b": "write one of the 2 brokers", "nsq://a?frob=1": `there is no option "frob"`, "nsq://a?secret=hush&frob=1": "secret=xxxxx",
	} {
		if _, err := openAPI(url); !errors.Is(err, millrace.ErrBadURL) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", url, err, says)
		}
	}
	a, err := openAPI("nsq://h:4150?tls=1&http=o:443&secret=hush")
	if err != nil || a.base != "https://o:443" || a.name != "o:443" || a.token != "hush" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestAReplaySaysInWordsWhatItBringsBack(t *testing.T) {
	for answer, want := range map[string]string{
		`{"from":26,"messages":2,"cut":false}`: "2 messages come again, from 000000000000001a on\n",
		`{"from":26,"messages":1,"cut":true}`:  "1 message comes again, from 000000000000001a on; what was before that, the broker does not have any more\n",
		`{"from":26,"messages":0,"cut":false}`: "no messages come again\n",
	} {
		var asked string
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = r.Method + " " + r.URL.RequestURI()
			_, _ = w.Write([]byte(answer))
		}))
		var out bytes.Buffer
		o := replayOptions{topic: "t", channel: "c#ephemeral", from: "2026-01-31T13:00:00+02:00", broker: "nsq://h?http=" + other.Listener.Addr().String()}
		if err := runReplay(t.Context(), &o, &out); err != nil || out.String() != want {
			t.Errorf("%s: %q, %v; want %q", answer, &out, err, want)
		}
		if want := "POST /channel/replay?channel=c%23ephemeral&from=2026-01-31T13%3A00%3A00%2B02%3A00&topic=t"; asked != want {
			t.Errorf("it asked %s, want %s", asked, want)
		}
		other.Close()
	}
}
