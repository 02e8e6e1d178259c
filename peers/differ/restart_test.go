package differ

import (
	"sync"
	"testing"

	"github.com/millrace/millrace/peers/node"
)

// acrossRestart plays steps, stops the broker, starts it again with what it has stored,
// and plays more.
func acrossRestart(t *testing.T, start node.Start, topic string, before, after steps) []string {
	dir := t.TempDir()
	n, err := start(dir, ordinary)
	if err != nil {
		t.Error(err)
		return nil
	}
	s := newSession(t, n, topic)
	before.play(s)
	s.close()
	if err := n.Stop(); err != nil {
		t.Error(err)
	}
	if n, err = start(dir, ordinary); err != nil {
		t.Error(err)
		return s.log
	}
	defer func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	}()
	s.node = n
	after.play(s)
	s.close()
	return s.log
}

// What was stored is there after a restart, and is what it was.
func TestRestart(t *testing.T) {
	t.Parallel()
	channel := func(verb, name string) func(*session) {
		return web("POST", "/channel/"+verb+"?topic={T}&channel="+name)
	}
	topic := func(verb, name string) func(*session) { return web("POST", "/topic/"+verb+"?topic="+name) }
	clean := func(names ...string) steps {
		var st steps
		for _, name := range names {
			st = append(st, settled(pick("/stats?format=json&include_clients=0&include_mem=0&topic="+name, `"(topic_name|channel_name|depth|in_flight_count|deferred_count|paused)":[^,}]+`)))
		}
		return st
	}
	for i, c := range []struct {
		script
		before steps
	}{
		{
			before: steps{
				topic("create", "{T}"), channel("create", "c"), channel("create", "d"), channel("pause", "d"), given("1", "2", "3", "4"),
				consumer("a"), send("a", "RDY 2\n"), frames("a", 2), send("a", "FIN <1>\n", "RDY 0\n"), ask("a", "FIN <1>\n"),
				topic("create", "{T}.paused"), topic("pause", "{T}.paused"), web("POST", "/pub?topic={T}.paused", "x"),
				web("POST", "/pub?topic={T}.alone", "x"), topic("create", "{T}.e%23ephemeral"), channel("create", "e%23ephemeral"),
			},
			script: script{name: "topics, channels, pauses and messages", steps: append(
				clean("{T}", "{T}.paused", "{T}.alone", "{T}.e%23ephemeral"),
				consumer("a"), send("a", "RDY 9\n"), inAnyOrder("a", 3), depthOf("d"), channel("unpause", "d"),
				open("b"), ask("b", sub("{T}", "d")), send("b", "RDY 9\n"), inAnyOrder("b", 4),
			)},
		},
		{
			before: steps{consumer("a"), ask("a", dpub("{T}", "3600000", "1")), given("2"), ask("a", "RDY 1\n"), send("a", "REQ <1> 3600000\n"), eventually("in_flight_count", 0)},
			script: script{
				name: "deferrals", because: "a deferral that overflows",
				steps: steps{consumer("a"), send("a", "RDY 9\n"), something("a")},
				ours: []string{
					`a: response "OK"`, `a: response "OK"`, `giver: response "OK"`, `a: message <1> attempt 1 "2"`,
					"in_flight_count is 0 to 0", `a: response "OK"`, `a: nothing`,
				},
			},
		},
		{
			before: steps{given("1"), consumer("a"), ask("a", "RDY 1\n"), send("a", "FIN <1>\n"), eventually("in_flight_count", 0)},
			script: script{name: "what is finished does not come again", steps: steps{consumer("a"), send("a", "RDY 1\n"), nothing("a")}},
		},
		{
			before: steps{given("1"), web("POST", "/topic/delete?topic={T}"), topic("create", "{T}.b"), web("POST", "/channel/create?topic={T}.b&channel=c"), web("POST", "/channel/delete?topic={T}.b&channel=c")},
			script: script{name: "what is deleted does not come again", steps: clean("{T}", "{T}.b")},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			name := "restart." + string(rune('a'+i))
			var theirs, ours []string
			var playing sync.WaitGroup
			playing.Go(func() { theirs = acrossRestart(t, node.NSQD, name, c.before, c.steps) })
			playing.Go(func() { ours = acrossRestart(t, node.Millrace, name, c.before, c.steps) })
			playing.Wait()
			c.judge(t, name, theirs, ours)
		})
	}
}

// depthOf notes the depth of a channel of {T}.
func depthOf(channel string) func(*session) {
	return settled(pick("/stats?format=json&include_clients=0&include_mem=0&topic={T}&channel="+channel, `"channel_name":"\w+","depth":\d+`))
}
