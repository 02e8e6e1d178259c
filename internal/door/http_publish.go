package door

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/nsqwire"
)

// pub publishes the body as one message. Like nsqd it looks at the body first.
func (s *web) pub(r *request) answer {
	body, refused := readBody(r.Request, s.cfg.MaxMsgSize, "MSG_TOO_BIG")
	if refused != nil {
		return *refused
	}
	if len(body) == 0 {
		return badRequest("MSG_EMPTY")
	}
	params, topic, refused := s.topicToPublish(r)
	if refused != nil {
		return *refused
	}
	var msg millrace.Message
	_, msg.Headers, msg.Body = nsqwire.CutHeaders(nil, body)
	if params.Has("defer") {
		ms, err := strconv.ParseInt(params.Get("defer"), 10, 64)
		if err != nil || ms < 0 || ms > int64(s.cfg.MaxReqTimeout/time.Millisecond) {
			return badRequest("INVALID_DEFER")
		}
		msg.Delay = time.Duration(ms) * time.Millisecond
	}
	return s.publish(topic, []millrace.Message{msg})
}

// mpub publishes a message for each line of the body, or with binary a batch as MPUB has
// it. They share the memory of the body.
func (s *web) mpub(r *request) answer {
	if r.ContentLength > int64(s.cfg.MaxBodySize) {
		return refuse(http.StatusRequestEntityTooLarge, "BODY_TOO_BIG")
	}
	params, topic, refused := s.topicToPublish(r)
	if refused != nil {
		return *refused
	}
	body, err := readUpTo(r.Request, int64(s.cfg.MaxBodySize)+1)
	if !params.Has("binary") || isFalse(params.Get("binary")) {
		if err != nil {
			return refuse(http.StatusInternalServerError, "INTERNAL_ERROR")
		}
		return s.publishLines(topic, body)
	}
	// What is behind a batch does not matter, and what breaks off in one is its error.
	count, err := nsqwire.SplitBatch(body, s.cfg.MaxMsgSize, s.cfg.MaxBodySize)
	if told := (*nsqwire.Error)(nil); errors.As(err, &told) {
		return refuse(http.StatusRequestEntityTooLarge, told.Code[len("E_"):])
	}
	msgs := make([]millrace.Message, 0, count)
	var headers millrace.Headers // of all of them
	for payload := range nsqwire.Bodies(body) {
		var msg millrace.Message
		headers, msg.Headers, msg.Body = nsqwire.CutHeaders(headers, payload)
		msgs = append(msgs, msg)
	}
	return s.publish(topic, msgs)
}

// isFalse says whether the value of binary is one that means text. Like nsqd it takes what
// it does not know for true.
func isFalse(s string) bool { return s == "false" || s == "0" }

// publishLines publishes a message for each line that is not empty. Of a body that is too
// big there is one byte too many; what is wrong before that is told first.
func (s *web) publishLines(topic string, body []byte) answer {
	msgs := make([]millrace.Message, 0, bytes.Count(body, newline)+1)
	end := 0
	for line := range bytes.SplitSeq(body, newline) {
		if end += len(line) + len(newline); end > s.cfg.MaxBodySize && len(body) > s.cfg.MaxBodySize {
			return refuse(http.StatusRequestEntityTooLarge, "BODY_TOO_BIG")
		}
		if len(line) > s.cfg.MaxMsgSize {
			return refuse(http.StatusRequestEntityTooLarge, "MSG_TOO_BIG")
		}
		if len(line) > 0 {
			msgs = append(msgs, millrace.Message{Body: line})
		}
	}
	return s.publish(topic, msgs)
}

var newline = []byte("\n")

// publish publishes the messages to the topic.
func (s *web) publish(topic string, msgs []millrace.Message) answer {
	if err := s.broker.Publish(topic, msgs); err != nil {
		s.cfg.Logger.Error("publishing over HTTP failed", "topic", topic, "messages", len(msgs), "error", err)
		return failed(err)
	}
	return text(nsqwire.OK)
}

// topicToPublish returns the parameters of a request and the topic among them. Like nsqd it
// creates the topic, whatever is wrong with the rest of the request.
func (s *web) topicToPublish(r *request) (params url.Values, topic string, refused *answer) {
	no := func(a answer) (url.Values, string, *answer) { return nil, "", &a }
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return no(badRequest("INVALID_REQUEST"))
	}
	if !params.Has("topic") {
		return no(badRequest("MISSING_ARG_TOPIC"))
	}
	topic = params.Get("topic")
	if millrace.CheckName(topic) != nil {
		return no(badRequest("INVALID_TOPIC"))
	}
	if _, err := s.Topic(topic); err != nil {
		s.cfg.Logger.Error("a topic was not created over HTTP", "topic", topic, "error", err)
		return no(failed(err))
	}
	return params, topic, nil
}

// growAtFirst is the most memory that a body gets before any of it is there.
const growAtFirst = 64 << 10

// readBody reads a body of at most that many bytes.
func readBody(r *http.Request, most int, tooBig string) ([]byte, *answer) {
	no := func(status int, reason string) ([]byte, *answer) {
		a := refuse(status, reason)
		return nil, &a
	}
	if r.ContentLength > int64(most) {
		return no(http.StatusRequestEntityTooLarge, tooBig)
	}
	switch body, err := readUpTo(r, int64(most)+1); {
	case err != nil:
		return no(http.StatusInternalServerError, "INTERNAL_ERROR")
	case len(body) > most:
		return no(http.StatusRequestEntityTooLarge, tooBig)
	default:
		return body, nil
	}
}

// readUpTo reads a body, or so many bytes of it if it is longer.
func readUpTo(r *http.Request, most int64) ([]byte, error) {
	var body bytes.Buffer
	if r.ContentLength > 0 {
		// A small body is read without growing again. A large one has to come before
		// there is memory for it.
		body.Grow(int(min(r.ContentLength, growAtFirst)) + bytes.MinRead)
	}
	_, err := body.ReadFrom(io.LimitReader(r.Body, most))
	return body.Bytes(), err
}
