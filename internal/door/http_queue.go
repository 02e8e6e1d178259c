package door

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// Reading a queue without consuming it, and delivering again. nsqd has neither, so the words
// are our own; a reason is a word in the manner of nsqd's and, after a dash, a sentence.

// peekDefault is how many messages a peek shows unless it is told otherwise.
const peekDefault = 10

// peekedMessage is a message as /peek shows it.
type peekedMessage struct {
	ID        string            `json:"id"` // NSQ's
	Sequence  uint64            `json:"sequence"`
	Published int64             `json:"published"`       // in Unix nanoseconds
	State     broker.State      `json:"state,omitempty"` // of a channel's: ready, in_flight or deferred
	Attempt   uint32            `json:"attempt"`         // how often it was delivered
	Until     int64             `json:"until,omitempty"` // when its lease ends or its time comes
	Headers   map[string]string `json:"headers,omitempty"`
	Body      *string           `json:"body,omitempty"`
	Base64    *string           `json:"body_base64,omitempty"` // the body, when it is not text
}

// peek shows messages of a channel that it is not done with, or without a channel those that
// the topic's log holds.
func (s *web) peek(r *request) answer {
	t, ch, params, refused := s.queue(r)
	if refused != nil {
		return *refused
	}
	n := peekDefault
	if params.Has("n") {
		var err error
		if n, err = strconv.Atoi(params.Get("n")); err != nil || n < 1 || n > broker.MaxPeek {
			return badRequest(fmt.Sprintf("INVALID_N - write a number of messages from 1 to %d", broker.MaxPeek))
		}
	}
	start, err := parseFrom(params.Get("from"), time.Now())
	if err != nil {
		return badRequest("INVALID_FROM - " + err.Error())
	}
	seq := start.seq
	if !start.at.IsZero() {
		if seq, err = t.SeqAt(start.at); err != nil {
			return s.did(r, err)
		}
	}
	var messages []broker.Peeked
	if ch != nil {
		messages, err = ch.Peek(seq, n)
	} else {
		messages, err = t.Peek(seq, n)
	}
	if err != nil {
		return s.did(r, err)
	}
	shown := make([]peekedMessage, len(messages))
	for i := range messages {
		shown[i] = show(&messages[i])
	}
	return inJSON(struct {
		Messages []peekedMessage `json:"messages"`
	}{shown})
}

func show(m *broker.Peeked) peekedMessage {
	shown := peekedMessage{
		ID: fmt.Sprintf("%016x", m.Seq), Sequence: m.Seq, Published: m.Published,
		State: m.State, Attempt: m.Attempts, Until: m.Until,
	}
	for key, value := range m.Headers.All() {
		if shown.Headers == nil {
			shown.Headers = make(map[string]string)
		}
		if _, known := shown.Headers[key]; !known { // the first counts
			shown.Headers[key] = value
		}
	}
	body := string(m.Body)
	if utf8.ValidString(body) {
		shown.Body = &body
	} else {
		body = base64.StdEncoding.EncodeToString(m.Body)
		shown.Base64 = &body
	}
	return shown
}

// replay delivers a channel's messages again.
func (s *web) replay(r *request) answer {
	_, ch, params, refused := s.queue(r)
	switch {
	case refused != nil:
		return *refused
	case ch == nil:
		return badRequest("MISSING_ARG_CHANNEL")
	case params.Get("from") == "":
		return badRequest("MISSING_ARG_FROM - " + errBadFrom.Error())
	}
	start, err := parseFrom(params.Get("from"), time.Now())
	if err != nil {
		return badRequest("INVALID_FROM - " + err.Error())
	}
	var back broker.Replayed
	if start.at.IsZero() {
		back, err = ch.Replay(start.seq)
	} else {
		back, err = ch.ReplaySince(start.at)
	}
	switch {
	case errors.Is(err, broker.ErrAhead):
		return badRequest("INVALID_FROM - " + err.Error())
	case err != nil:
		return s.did(r, err)
	}
	return inJSON(struct {
		From     uint64 `json:"from"`     // the first message that comes again
		Messages int64  `json:"messages"` // how many the channel had come past
		Cut      bool   `json:"cut"`      // what was before is not in the log any more
	}{back.From, back.Messages, back.Cut})
}

// queue returns the topic that a request names and, if it names one, the channel; both exist.
func (s *web) queue(r *request) (*broker.Topic, *broker.Channel, url.Values, *answer) {
	refused := func(a answer) (*broker.Topic, *broker.Channel, url.Values, *answer) { return nil, nil, nil, &a }
	params, err := url.ParseQuery(r.URL.RawQuery)
	topic, channel := params.Get("topic"), params.Get("channel")
	switch {
	case err != nil:
		return refused(badRequest("INVALID_REQUEST"))
	case !params.Has("topic"):
		return refused(badRequest("MISSING_ARG_TOPIC"))
	case millrace.CheckName(topic) != nil:
		return refused(badRequest("INVALID_ARG_TOPIC"))
	case channel != "" && millrace.CheckName(channel) != nil:
		return refused(badRequest("INVALID_ARG_CHANNEL"))
	}
	t := s.broker.Lookup(topic)
	if t == nil {
		return refused(refuse(http.StatusNotFound, "TOPIC_NOT_FOUND"))
	}
	if channel == "" {
		return t, nil, params, nil
	}
	ch := t.Lookup(channel)
	if ch == nil {
		return refused(refuse(http.StatusNotFound, "CHANNEL_NOT_FOUND"))
	}
	return t, ch, params, nil
}
