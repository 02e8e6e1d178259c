package nats

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace/millrace"
)

func TestURLsNameServersUsersAndReplicas(t *testing.T) {
	for text, want := range map[string]target{
		"nats://h":                    {servers: []string{"nats://h"}},
		"nats://h/":                   {servers: []string{"nats://h"}},
		"nats://u:p@a:1,b:2,c:3":      {servers: []string{"nats://a:1", "nats://b:2", "nats://c:3"}, user: "u", password: "p"},
		"nats://u:p%40%2F@h":          {servers: []string{"nats://h"}, user: "u", password: "p@/"},
		"nats://secret@h":             {servers: []string{"nats://h"}, token: "secret"},
		"nats://[::1]:4222?tls=true":  {servers: []string{"nats://[::1]:4222"}, secure: true},
		"nats://h?tls=false":          {servers: []string{"nats://h"}},
		"nats://h?replicas=3":         {servers: []string{"nats://h"}, replicas: 3},
		"nats://h?ca=a&cert=b&key=c":  {servers: []string{"nats://h"}, ca: "a", cert: "b", key: "c"},
		"nats://h?creds=me%2Bx.creds": {servers: []string{"nats://h"}, creds: "me+x.creds"},
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := parse(u)
		want.hosts, want.replicas = u.Host, max(1, want.replicas)
		if err != nil || strings.Join(got.servers, " ") != strings.Join(want.servers, " ") {
			t.Errorf("%s: %+v and %v, want %+v", text, got, err, want)
		}
		got.servers, want.servers = nil, nil
		if got.user != want.user || got.password != want.password || got.token != want.token || got.replicas != want.replicas ||
			got.secure != want.secure || got.ca != want.ca || got.cert != want.cert || got.key != want.key || got.creds != want.creds {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}

func TestBadURLsAreRefusedWithASentence(t *testing.T) {
	for text, says := range map[string]string{
		"nats:":                       "names no host",
		"nats://":                     "names no host",
		"nats:host":                   "names no host",
		"nats://host/stream":          "has a path, /stream",
		"nats://host#x":               "%23",
		"nats://a,,b":                 "a server without a name",
		"nats://:4222":                "a server without a name",
		"nats://host?replica=3":       `no option "replica"`,
		"nats://host?replicas=0":      "a number from 1 to 5",
		"nats://host?replicas=many":   "a number from 1 to 5",
		"nats://host?replicas=1&tls=": "write tls=true",
		"nats://host?tls=1&tls=2":     "2 times",
		"nats://host?ca=":             "ca needs the name of a file",
		"nats://host?cert=x":          "cert and key go together",
		"nats://host?a;b":             "cannot be read",
		"nats://u:secret@host/x":      "nats://u:xxxxx@host/x",
		"nats://secret@host?x=1":      `no option "x"`,
	} {
		b, err := millrace.Open(t.Context(), text)
		if err == nil {
			_ = b.Close()
			t.Errorf("%s was opened", text)
			continue
		}
		t.Log(err)
		if !errors.Is(err, millrace.ErrBadURL) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q, want one line that says %q", text, err, says)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q tells the password", err)
		}
	}
}

// Two names never become the same stream, subject or consumer, and NATS takes all of them.
func TestNamesStayApart(t *testing.T) {
	name := rapid.StringMatching(`[.a-zA-Z0-9_-]{1,54}(#ephemeral)?`)
	rapid.Check(t, func(t *rapid.T) {
		a := name.Draw(t, "a")
		// b is the same but for its separators.
		b := strings.Map(func(c rune) rune {
			if strings.ContainsRune("._-", c) {
				return rapid.SampledFrom([]rune("._-")).Draw(t, "separator")
			}
			return c
		}, a)
		for _, of := range []func(string) string{Stream, Subject, Consumer} {
			if (of(a) == of(b)) != (a == b) {
				t.Errorf("%q and %q are %q and %q", a, b, of(a), of(b))
			}
		}
		if bad := strings.ContainsAny(Stream(a)+Consumer(a), " \t\r\n\f.*>\\/"); bad || strings.Count(Subject(a), ".") != 1 {
			t.Errorf("%q is stream %q, subject %q", a, Stream(a), Subject(a))
		}
		if isHolder(Consumer(a)) || !isHolder(newHolder()) {
			t.Errorf("channel %q looks like a holder, or a holder does not", a)
		}
	})
}
