package door

import (
	"strings"
	"testing"

	"github.com/millrace/millrace"
)

const (
	lineOfTask = `MR1 {"id":"job-7","reply-to":"reply.x"}` + "\n"
	lookalike  = `MR1 {"id": "job-7"}` + "\n"
	noHeaders  = "MR1 {}\n"
)

var headersOfTask = millrace.Headers(nil).Append(millrace.HeaderID, "job-7").Append(millrace.HeaderReplyTo, "reply.x")

// published are payloads that clients of NSQ publish, and the messages that they are.
var published = []struct {
	payload string
	headers millrace.Headers
	body    string
}{
	{payload: "plain", body: "plain"},
	{payload: lineOfTask + "task", headers: headersOfTask, body: "task"},
	{payload: lineOfTask, headers: headersOfTask},
	{payload: `MR1 {"k":"\udcff"}` + "\nx", headers: millrace.Headers(nil).Append("k", "\xff"), body: "x"},
	{payload: lookalike + "task", body: lookalike + "task"},
	{payload: "MR1 ", body: "MR1 "},
	{payload: noHeaders + "x", body: noHeaders + "x"},
	{payload: noHeaders + lineOfTask + "x", body: lineOfTask + "x"},
	{payload: noHeaders, body: ""},
}

// What our drivers publish over NSQ is stored as headers and body; every client of NSQ
// gets the bytes that were published.
func TestTheLineOfHeadersIsStoredAsHeadersAndDeliveredAsALine(t *testing.T) {
	d := serveTCP(t, Config{})
	ours, err := d.broker.Subscribe("t", "ours", millrace.SubscribeOptions{Prefetch: 1000})
	if err != nil {
		t.Fatal(err)
	}
	c, p := d.dial(), d.dial()
	c.send("SUB t theirs\nRDY 1000\n")
	c.want("OK")
	payloads := make([]string, len(published))
	for i, m := range published {
		payloads[i] = m.payload
	}
	for name, publish := range map[string]func(){
		"PUB": func() {
			for _, payload := range payloads {
				p.send(pub("t", payload))
			}
			for range payloads {
				p.want("OK")
			}
		},
		"DPUB": func() {
			for _, payload := range payloads {
				p.send("DPUB t 0\n" + sized(payload))
				p.want("OK")
			}
		},
		"MPUB": func() {
			p.send(mpub("t", payloads...))
			p.want("OK")
		},
		"POST /pub": func() {
			for _, payload := range payloads {
				if got := ask(d.Handler(false), "POST /pub?topic=t", payload); got.String() != "200 OK" {
					t.Error(got)
				}
			}
		},
		"POST /mpub": func() {
			batch := mpub("t", payloads...)[len("MPUB t\n")+4:]
			if got := ask(d.Handler(false), "POST /mpub?topic=t&binary=true", batch); got.String() != "200 OK" {
				t.Error(got)
			}
		},
	} {
		t.Log(name)
		publish()
		for _, m := range published {
			c.want("1:" + m.payload)
			var got [1]millrace.Delivery
			if _, err := ours.Receive(t.Context(), got[:]); err != nil {
				t.Fatal(err)
			}
			if string(got[0].Headers) != string(m.headers) || string(got[0].Body) != m.body {
				t.Errorf("%q was stored as headers %q and body %q", m.payload, got[0].Headers, got[0].Body)
			}
		}
	}
}

// What is published in the broker's own process reaches clients of NSQ as one payload, from
// which a driver of ours gets the same message again.
func TestEveryMessageOfTheBrokerHasItsPayload(t *testing.T) {
	d := serveTCP(t, Config{})
	c := d.dial()
	c.send("SUB t c\nRDY 1000\n")
	c.want("OK")
	for _, m := range published {
		if err := d.broker.Publish("t", []millrace.Message{{Headers: m.headers, Body: []byte(m.body)}}); err != nil {
			t.Fatal(err)
		}
		c.want("1:" + m.payload)
	}
	large := strings.Repeat("x", maxCopied) // which is written from where it is
	if err := d.broker.Publish("t", []millrace.Message{{Headers: headersOfTask, Body: []byte(large)}}); err != nil {
		t.Fatal(err)
	}
	if got := c.message().body; got != lineOfTask+large {
		t.Errorf("%d bytes that begin with %.60q came, want %d", len(got), got, len(lineOfTask+large))
	}
}

// Limits count what the client has sent.
func TestTheLineOfHeadersCountsAgainstTheLimit(t *testing.T) {
	size := len(lineOfTask) + 4
	d := serveTCP(t, Config{MaxMsgSize: size})
	p := d.dial()
	p.send(pub("t", lineOfTask+"1234"))
	p.want("OK")
	p.send(pub("t", lineOfTask+"12345"))
	if got := p.frame(); got[:min(len(got), 24)] != "!E_BAD_MESSAGE PUB messa" {
		t.Errorf("one byte more: %s", got)
	}
}
