package nsq

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/door"
)

// A node that has heard nothing from a consumer for some time, because its process was stopped,
// ends its connection, and an ephemeral channel with that. Nobody has deleted it: the
// subscription goes on, and gets what is published from then on. One to a channel that is to
// stay ends when it has gone. The process's other connection lasts all the time.
func TestAnEphemeralChannelThatTheNodeHasDroppedIsMadeAgain(t *testing.T) {
	on := serve(t, door.Config{})
	b := opened(t, on.url)
	const dropped, deleted = "dropped" + millrace.EphemeralSuffix, "deleted"
	subs := map[string]millrace.Subscription{}
	for _, channel := range []string{dropped, deleted} {
		s, err := b.Subscribe(t.Context(), "t", channel, millrace.SubscribeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		subs[channel] = s
		if err := on.DeleteChannel("t", channel); err != nil { // which ends the connections of its consumers
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	buf := make([]millrace.Delivery, 1)
	if _, err := subs[deleted].Receive(ctx, buf); !errors.Is(err, millrace.ErrClosed) {
		t.Errorf("of a channel that was deleted: %v", err)
	}
	for {
		if _, err := on.Depth("t", dropped); err == nil {
			break
		}
		select {
		case <-subs[dropped].(*subscription).ctx.Done():
			t.Fatal("the subscription has ended")
		case <-ctx.Done():
			t.Fatal("the channel was not made again")
		case <-time.After(time.Millisecond):
		}
	}
	publish(t, b, millrace.Message{Body: []byte("x")})
	if _, err := subs[dropped].Receive(ctx, buf); err != nil || string(buf[0].Body) != "x" {
		t.Errorf("of a channel that was dropped: %q, %v", buf[0].Body, err)
	}
}
