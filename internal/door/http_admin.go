package door

import (
	"net/http"
	"net/url"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// Creating, deleting, emptying and pausing. Which arguments are checked, in which order,
// and what is said of them is nsqd's.

func (s *web) createTopic(r *request) answer {
	if _, _, refused := s.topicToPublish(r); refused != nil {
		return *refused
	}
	return done()
}

func (s *web) deleteTopic(r *request) answer {
	return s.withTopic(r, func(t *broker.Topic) error { return s.broker.DeleteTopic(t.Name()) })
}

func (s *web) emptyTopic(r *request) answer {
	if params, err := url.ParseQuery(r.URL.RawQuery); err == nil && params.Has("topic") && millrace.CheckName(params.Get("topic")) != nil {
		return badRequest("INVALID_TOPIC")
	}
	return s.withTopic(r, (*broker.Topic).Empty)
}

func (s *web) pauseTopic(r *request) answer   { return s.withTopic(r, (*broker.Topic).Pause) }
func (s *web) unpauseTopic(r *request) answer { return s.withTopic(r, (*broker.Topic).Unpause) }

func (s *web) createChannel(r *request) answer {
	return s.withTopicAndChannel(r, func(t *broker.Topic, channel string) answer {
		_, err := t.Channel(channel)
		return s.did(r, err)
	})
}

func (s *web) deleteChannel(r *request) answer {
	return s.withChannel(r, func(t *broker.Topic, ch *broker.Channel) error { return t.DeleteChannel(ch.Name()) })
}

func (s *web) emptyChannel(r *request) answer {
	return s.withChannel(r, func(_ *broker.Topic, ch *broker.Channel) error { return ch.Empty() })
}

func (s *web) pauseChannel(r *request) answer {
	return s.withChannel(r, func(_ *broker.Topic, ch *broker.Channel) error { return ch.Pause() })
}

func (s *web) unpauseChannel(r *request) answer {
	return s.withChannel(r, func(_ *broker.Topic, ch *broker.Channel) error { return ch.Unpause() })
}

// withTopic does something to a topic that exists.
func (s *web) withTopic(r *request, do func(*broker.Topic) error) answer {
	params, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case err != nil:
		return badRequest("INVALID_REQUEST")
	case !params.Has("topic"):
		return badRequest("MISSING_ARG_TOPIC")
	}
	t := s.broker.Lookup(params.Get("topic"))
	if t == nil {
		return refuse(http.StatusNotFound, "TOPIC_NOT_FOUND")
	}
	return s.did(r, do(t))
}

// withTopicAndChannel does something to a topic that exists and a channel that may not.
func (s *web) withTopicAndChannel(r *request, do func(*broker.Topic, string) answer) answer {
	params, err := url.ParseQuery(r.URL.RawQuery)
	topic, channel := params.Get("topic"), params.Get("channel")
	switch {
	case err != nil:
		return badRequest("INVALID_REQUEST")
	case !params.Has("topic"):
		return badRequest("MISSING_ARG_TOPIC")
	case millrace.CheckName(topic) != nil:
		return badRequest("INVALID_ARG_TOPIC")
	case !params.Has("channel"):
		return badRequest("MISSING_ARG_CHANNEL")
	case millrace.CheckName(channel) != nil:
		return badRequest("INVALID_ARG_CHANNEL")
	}
	t := s.broker.Lookup(topic)
	if t == nil {
		return refuse(http.StatusNotFound, "TOPIC_NOT_FOUND")
	}
	return do(t, channel)
}

// withChannel does something to a channel that exists.
func (s *web) withChannel(r *request, do func(*broker.Topic, *broker.Channel) error) answer {
	return s.withTopicAndChannel(r, func(t *broker.Topic, channel string) answer {
		ch := t.Lookup(channel)
		if ch == nil {
			return refuse(http.StatusNotFound, "CHANNEL_NOT_FOUND")
		}
		return s.did(r, do(t, ch))
	})
}

// did says how it went.
func (s *web) did(r *request, err error) answer {
	if err != nil {
		s.cfg.Logger.Error("administration over HTTP failed", "uri", r.URL.RequestURI(), "error", err)
		return failed(err)
	}
	return done()
}
