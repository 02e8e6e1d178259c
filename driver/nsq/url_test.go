package nsq

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace"
)

func read(t *testing.T, text string) (settings, *url.URL, error) {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	s, err := parse(u)
	return s, u, err
}

func TestURLsNameNodesAndTheirAPIs(t *testing.T) {
	for text, want := range map[string][]endpoint{
		"nsq://a":                                {{"a:4150", "a:4151"}},
		"nsq://a:4150/":                          {{"a:4150", "a:4151"}},
		"nsq://a:5000":                           {{"a:5000", "a:5001"}},
		"nsq://[::1]:4150":                       {{"[::1]:4150", "[::1]:4151"}},
		"nsq://a:1?http=80":                      {{"a:1", "a:80"}},
		"nsq://a:1?http=b:80":                    {{"a:1", "b:80"}},
		"nsq://a,b:2":                            {{"a:4150", "a:4151"}, {"b:2", "b:3"}},
		"nsq://a,b?http=80":                      {{"a:4150", "a:80"}, {"b:4150", "b:80"}},
		"nsq://127.0.0.1:1,127.0.0.1:2?http=3,4": {{"127.0.0.1:1", "127.0.0.1:3"}, {"127.0.0.1:2", "127.0.0.1:4"}},
		"nsq://a?tls=true":                       {{"a:4150", "a:4152"}},
		"nsq://a?tls=false":                      {{"a:4150", "a:4151"}},
	} {
		if s, _, err := read(t, text); err != nil || !slices.Equal(s.nodes, want) || (s.access.tls != nil) != strings.Contains(text, "tls=true") {
			t.Errorf("%s: %+v, %v, want %v", text, s, err, want)
		}
	}
	s, _, err := read(t, "nsqlookupd://a,b:1")
	if want := []string{"a:4161", "b:1"}; err != nil || !slices.Equal(s.lookupd, want) || s.nodes != nil {
		t.Errorf("%+v, %v, want %v", s, err, want)
	}
}

func TestHTTPAPIsAreThoseOfTheNodes(t *testing.T) {
	t.Setenv("MILLRACE_TOKEN", "hush")
	apis, err := HTTPAPIs("nsq://a,b:2?http=80,c:90")
	want := []HTTPAPI{{Address: "a:80", Base: "http://a:80", Token: "hush"}, {Address: "c:90", Base: "http://c:90", Token: "hush"}}
	if err != nil || !slices.Equal(apis, want) {
		t.Errorf("%+v, %v, want %+v", apis, err, want)
	}
	apis, err = HTTPAPIs("nsq://a?tls=true&secret=of+the+URL")
	if err != nil || len(apis) != 1 || apis[0].Base != "https://a:4152" || apis[0].TLS == nil || apis[0].Token != "of the URL" {
		t.Errorf("%+v, %v", apis, err)
	}
	for _, text := range []string{"nsqlookupd://a", "amqp://a", "a:4150", "nsq://a?frob=1", "nsq://a?secret=of+the+URL&frob=1"} {
		if _, err := HTTPAPIs(text); !errors.Is(err, millrace.ErrBadURL) || strings.Contains(err.Error(), "of+the") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// The secret is in no error: those quote the URL.
func TestTheSecretComesFromTheURLOrTheEnvironment(t *testing.T) {
	t.Setenv("MILLRACE_TOKEN", "of the environment")
	s, u, err := read(t, "nsq://a?secret=of+the+URL&http=1")
	if err != nil || s.access.secret != "of the URL" || strings.Contains(u.String(), "URL") || !strings.Contains(u.String(), "http=1") {
		t.Errorf("%+v, %v; the URL is %s", s.access, err, u)
	}
	if s, _, err := read(t, "nsq://a"); err != nil || s.access.secret != "of the environment" {
		t.Errorf("%+v, %v", s.access, err)
	}
	if _, err := millrace.Open(t.Context(), "nsq://a?secret=hush&nonsense=1"); err == nil || strings.Contains(err.Error(), "hush") {
		t.Error(err)
	}
}

func TestBadURLsAreRefusedWithASentence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, says := range map[string]string{
		"nsq:":                     "nsq://HOST:PORT",
		"nsq:a:4150":               "nsq://HOST:PORT",
		"nsq:///a":                 "nsq://HOST:PORT",
		"nsq://a/topic":            "nsq://HOST:PORT",
		"nsq://me:word@a":          "nsq://HOST:PORT",
		"nsq://a#b":                "nsq://HOST:PORT",
		"nsqlookupd:":              "nsqlookupd://HOST:PORT",
		"nsq://a,":                 "empty",
		"nsq://:4150":              "empty",
		"nsq://a:1,a:1":            "a:1 is there twice",
		"nsq://a?x;y":              "cannot be read",
		"nsq://a?htpp=1":           `no option "htpp"`,
		"nsq://a?http=":            "http is empty",
		"nsq://a?http=1&http=2":    "http is there 2 times",
		"nsq://a?http=x":           "PORT or HOST:PORT",
		"nsq://a?http=1,2":         "2 ports for 1 hosts",
		"nsq://a,b,c?http=1,2":     "2 ports for 3 hosts",
		"nsqlookupd://a?http=1":    "leave it out",
		"nsq://a?tls=maybe":        "tls=true",
		"nsq://a?tls=false&ca=x":   "tls=true",
		"nsq://a?ca=/no/such/file": "no such file",
		"nsq://a?ca=" + file:       "no certificate in it",
		"nsq://a?cert=x":           "go together",
		"nsq://a?cert=x&key=y":     "cert and key",
		"nsq://a:99999":            "99999 is no port",
	} {
		_, _, err := read(t, text)
		if !errors.Is(err, millrace.ErrBadURL) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line that says %q", text, err, says)
		}
	}
}
