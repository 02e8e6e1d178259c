package door

import (
	"errors"
	"slices"
	"testing"

	"github.com/millrace/millrace"
)

func TestWhatIsAskedOverHTTPIsDone(t *testing.T) {
	d := opened(t, Config{})
	h := d.Handler(false)
	do := func(request string) {
		t.Helper()
		if got := ask(h, "POST "+request, "").String(); got != "200" {
			t.Fatalf("%s: %s", request, got)
		}
	}
	publish := func() {
		t.Helper()
		if err := d.broker.Publish("orders", []millrace.Message{{Body: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
	}
	do("/topic/create?topic=orders")
	topic := d.broker.Lookup("orders")
	publish()
	do("/topic/empty?topic=orders")
	if depth := topic.Depth(); depth != 0 {
		t.Errorf("an emptied topic holds %d messages", depth)
	}
	do("/channel/create?topic=orders&channel=billing")
	ch := topic.Lookup("billing")
	publish()
	do("/channel/empty?topic=orders&channel=billing")
	if depth := ch.Depth(); depth != (millrace.Depth{}) {
		t.Errorf("an emptied channel holds %v", depth)
	}
	for _, c := range []struct {
		request        string
		topic, channel bool
	}{
		{"/topic/pause?topic=orders", true, false},
		{"/channel/pause?topic=orders&channel=billing", true, true},
		{"/topic/unpause?topic=orders", false, true},
		{"/channel/unpause?topic=orders&channel=billing", false, false},
	} {
		do(c.request)
		stats := d.topicStats(statsQuery{}, everything)[0]
		if got := []bool{topic.Paused(), ch.Paused(), stats.Paused, stats.Channels[0].Paused}; !slices.Equal(got, []bool{c.topic, c.channel, c.topic, c.channel}) {
			t.Errorf("after %s: paused is %v", c.request, got)
		}
	}
	consumer, err := d.broker.Subscribe("orders", "billing", millrace.SubscribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	do("/channel/delete?topic=orders&channel=billing")
	if _, err := consumer.Receive(t.Context(), make([]millrace.Delivery, 1)); !errors.Is(err, millrace.ErrClosed) {
		t.Errorf("the consumer of a deleted channel got %v", err)
	}
	do("/topic/delete?topic=orders")
	if d.broker.Lookup("orders") != nil {
		t.Error("a deleted topic is there")
	}
}
