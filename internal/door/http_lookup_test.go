package door

import (
	"os"
	"strings"
	"testing"
)

func TestOneNodeAnswersForNsqlookupd(t *testing.T) {
	d := opened(t, Config{BroadcastTCPPort: 14150})
	h := d.Handler(false)
	for _, ch := range []channelName{{"orders", "billing"}, {"orders", "archive"}, {"audit", "x"}} {
		if _, err := d.broker.Channel(ch.topic, ch.channel); err != nil {
			t.Fatal(err)
		}
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	me := `{"remote_address":"me.example:14150","hostname":"HOST","broadcast_address":"me.example","tcp_port":14150,"http_port":4151,"version":"1.3.0"`
	for request, want := range map[string]string{
		"GET /topics":                `200 {"topics":["audit","orders"]}`,
		"GET /channels?topic=orders": `200 {"channels":["archive","billing"]}`,
		"GET /channels?topic=nope":   `200 {"channels":[]}`,
		"GET /channels":              say(400, "MISSING_ARG_TOPIC"),
		"GET /channels?topic=;":      say(400, "INVALID_REQUEST"),
		"GET /lookup?topic=orders":   `200 {"channels":["archive","billing"],"producers":[` + me + `}]}`,
		"GET /lookup?topic=nope":     say(404, "TOPIC_NOT_FOUND"),
		"GET /lookup":                say(400, "MISSING_ARG_TOPIC"),
		"GET /nodes":                 `200 {"producers":[` + me + `,"tombstones":[false,false],"topics":["audit","orders"]}]}`,
	} {
		if got := ask(h, request, "").String(); got != strings.ReplaceAll(want, "HOST", hostname) {
			t.Errorf("%s: %s, want %s", request, got, want)
		}
	}
}
