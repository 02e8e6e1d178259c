package millrace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// The headers that Millrace itself writes. A message without them is a task
// without a reply: it is run, and nobody is told.
const (
	// HeaderID is the request id, unique among all requests: the job's id, a dash,
	// and the request's index in the job.
	HeaderID = "id"
	// HeaderReplyTo is the topic to which the result is published.
	HeaderReplyTo = "reply-to"
	// HeaderFailures counts how often the task has failed so far, in decimal. It is
	// written into the copy of the task that is retried.
	HeaderFailures = "failures"
	// HeaderRetries is how often the client wants a failed task to be tried again,
	// in decimal; without it the worker's own setting holds.
	HeaderRetries = "retries"
	// HeaderTimeout is how long one attempt at the task may take, as
	// time.ParseDuration reads it; without it the worker's own setting holds.
	HeaderTimeout = "timeout"
	// HeaderError is in a result that is an error, and in a dead letter: its text.
	HeaderError = "error"
	// HeaderErrorKind says what kind of error HeaderError is, so that it can be told
	// apart without reading its text: see package worker.
	HeaderErrorKind = "error-kind"
	// HeaderExitCode is the exit code of the command that failed, in decimal.
	HeaderExitCode = "exit-code"
	// HeaderAttempts is in a result and in a dead letter: how often the task was run.
	HeaderAttempts = "attempts"
	// HeaderQueue is in a dead letter: the queue or topic the message came from.
	HeaderQueue = "queue"
	// HeaderChannel is in a dead letter: the channel that gave the message up.
	HeaderChannel = "channel"
	// HeaderSequence is in a dead letter: the message's sequence number in its topic, in
	// decimal, where the broker has such numbers.
	HeaderSequence = "sequence"
	// HeaderPublished is in a dead letter: when the message was published, in RFC 3339
	// and UTC, where that is known.
	HeaderPublished = "published"
)

// ErrBadHeaders is returned when bytes are not a well-formed list of headers.
var ErrBadHeaders = errors.New("millrace: malformed headers")

// Headers is a list of key–value pairs in the form in which they are stored, so
// that a broker can pass them on without looking inside. For each pair:
//
//	uvarint length of key · key · uvarint length of value · value
//
// The zero value is the empty list. A key may occur more than once; the first
// counts. Build one with Append; check one that comes from outside with Check.
type Headers []byte

// Append adds a pair and returns the longer list, as the built-in append does: it
// writes into the spare capacity of h where there is some.
func (h Headers) Append(key, value string) Headers {
	h = binary.AppendUvarint(h, uint64(len(key)))
	h = append(h, key...)
	h = binary.AppendUvarint(h, uint64(len(value)))
	return append(h, value...)
}

// Get returns the first value of key, and whether there is one. The value shares
// memory with h. In malformed headers what lies behind the damage is not found.
func (h Headers) Get(key string) ([]byte, bool) {
	for len(h) > 0 {
		k, v, rest, ok := cutHeader(h)
		if !ok {
			return nil, false
		}
		if string(k) == key {
			return v, true
		}
		h = rest
	}
	return nil, false
}

// Text returns the first value of key as a string, "" when there is none.
func (h Headers) Text(key string) string {
	v, _ := h.Get(key)
	return string(v)
}

// All iterates over the pairs in the order in which they were appended, and stops
// at malformed bytes.
func (h Headers) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for len(h) > 0 {
			k, v, rest, ok := cutHeader(h)
			if !ok || !yield(string(k), string(v)) {
				return
			}
			h = rest
		}
	}
}

// Without returns a copy of h that lacks every pair with one of the keys.
func (h Headers) Without(keys ...string) Headers {
	out := make(Headers, 0, len(h))
pairs:
	for len(h) > 0 {
		k, _, rest, ok := cutHeader(h)
		if !ok {
			return out
		}
		pair := h[:len(h)-len(rest)]
		h = rest
		for _, key := range keys {
			if string(k) == key {
				continue pairs
			}
		}
		out = append(out, pair...)
	}
	return out
}

// Check returns an error that wraps ErrBadHeaders when h is not well formed.
func (h Headers) Check() error {
	for at := 0; at < len(h); {
		_, _, rest, ok := cutHeader(h[at:])
		if !ok {
			return fmt.Errorf("%w: at byte %d of %d", ErrBadHeaders, at, len(h))
		}
		at = len(h) - len(rest)
	}
	return nil
}

// cutHeader splits the first pair off h; ok is false when h is malformed.
func cutHeader(h []byte) (key, value, rest []byte, ok bool) {
	if key, h, ok = cutField(h); !ok {
		return nil, nil, nil, false
	}
	if value, h, ok = cutField(h); !ok {
		return nil, nil, nil, false
	}
	return key, value, h, true
}

func cutField(b []byte) (field, rest []byte, ok bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, false
	}
	end := w + int(n) //nolint:gosec // n was just checked against the length of b
	return b[w:end:end], b[end:], true
}
