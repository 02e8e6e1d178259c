package worker

import (
	"encoding/binary"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/millrace/millrace"
)

// item is a task that the worker holds, from its delivery until it is acked, given
// back, or its lease is lost.
//
// What is not atomic is written before the item is held and only read from then on,
// by whoever has to do with it.
type item struct {
	delivery millrace.Delivery
	envelope
	unfit *refusal // why it cannot be run, if so

	slab      *slab
	released  atomic.Bool // it is not held any more: its lease is not extended
	leaseLost atomic.Bool // it was found to be somebody else's
}

// attempt says how often the task was started, this time included.
func (it *item) attempt() int { return it.failures + int(it.delivery.Attempt) }

// envelope is what the headers of a task say.
type envelope struct {
	id       string // shares memory with the delivery, as does replyTo
	replyTo  string
	failures int
	retries  int           // -1: as the worker likes
	timeout  time.Duration // -1: as the worker likes
}

// open reads the headers of a task. When that is refused, what could be read up to
// there is set.
func (e *envelope) open(h millrace.Headers) *refusal {
	*e = envelope{retries: -1, timeout: -1}
	for rest := []byte(h); len(rest) > 0; {
		key, value, after, ok := cutPair(rest)
		if !ok {
			return foreign("headers cannot be decoded at byte %d of %d", len(h)-len(rest), len(h))
		}
		rest = after
		switch string(key) {
		case millrace.HeaderID:
			e.id = first(e.id, value)
		case millrace.HeaderReplyTo:
			e.replyTo = first(e.replyTo, value)
		case millrace.HeaderFailures, millrace.HeaderRetries, millrace.HeaderTimeout:
			if unfit := e.setNumber(string(key), string(value)); unfit != nil {
				return unfit
			}
		}
	}
	return nil
}

func (e *envelope) setNumber(key, value string) *refusal {
	var err error
	switch key {
	case millrace.HeaderFailures:
		e.failures, err = strconv.Atoi(value)
	case millrace.HeaderRetries:
		e.retries, err = strconv.Atoi(value)
	case millrace.HeaderTimeout:
		e.timeout, err = time.ParseDuration(value)
	}
	if err != nil || e.failures < 0 {
		e.failures = max(0, e.failures)
		return foreign("header %s cannot be %.40q", key, value)
	}
	return nil
}

// first keeps the value that came first, as Headers.Get does. A string that shares
// the read-only memory of the delivery saves two allocations a task.
func first(have string, value []byte) string {
	if have != "" {
		return have
	}
	return unsafe.String(unsafe.SliceData(value), len(value))
}

// cutPair splits the first key and value off headers, without the allocations and
// repeated scans that a Headers.Get for each key would cost.
func cutPair(h []byte) (key, value, rest []byte, ok bool) {
	if key, h, ok = cutField(h); !ok {
		return nil, nil, nil, false
	}
	value, h, ok = cutField(h)
	return key, value, h, ok
}

func cutField(b []byte) (field, rest []byte, ok bool) {
	n, width := binary.Uvarint(b)
	if width <= 0 || n > uint64(len(b)-width) {
		return nil, nil, false
	}
	end := width + int(n) //nolint:gosec // n was just checked against the length of b
	return b[width:end], b[end:], true
}
