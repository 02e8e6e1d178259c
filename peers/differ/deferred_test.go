package differ

import "testing"

// What is deferred is counted as that from the beginning, and not as what waits.
func TestDeferredCounts(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	verb := func(verb string) func(*session) { return web("POST", "/channel/"+verb+"?topic={T}&channel=c") }
	p.run(t, "deferred", []script{
		{name: "DPUB in an hour", steps: steps{open("a"), ask("a", sub("{T}", "c")), ask("a", dpub("{T}", "3600000", "x")), eventually("deferred_count", 1), depths()}},
		{name: "pub in an hour", steps: steps{consumer("a"), web("POST", "/pub?topic={T}&defer=3600000", "x"), eventually("deferred_count", 1), depths()}},
		{name: "before there is a channel", steps: steps{
			open("a"), ask("a", dpub("{T}", "3600000", "x")), given("1"), depths(), verb("create"), eventually("deferred_count", 1), eventually("depth", 1), depths(),
		}},
		{name: "behind others, and to channels that nobody reads", steps: steps{
			given("1", "2"), verb("create"), eventually("depth", 2), web("POST", "/channel/create?topic={T}&channel=d"), ask("giver", dpub("{T}", "3600000", "3")), given("4"), eventually("deferred_count", 1), eventually("depth", 3), depths(),
		}},
		{name: "to a paused topic", steps: steps{
			web("POST", "/topic/create?topic={T}"), verb("create"), web("POST", "/topic/pause?topic={T}"), open("a"), ask("a", dpub("{T}", "3600000", "x")), depths(),
			web("POST", "/topic/unpause?topic={T}"), eventually("deferred_count", 1), depths(),
		}},
		{name: "to a paused channel, which is then emptied", steps: steps{
			web("POST", "/topic/create?topic={T}"), verb("create"), verb("pause"), open("a"), ask("a", dpub("{T}", "3600000", "x")), ask("a", pub("{T}", "y")), eventually("deferred_count", 1), eventually("depth", 1), depths(),
			verb("empty"), depths(),
		}},
		{name: "an empty topic has none", steps: steps{
			open("a"), ask("a", dpub("{T}", "3600000", "x")), web("POST", "/topic/empty?topic={T}"), verb("create"), depths(),
		}},
	})
}
