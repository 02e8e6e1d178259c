package millrace_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/millrace/millrace"
)

// Without a driver Open says what to import; with one, which URLs there are.
func TestOpenSaysWhatItKnows(t *testing.T) {
	_, err := millrace.Open(t.Context(), "mem:")
	if !errors.Is(err, millrace.ErrBadURL) || !strings.Contains(err.Error(), "driver/embedded") {
		t.Errorf("without a driver: %v", err)
	}
	want := errors.New("as told")
	millrace.Register("test", func(context.Context, *url.URL) (millrace.Broker, error) { return nil, want })
	if _, err := millrace.Open(t.Context(), "test://secret:word@host"); !errors.Is(err, want) || strings.Contains(err.Error(), "word") {
		t.Errorf("the driver's error: %v; want it wrapped, without the password", err)
	}
	for _, bad := range []string{"", "host:4150", "foo://host", "test", "://"} {
		if _, err := millrace.Open(t.Context(), bad); !errors.Is(err, millrace.ErrBadURL) {
			t.Errorf("%q: %v, want ErrBadURL", bad, err)
		}
	}
	if _, err := millrace.Open(t.Context(), "amqp://host"); err == nil || !strings.Contains(err.Error(), "driver/rabbitmq") {
		t.Errorf("a driver of ours that is not there: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("two drivers for one scheme")
		}
	}()
	millrace.Register("test", nil)
}
