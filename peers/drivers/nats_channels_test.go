package drivers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/driver/nats"
)

// An ephemeral channel stays while somebody is subscribed to it, even if he takes nothing;
// it goes some seconds after his death, and he gets a new one if he was not dead after all.
func TestNATSEphemeralChannels(t *testing.T) {
	t.Parallel()
	const channel = "c" + millrace.EphemeralSuffix
	n := startNATS(t, nil)
	p := newNATSProxy(t, n.Addr)
	u, far := useNATS(t, n.URL), useNATS(t, p.URL)
	u.must(u.Declare(t.Context(), "t", "stays"))
	paused := u.subscribe("t", channel, millrace.SubscribeOptions{})
	paused.SetPrefetch(0)
	dying := far.subscribe("t", "d"+millrace.EphemeralSuffix, millrace.SubscribeOptions{})
	p.Cut(true)
	gone := func() bool {
		_, err := u.Depth(t.Context(), "t", "d"+millrace.EphemeralSuffix)
		return errors.Is(err, millrace.ErrNotFound)
	}
	for end := time.Now().Add(15 * time.Second); !gone(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a dead consumer's ephemeral channel does not go")
		}
	}
	time.Sleep(4 * time.Second) // longer than that takes
	u.publish("t", "1")
	paused.SetPrefetch(1)
	u.wantBodies(u.receive(paused, 1), "1")

	p.Cut(false)
	for end := time.Now().Add(15 * time.Second); gone(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a consumer that is back has no channel")
		}
	}
	u.publish("t", "2")
	u.wantBodies(far.receive(dying, 1), "2")
}

// Who was away while his channel was deleted is told when he is back.
func TestNATSSubscriptionEndsWhenItsChannelWasDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	n := startNATS(t, nil)
	p := newNATSProxy(t, n.Addr)
	u, far := useNATS(t, n.URL), useNATS(t, p.URL)
	sub := far.subscribe("t", "c", millrace.SubscribeOptions{})
	p.Cut(true)
	u.must(u.Delete(t.Context(), "t", "c"))
	p.Cut(false)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if _, err := sub.Receive(ctx, make([]millrace.Delivery, 1)); !errors.Is(err, millrace.ErrClosed) || !strings.Contains(err.Error(), "was deleted") {
		t.Errorf("receive: %v", err)
	}
}

// Many go and come at the same time, and the topic keeps what is published to it.
func TestNATSTopicsKeepMessagesWhileChannelsComeAndGo(t *testing.T) {
	t.Parallel()
	n := startNATS(t, nil)
	u := useNATS(t, n.URL)
	u.must(u.Declare(t.Context(), "t", "main"))
	done := make(chan error, 8)
	for i := range 4 {
		for range 2 { // each of them twice, in two connections
			other := useNATS(t, n.URL)
			go func() {
				var err error
				for range 10 {
					name := fmt.Sprint("c", i)
					err = errors.Join(err, other.Declare(t.Context(), "t", name), other.Delete(t.Context(), "t", name))
				}
				done <- err
			}()
		}
	}
	var want []string
	for i := range 200 {
		want = append(want, strconv.Itoa(i))
		u.publish("t", want[i])
	}
	for range 8 {
		u.must(<-done)
	}
	u.wantBodies(u.receive(u.subscribe("t", "main", millrace.SubscribeOptions{}), 200), want...)
	s, err := natsStreams(t, n.URL).Stream(t.Context(), nats.Stream("t"))
	u.must(err)
	names := slices.Collect(func(yield func(string) bool) {
		for name := range s.ConsumerNames(t.Context()).Name() {
			if !yield(name) {
				return
			}
		}
	})
	if !slices.Equal(names, []string{"main"}) {
		t.Errorf("the stream has the consumers %q", names)
	}
}
