package nats

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	natsio "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace"
)

// The server's error codes that say something to us, from its errors.json.
const (
	codeAccountResources    jetstream.ErrorCode = 10002
	codeResources           jetstream.ErrorCode = 10023
	codeMemory              jetstream.ErrorCode = 10028
	codeStorage             jetstream.ErrorCode = 10047
	codeStoreFailed         jetstream.ErrorCode = 10077
	codeDuplicateInProgress jetstream.ErrorCode = 10158
)

// full are those of a server that has no room.
var full = []jetstream.ErrorCode{codeAccountResources, codeResources, codeMemory, codeStorage, codeStoreFailed}

// passes says that an error is one of those that go by themselves: the request was lost,
// or there is no leader just now.
func passes(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return passing(api)
	}
	var broken *net.OpError // of a connection that breaks just now
	if errors.As(err, &broken) {
		return true
	}
	for _, passing := range []error{
		context.DeadlineExceeded, // of one attempt
		natsio.ErrTimeout, natsio.ErrNoResponders, natsio.ErrDisconnected,
		natsio.ErrConnectionReconnecting, natsio.ErrReconnectBufExceeded, natsio.ErrStaleConnection,
		net.ErrClosed, io.EOF,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// passing is passes for what the server said.
func passing(e *jetstream.APIError) bool {
	return e.ErrorCode == codeDuplicateInProgress || (e.Code == 503 || e.Code == 429) && !slices.Contains(full, e.ErrorCode)
}

// published is the error of a publish that the server refused.
func published(e *jetstream.APIError) error {
	switch {
	case slices.Contains(full, e.ErrorCode):
		return fmt.Errorf("%w (%w)", millrace.ErrNoSpace, e)
	case e.ErrorCode == jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return fmt.Errorf("%w (%w)", millrace.ErrTooLarge, e)
	}
	return e
}

// refusal is an error of the server about what this user may do. It wraps millrace.ErrRefused.
type refusal struct{ error }

// Unwrap returns millrace.ErrRefused, and what the server said.
func (r refusal) Unwrap() []error { return []error{millrace.ErrRefused, r.error} }

func isNotFound(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) ||
		errors.Is(err, jetstream.ErrConsumerDoesNotExist)
}
