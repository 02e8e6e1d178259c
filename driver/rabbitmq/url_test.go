package rabbitmq

import (
	"errors"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace"
)

func TestAURLSaysWhere(t *testing.T) {
	for _, c := range []struct {
		url    string
		hosts  []string
		vhost  string
		user   string
		secret string
	}{
		{"amqp://localhost", []string{"localhost:5672"}, "/", "guest", "guest"},
		{"amqp://localhost/", []string{"localhost:5672"}, "/", "guest", "guest"},
		{"amqp://me:p%40ss@h:1/v", []string{"h:1"}, "v", "me", "p@ss"},
		{"amqp://me@h/%2F", []string{"h:5672"}, "/", "me", ""},
		{"amqp://h/a%2Fb", []string{"h:5672"}, "a/b", "guest", "guest"},
		{"amqps://h", []string{"h:5671"}, "/", "guest", "guest"},
		{"amqp://one,two:1/v", []string{"one:5672", "two:1"}, "v", "guest", "guest"},
		{"amqp://[::1]/v", []string{"[::1]:5672"}, "v", "guest", "guest"},
	} {
		u, err := url.Parse(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		a, err := parse(u)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if !slices.Equal(a.hosts, c.hosts) || a.vhost != c.vhost || a.user != c.user || a.password != c.secret {
			t.Errorf("%s: %+v", c.url, a)
		}
	}
	u, _ := url.Parse("amqp://h?consumer_timeout=90s")
	if a, err := parse(u); err != nil || a.consumerTimeout != 90*time.Second {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestPassingQueuesAreTransientWhereTheServerPermitsIt(t *testing.T) {
	for _, c := range []struct {
		url     string
		version int64
		passes  bool
	}{
		{"amqp://h", 310, true},
		{"amqp://h", 402, true},
		{"amqp://h", 403, false},
		{"amqp://h?transient_queues=false", 310, false},
		{"amqp://h?transient_queues=true", 403, true},
	} {
		u, _ := url.Parse(c.url)
		a, err := parse(u)
		if err != nil {
			t.Fatal(err)
		}
		b := Broker{addr: a}
		b.version.Store(c.version)
		if b.passes() != c.passes {
			t.Errorf("%s, version %d: %v", c.url, c.version, b.passes())
		}
	}
}

func TestABadURLIsRefused(t *testing.T) {
	for _, bad := range []string{
		"amqp:", "amqp:opaque", "amqp:///v", "amqp://h:/v", "amqp://one,,two/", "amqp://h/a/b", "amqp://h?x=1",
		"amqp://h?consumer_timeout=30", "amqp://h?consumer_timeout=1ms", "amqp://h?transient_queues=maybe", "amqp://h?ca=file", "amqps://h?cert=file",
	} {
		u, err := url.Parse(bad)
		if err != nil {
			t.Errorf("%s: %v", bad, err)
			continue
		}
		if _, err := parse(u); !errors.Is(err, millrace.ErrBadURL) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
