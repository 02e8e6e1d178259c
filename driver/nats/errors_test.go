package nats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"

	natsio "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace"
)

// What a server without a leader, a lost connection or a lost answer says is tried again;
// what a server says that will say it again is not.
func TestErrorsThatPassAreTriedAgain(t *testing.T) {
	for _, c := range []struct {
		err    error
		passes bool
	}{
		{context.DeadlineExceeded, true},
		{natsio.ErrNoResponders, true},
		{natsio.ErrDisconnected, true},
		{fmt.Errorf("write: %w", &net.OpError{Op: "write", Err: syscall.ECONNRESET}), true},
		{&jetstream.APIError{Code: 503, ErrorCode: 10008, Description: "JetStream system temporarily unavailable"}, true},
		{&jetstream.APIError{Code: 409, ErrorCode: codeDuplicateInProgress}, true},
		{&jetstream.APIError{Code: 503, ErrorCode: codeResources}, false},
		{&jetstream.APIError{Code: 500, ErrorCode: codeStorage}, false},
		{&jetstream.APIError{Code: 400, ErrorCode: 10065, Description: "subjects overlap"}, false},
		{jetstream.ErrStreamNotFound, false},
		{natsio.ErrPermissionViolation, false},
		{natsio.ErrConnectionClosed, false},
		{millrace.ErrClosed, false},
		{context.Canceled, false},
	} {
		if got := passes(c.err); got != c.passes {
			t.Errorf("%v passes: %v, want %v", c.err, got, c.passes)
		}
	}
}

func TestRefusalsHaveTheErrorsOfAllDrivers(t *testing.T) {
	for text, want := range map[string]error{
		`{"stream":"s","seq":7}`:                                       nil,
		`{"stream":"s","seq":7,"duplicate":true}`:                      nil,
		`{"stream":"error","seq":7}`:                                   nil,
		`{"error":{"code":503,"err_code":10023},"stream":"s","seq":0}`: millrace.ErrNoSpace,
		`{"error":{"code":500,"err_code":10047},"stream":"s","seq":0}`: millrace.ErrNoSpace,
		`{"error":{"code":503,"err_code":10077},"stream":"s","seq":0}`: millrace.ErrNoSpace,
		`{"error":{"code":400,"err_code":10054},"stream":"s","seq":0}`: millrace.ErrTooLarge,
		`{"error":{"code":400,"err_code":10003,"description":"bad"}}`:  &jetstream.APIError{Code: 400, ErrorCode: 10003},
		"": natsio.ErrNoResponders,
	} {
		got := refusalOf(&natsio.Msg{Data: []byte(text)})
		var api *jetstream.APIError
		if wantAPI := new(jetstream.APIError); errors.As(want, &wantAPI) {
			if !errors.As(got, &api) || api.ErrorCode != wantAPI.ErrorCode {
				t.Errorf("%s: %v, want %v", text, got, want)
			}
		} else if !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	if refusalOf(&natsio.Msg{Data: []byte(`{"error":`)}) == nil {
		t.Error("an answer that cannot be read is taken for yes")
	}
}
