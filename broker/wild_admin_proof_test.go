package broker_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/millrace/millrace/broker"
)

// known is what is known of a channel that is there; nil for another.
func (w *wild) known(topic, channel string) (c *channelClaim) {
	w.know(func(cs claims) {
		if c = cs.topic(topic).channels[channel]; c != nil && c.presence != present {
			c = nil
		}
	})
	return c
}

func (w *wild) channel(topic, channel string) error {
	w.know(func(cs claims) {
		t := cs.topic(topic)
		t.presence = max(t.presence, maybe)
		if c := t.channels[channel]; c == nil || c.presence == absent {
			made := newChannelClaim()
			if t.paused != absent || t.receivers()[0] == &t.waiting {
				made = t.waiting.clone()
			}
			made.presence = maybe
			t.channels[channel] = &made
		}
	})
	if _, err := w.b.Channel(topic, channel); w.check("create channel "+topic+"/"+channel, err) != nil {
		return err
	}
	w.know(func(cs claims) {
		t := cs.topic(topic)
		t.presence, t.channels[channel].presence = present, present
		if t.paused == absent {
			t.waiting = newChannelClaim()
		}
	})
	return nil
}

func (w *wild) deleteChannel(topic, channel string) error {
	w.know(func(cs claims) {
		if c := cs.topic(topic).channels[channel]; c != nil && c.presence != absent {
			c.presence, c.paused = maybe, min(c.paused, maybe)
			clear(c.must)
			clear(c.acked) // what was not written yet is not written any more
		}
	})
	if err := w.check("delete channel "+topic+"/"+channel, w.b.DeleteChannel(topic, channel)); err != nil {
		return err
	}
	w.know(func(cs claims) { delete(cs.topic(topic).channels, channel) })
	return nil
}

func (w *wild) deleteTopic(topic string) error {
	w.know(func(cs claims) {
		t := cs.topic(topic)
		t.presence, t.paused = min(t.presence, maybe), min(t.paused, maybe)
		clear(t.waiting.must)
		for _, c := range t.channels {
			c.presence, c.paused = min(c.presence, maybe), min(c.paused, maybe)
			clear(c.must)
			clear(c.acked) // what was not written yet is not written any more
		}
	})
	if err := w.check("delete topic "+topic, w.b.DeleteTopic(topic)); err != nil {
		return err
	}
	w.know(func(cs claims) { delete(cs, topic); cs.topic(topic) })
	return nil
}

func (w *wild) pauseTopic(topic string, pause bool) {
	w.know(func(cs claims) {
		if cs.topic(topic).presence != present {
			topic = ""
		}
	})
	if topic == "" {
		return
	}
	set := func(p presence) {
		w.know(func(cs claims) {
			t := cs.topic(topic)
			if t.paused = p; p == absent && t.receivers()[0] != &t.waiting {
				t.waiting = newChannelClaim()
			}
		})
	}
	w.try(topic, func() error {
		change, after := w.b.Lookup(topic).Unpause, absent
		if pause {
			change, after = w.b.Lookup(topic).Pause, present
		}
		w.know(func(cs claims) {
			if t := cs.topic(topic); t.paused != after {
				t.paused = maybe
			}
		})
		err := w.check(fmt.Sprint("pause topic ", topic, pause), change())
		if err == nil {
			set(after)
		}
		return err
	})
}

func (w *wild) pauseChannel(topic, channel string, pause bool) {
	if w.known(topic, channel) == nil {
		return
	}
	w.try(topic, func() error {
		ch := w.b.Lookup(topic).Lookup(channel)
		change, after := ch.Unpause, absent
		if pause {
			change, after = ch.Pause, present
		}
		set := func(p presence) {
			w.know(func(cs claims) { cs.topic(topic).channels[channel].paused = p })
		}
		if w.known(topic, channel).paused != after {
			set(maybe)
		}
		err := w.check(fmt.Sprint("pause channel ", topic, "/", channel, pause), change())
		if err == nil {
			set(after)
		}
		return err
	})
}

// emptyTopic takes out what waits in the topic itself.
func (w *wild) emptyTopic(topic string) error {
	var gone []string
	w.know(func(cs claims) {
		t := cs.topic(topic)
		if t.presence != present {
			return
		}
		gone = slices.Collect(maps.Keys(t.waiting.may))
		clear(t.waiting.must)
		for _, c := range t.channels {
			for _, body := range gone {
				delete(c.must, body)
			}
		}
	})
	t := w.b.Lookup(topic)
	if t == nil {
		return nil
	}
	if err := w.check("empty topic "+topic, t.Empty()); err != nil {
		return err
	}
	w.know(func(cs claims) {
		t := cs.topic(topic)
		for _, c := range append(slices.Collect(maps.Values(t.channels)), &t.waiting) {
			for _, body := range gone {
				delete(c.may, body)
			}
		}
	})
	return nil
}

// emptyChannel takes out all that the channel has got.
func (w *wild) emptyChannel(topic, channel string) error {
	c := w.known(topic, channel)
	if c == nil {
		return nil
	}
	var gone []string
	w.know(func(cs claims) {
		for body := range c.may {
			if waits := cs.topic(topic).waiting.may; !waits[body] {
				gone = append(gone, body)
				delete(c.must, body)
			}
		}
	})
	if err := w.check("empty channel "+topic+"/"+channel, w.b.Lookup(topic).Lookup(channel).Empty()); err != nil {
		return err
	}
	w.know(func(claims) {
		for _, body := range gone {
			delete(c.may, body)
		}
	})
	return nil
}

// verifyPauses holds what is paused to the claims, and unpauses it all.
func (tc *topicClaim) verifyPauses(t *testing.T, topic *broker.Topic) {
	t.Helper()
	agree := func(what string, paused bool, claim presence) {
		if paused && claim == absent || !paused && claim == present {
			t.Errorf("%s: is it paused? %t", what, paused)
		}
	}
	agree("topic "+topic.Name(), topic.Paused(), tc.paused)
	errs := []error{topic.Unpause()}
	for _, ch := range topic.Channels() {
		if c := tc.channels[ch.Name()]; c != nil {
			agree("channel "+ch.Name()+" of "+topic.Name(), ch.Paused(), c.paused)
		}
		errs = append(errs, ch.Unpause())
	}
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}
