package broker_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// claims is what must be true of a broker's directory after a crash at this moment:
// what was said to be so is so, and what was begun may or may not be so.
type claims map[string]*topicClaim

type presence int

const (
	absent presence = iota
	maybe
	present
)

type topicClaim struct {
	presence
	paused   presence
	waiting  channelClaim // for the first channel
	channels map[string]*channelClaim
	doubtful map[string]bool // bodies whose publish failed: any channel may deliver them one day
}

type channelClaim struct {
	presence
	paused presence
	may    map[string]bool      // bodies that may be delivered
	must   map[string]time.Time // bodies that must be delivered, and not before then
	acked  map[string]bool
}

func newChannelClaim() channelClaim {
	return channelClaim{may: map[string]bool{}, must: map[string]time.Time{}, acked: map[string]bool{}}
}

func (c channelClaim) clone() channelClaim {
	return channelClaim{c.presence, c.paused, maps.Clone(c.may), maps.Clone(c.must), maps.Clone(c.acked)}
}

func (cs claims) clone() claims {
	out := claims{}
	for name, t := range cs {
		copied := &topicClaim{t.presence, t.paused, t.waiting.clone(), map[string]*channelClaim{}, maps.Clone(t.doubtful)}
		for name, c := range t.channels {
			cc := c.clone()
			copied.channels[name] = &cc
		}
		out[name] = copied
	}
	return out
}

func (cs claims) topic(name string) *topicClaim {
	if cs[name] == nil {
		cs[name] = &topicClaim{waiting: newChannelClaim(), channels: map[string]*channelClaim{}, doubtful: map[string]bool{}}
	}
	return cs[name]
}

// receivers are those that get what is published now.
func (tc *topicClaim) receivers() []*channelClaim {
	var all []*channelClaim
	for _, c := range tc.channels {
		if c.presence != absent {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		all = append(all, &tc.waiting)
	}
	return all
}

// verify opens what a crash has left and holds it to the claims.
func (cs claims) verify(t *testing.T, disk *vfs.Mem) {
	t.Helper()
	opts := broker.Options{Dir: "data", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}.On(disk).WithSegments(crashSegment)
	b, err := broker.Open(opts)
	if err != nil {
		t.Errorf("after the crash: %v", err)
		return
	}
	cs.verifyLive(t, b)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	// All was acked: a clean stop keeps that.
	if b, err = broker.Open(opts); err != nil {
		t.Error(err)
		return
	}
	for _, topic := range b.Topics() {
		for _, ch := range topic.Channels() {
			if got := drain(t, b, topic.Name(), ch.Name()); len(got) > 0 {
				t.Errorf("channel %s of %s delivers %v after all was acked and the broker closed", ch.Name(), topic.Name(), got)
			}
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// verifyLive holds an open broker to the claims, and acks everything.
func (cs claims) verifyLive(t *testing.T, b *broker.Broker) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(cs)) {
		cs[name].verify(t, b, name)
	}
	for _, topic := range b.Topics() {
		if cs[topic.Name()] == nil {
			t.Errorf("topic %s was never made", topic.Name())
		}
	}
}

func (tc *topicClaim) verify(t *testing.T, b *broker.Broker, name string) {
	t.Helper()
	topic := b.Lookup(name)
	if there := topic != nil; there && tc.presence == absent || !there && tc.presence == present {
		t.Errorf("topic %s: is it there? %t", name, there)
	}
	if topic == nil {
		return
	}
	tc.verifyPauses(t, topic)
	channels := 0
	for _, ch := range slices.Sorted(maps.Keys(tc.channels)) {
		c := tc.channels[ch]
		there := topic.Lookup(ch) != nil
		if there && c.presence == absent || !there && c.presence == present {
			t.Errorf("channel %s of %s: is it there? %t", ch, name, there)
		}
		if there {
			channels++
			c.verify(t, b, name, ch, tc.doubtful)
		}
	}
	if channels == 0 {
		tc.waiting.verify(t, b, name, "probe", tc.doubtful)
	}
	if err := b.Publish(name, messages("afterwards")); err != nil {
		t.Errorf("topic %s takes nothing more: %v", name, err)
	}
	for _, ch := range topic.Channels() {
		if got := drain(t, b, name, ch.Name()); !slices.Equal(got, []string{"afterwards"}) {
			t.Errorf("channel %s of %s gets %v of what is published later", ch.Name(), name, got)
		}
	}
}

func (c *channelClaim) verify(t *testing.T, b *broker.Broker, topic, channel string, doubtful map[string]bool) {
	t.Helper()
	now := time.Now()
	got := drain(t, b, topic, channel)
	for _, body := range got {
		if c.must[body].After(now) {
			t.Errorf("channel %s of %s delivers %s too soon", channel, topic, body)
		}
	}
	unseen := func(body string) bool { return !slices.Contains(got, body) }
	if slices.ContainsFunc(slices.Collect(maps.Keys(c.may)), unseen) || slices.ContainsFunc(slices.Collect(maps.Keys(doubtful)), unseen) {
		time.Sleep(deferral)
		got = append(got, drain(t, b, topic, channel)...)
	}
	seen := map[string]bool{}
	for _, body := range got {
		if !c.may[body] && !doubtful[body] {
			t.Errorf("channel %s of %s delivers %s, which it should never", channel, topic, body)
		}
		if seen[body] {
			t.Errorf("channel %s of %s delivers %s twice", channel, topic, body)
		}
		seen[body] = true
	}
	for body := range c.must {
		if !seen[body] {
			t.Errorf("channel %s of %s has lost %s; it delivers %v", channel, topic, body, got)
		}
	}
}

// drain receives and acks all that is there, and returns the bodies.
func drain(t *testing.T, b *broker.Broker, topic, channel string) []string {
	t.Helper()
	c, err := b.Subscribe(topic, channel, millrace.SubscribeOptions{Prefetch: 7})
	if err != nil {
		t.Error(err)
		return nil
	}
	defer c.Close()
	var bodies []string
	buf := make([]millrace.Delivery, 3)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		n, err := c.Receive(ctx, buf)
		cancel()
		if err != nil {
			return bodies
		}
		for _, d := range buf[:n] {
			bodies = append(bodies, string(d.Body))
		}
		ack(t, c, buf[:n]...)
	}
}

func (cs claims) String() string {
	text := ""
	for _, name := range slices.Sorted(maps.Keys(cs)) {
		text += fmt.Sprintf("%s: %+v\n", name, *cs[name])
	}
	return text
}
