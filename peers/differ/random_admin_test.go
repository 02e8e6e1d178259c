package differ

import (
	"net/http"
	"testing"

	"pgregory.net/rapid"
)

// Whatever is done to topics and channels, in whatever order, they hold the same.
func TestRandomAdmin(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	rapid.Check(t, func(r *rapid.T) {
		tw := p.twins(t, r, freshTopic())
		defer tw.close()
		for range rapid.IntRange(1, 20).Draw(r, "steps") {
			target, body := deed(r)
			tw.do(web(http.MethodPost, target, body))
			// Before the next one nsqd has moved what it moves.
			for _, topic := range adminTopics {
				tw.soon(func(s *session) {
					s.web("http://"+s.node.HTTP, http.MethodGet, "/stats?format=json&include_mem=0&include_clients=0&topic="+topic, "")
				})
			}
		}
	})
}

// adminTopics are good names, in which # is %23.
var adminTopics = []string{"{T}.a", "{T}.b"}

// deed is something to ask of the HTTP door: half of the time it publishes.
func deed(r *rapid.T) (target, body string) {
	topic := rapid.SampledFrom(adminTopics).Draw(r, "topic")
	channel := rapid.SampledFrom([]string{"c", "d", "e%23ephemeral"}).Draw(r, "channel")
	switch kind := rapid.IntRange(0, 9).Draw(r, "kind"); {
	case kind < 2:
		return "/pub?topic=" + topic, "one"
	case kind == 2:
		return "/mpub?topic=" + topic, "a\nbb\nccc"
	case kind == 3:
		return "/pub?topic=" + topic + "&defer=3600000", "later"
	}
	verb := rapid.SampledFrom([]string{"create", "create", "delete", "empty", "pause", "unpause"}).Draw(r, "verb")
	if rapid.Bool().Draw(r, "of a channel") {
		return "/channel/" + verb + "?topic=" + topic + "&channel=" + channel, ""
	}
	return "/topic/" + verb + "?topic=" + topic, ""
}
