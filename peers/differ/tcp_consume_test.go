package differ

import (
	"strings"
	"testing"
	"time"
)

// state asks what the script's topic holds, and what its clients say of themselves.
func state() func(*session) {
	return steady("/stats?format=json&topic={T}&include_mem=0")
}

// consumer is a connection that has subscribed to {T}'s channel c.
func consumer(name string) func(*session) {
	return steps{open(name), ask(name, sub("{T}", "c"))}.play
}

// given publishes to {T} by a connection of its own.
func given(bodies ...string) func(*session) {
	return steps{open("giver"), ask("giver", mpub("{T}", bodies...))}.play
}

func TestSubscribe(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	p.run(t, "sub", []script{
		{name: "SUB", steps: steps{open("a"), ask("a", sub("{T}", "c")), state()}},
		{name: "SUB without a channel", steps: steps{open("a"), fails("a", "SUB {T}\n")}},
		{name: "SUB without a topic", steps: steps{open("a"), fails("a", "SUB\n")}},
		{name: "SUB ignores a third argument", steps: steps{open("a"), ask("a", "SUB {T} c more\n")}},
		{name: "SUB twice", steps: steps{consumer("a"), fails("a", sub("{T}", "d"))}},
		{name: "SUB without heartbeats", steps: steps{open("a"), ask("a", identify(`{"heartbeat_interval":-1}`)), fails("a", sub("{T}", "c"))}},
		{name: "SUB to two spaces", steps: steps{open("a"), fails("a", "SUB  {T} c\n")}},
		{name: "SUB to an empty channel", steps: steps{open("a"), fails("a", "SUB {T} \n")}},
		{name: "the first channel gets what was there", steps: steps{
			given("1", "2"), depths(), consumer("a"), send("a", "RDY 5\n"), inAnyOrder("a", 2), depths(),
			open("b"), ask("b", sub("{T}", "d")), send("b", "RDY 5\n"), nothing("b"),
			given("3"), frames("a", 1), frames("b", 1), depths(),
		}},
		{name: "nothing before RDY", steps: steps{given("1"), consumer("a"), nothing("a"), ask("a", "RDY 1\n"), state()}},

		{name: "RDY before SUB", steps: steps{open("a"), fails("a", "RDY 1\n")}},
		{name: "RDY without a count is one", steps: steps{given("1", "2"), consumer("a"), ask("a", "RDY\n"), nothing("a"), state()}},
		{name: "RDY of an empty count", steps: steps{consumer("a"), send("a", "RDY \n"), nothing("a"), state()}},
		{name: "RDY of the most", steps: steps{consumer("a"), send("a", "RDY 2500\n"), nothing("a"), state()}},
		{name: "RDY of more than the most", steps: steps{consumer("a"), fails("a", "RDY 2501\n")}},
		{name: "RDY of less than none", steps: steps{consumer("a"), fails("a", "RDY -1\n")}},
		{name: "RDY of no number", steps: steps{consumer("a"), fails("a", "RDY many\n")}},
		{name: "RDY of a number with a sign", steps: steps{consumer("a"), fails("a", "RDY +1\n")}},
		{name: "RDY of more than 64 bits", steps: steps{consumer("a"), send("a", "RDY 18446744073709551616\n"), shut("a"), end("a")}},
		{name: "RDY of 64 bits", steps: steps{consumer("a"), fails("a", "RDY 18446744073709551615\n")}},
		{name: "RDY of 63 bits and one more", steps: steps{consumer("a"), fails("a", "RDY 9223372036854775808\n")}},
		{name: "RDY with zeros in front", steps: steps{given("1"), consumer("a"), ask("a", "RDY 00000000000000000000001\n")}},
		{name: "RDY ignores a second argument", steps: steps{given("1", "2"), consumer("a"), ask("a", "RDY 1 2\n"), nothing("a")}},
		{name: "RDY is a window", steps: steps{
			given("1", "2", "3", "4"), consumer("a"), send("a", "RDY 2\n"), frames("a", 2), nothing("a"), state(),
			ask("a", "FIN <1>\n"), nothing("a"), send("a", "RDY 3\n"), frames("a", 1), nothing("a"),
		}},
		{name: "RDY of none stops", steps: steps{
			given("1", "2"), consumer("a"), send("a", "RDY 1\n"), frames("a", 1), send("a", "RDY 0\n"), send("a", "FIN <1>\n"), nothing("a"), state(),
			ask("a", "RDY 1\n"),
		}},
		{name: "RDY of less than is in flight", steps: steps{
			given("1", "2", "3"), consumer("a"), send("a", "RDY 2\n"), frames("a", 2), send("a", "RDY 1\n", "FIN <1>\n"), nothing("a"),
			ask("a", "FIN <2>\n"),
		}},

		{name: "CLS before SUB", steps: steps{open("a"), fails("a", "CLS\n")}},
		{name: "CLS", steps: steps{given("1", "2"), consumer("a"), ask("a", "RDY 1\n"), ask("a", "CLS\n"), send("a", "FIN <1>\n"), nothing("a"), state()}},
		{name: "CLS twice", steps: steps{consumer("a"), ask("a", "CLS\n"), fails("a", "CLS\n")}},
		{name: "CLS ignores arguments", steps: steps{consumer("a"), ask("a", "CLS now\n")}},
		{name: "after CLS RDY is ignored", steps: steps{given("1"), consumer("a"), ask("a", "CLS\n"), send("a", "RDY 1\n", "RDY many\n", "RDY -1\n"), nothing("a"), state()}},
		{name: "after CLS what is in flight can be settled", steps: steps{
			given("1", "2", "3"), consumer("a"), send("a", "RDY 3\n"), frames("a", 3), ask("a", "CLS\n"),
			send("a", "FIN <1>\n", "TOUCH <2>\n", "REQ <3> 0\n"), nothing("a"), state(), ask("a", "FIN <1>\n"),
		}},
		{name: "after CLS no SUB", steps: steps{consumer("a"), ask("a", "CLS\n"), fails("a", sub("{T}", "c"))}},
		{name: "after CLS no IDENTIFY", steps: steps{consumer("a"), ask("a", "CLS\n"), fails("a", identify("{}"))}},
	})
}

// FIN, REQ and TOUCH.
func TestSettle(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	scripts := []script{
		{name: "FIN", steps: steps{given("1"), consumer("a"), ask("a", "RDY 2\n"), send("a", "FIN <1>\n"), nothing("a"), state()}},
		{name: "FIN twice", steps: steps{given("1"), consumer("a"), ask("a", "RDY 2\n"), send("a", "FIN <1>\n"), ask("a", "FIN <1>\n"), nothing("a"), state()}},
		{name: "many FINs in one piece, some of them wrong", steps: steps{
			given("1", "2", "3", "4"), consumer("a"), send("a", "RDY 9\n"), frames("a", 4),
			send("a", "FIN <1>\nFIN 0123456789abcdef\nFIN <2>\nFIN <1>\nFIN <4>\nFIN zzzzzzzzzzzzzzzz\n"), frames("a", 3), nothing("a"), state(),
		}},
		{name: "FIN, REQ and TOUCH in one piece", steps: steps{
			given("1", "2", "3"), consumer("a"), send("a", "RDY 9\n"), frames("a", 3),
			send("a", "RDY 0\nFIN <1>\nTOUCH <1>\nREQ <1> 0\nREQ <2> 0\nFIN <2>\nTOUCH <3>\nFIN <3>\nTOUCH <3>\n"), frames("a", 4), nothing("a"), depths(),
		}},
		{name: "FIN of another's", steps: steps{
			given("1"), consumer("a"), ask("a", "RDY 1\n"), consumer("b"), ask("b", "FIN <1>\n"), ask("b", "TOUCH <1>\n"), ask("b", "REQ <1> 0\n"), state(), send("a", "FIN <1>\n"), nothing("a"),
		}},
		{name: "REQ", steps: steps{given("1"), consumer("a"), ask("a", "RDY 1\n"), ask("a", "REQ <1> 0\n"), ask("a", "REQ <1> 0\n"), state()}},
		{name: "REQ in a moment", steps: steps{given("1"), consumer("a"), ask("a", "RDY 1\n"), notBefore(time.Second, steps{send("a", "REQ <1> 1000\n"), frames("a", 1)}.play), state()}},
		{name: "REQ twice", steps: steps{given("1"), consumer("a"), ask("a", "RDY 1\n"), send("a", "REQ <1> 3600000\n"), ask("a", "REQ <1> 0\n"), state()}},
		{name: "REQ for longer than is allowed is for as long as is allowed", steps: steps{
			given("1"), consumer("a"), ask("a", "RDY 1\n"), send("a", "REQ <1> 99999999\n"), nothing("a"), state(),
		}},
		{name: "REQ ignores a third argument", steps: steps{given("1"), consumer("a"), ask("a", "RDY 1\n"), ask("a", "REQ <1> 0 9\n")}},
		{name: "REQ without a delay", steps: steps{consumer("a"), fails("a", "REQ 0123456789abcdef\n")}},
		{name: "REQ in no number", steps: steps{consumer("a"), fails("a", "REQ 0123456789abcdef soon\n")}},
		{name: "REQ in an empty number", steps: steps{given("1"), consumer("a"), ask("a", "RDY 1\n"), ask("a", "REQ <1> \n")}},
		{name: "REQ in the past", steps: steps{consumer("a"), fails("a", "REQ 0123456789abcdef -1\n")}},
		{
			name: "REQ in time that wraps", steps: steps{given("1"), consumer("a"), ask("a", "RDY 1\n"), send("a", "REQ <1> 18446744073710\n"), something("a")},
			because: "a delay beyond 64 bits", ours: []string{
				`giver: response "OK"`, `a: response "OK"`, `a: message <1> attempt 1 "1"`, `a: nothing`,
			},
		},
		{name: "TOUCH", steps: steps{given("1"), consumer("a"), ask("a", "RDY 1\n"), send("a", "TOUCH <1>\nTOUCH <1>\n"), nothing("a"), state()}},
		{name: "TOUCH after FIN", steps: steps{given("1"), consumer("a"), ask("a", "RDY 1\n"), send("a", "FIN <1>\n"), ask("a", "TOUCH <1>\n")}},
		{name: "a message for a client that has gone comes to another", steps: steps{
			given("1"), consumer("a"), ask("a", "RDY 1\n"), ask("a", "REQ <1> 0\n"), hangUp("a"),
			consumer("b"), send("b", "RDY 1\n"), something("b"),
		}, because: "a client that is gone", ours: []string{
			`giver: response "OK"`, `a: response "OK"`, `a: message <1> attempt 1 "1"`, `a: message <1> attempt 2 "1"`,
			`b: response "OK"`, `b: message <1> attempt 3 "1"`,
		}},
	}
	for _, command := range []string{"FIN", "REQ", "TOUCH"} {
		rest := ""
		if command == "REQ" {
			rest = " 0"
		}
		scripts = append(scripts,
			script{name: command + " before SUB", steps: steps{open("a"), fails("a", command+" 0123456789abcdef"+rest+"\n")}},
			script{name: command + " without an id", steps: steps{consumer("a"), fails("a", command+"\n")}},
			script{name: command + " of a short id", steps: steps{consumer("a"), fails("a", command+" 0123456789abcde"+rest+"\n")}},
			script{name: command + " of a long id", steps: steps{consumer("a"), fails("a", command+" 0123456789abcdef0"+rest+"\n")}},
			script{name: command + " of an empty id", steps: steps{consumer("a"), fails("a", command+" "+rest+"\n")}},
			script{name: command + " of an id that is not in flight", steps: steps{consumer("a"), ask("a", command+" 0123456789abcdef"+rest+"\n"), state()}},
			script{name: command + " of an id in capital letters", steps: steps{consumer("a"), ask("a", command+" 0123456789ABCDEF"+rest+"\n")}},
			script{name: command + " of an id that is no number", steps: steps{consumer("a"), ask("a", command+" \x00\x01\xff3456789ABCDEF"+rest+"\n")}},
		)
	}
	p.run(t, "settle", scripts)
}

// What time does: leases, heartbeats, silence.
func TestTime(t *testing.T) {
	t.Parallel()
	p := both(t, func(o *Options) { o.MaxMsgTimeout = 6 * time.Second })
	short := identify(`{"msg_timeout":2000}`)
	p.run(t, "time", []script{
		{name: "a lease ends, and its message comes to another", steps: steps{
			given("1"), open("a"), ask("a", short), ask("a", sub("{T}", "c")), ask("a", "RDY 1\n"), send("a", "RDY 0\n"),
			consumer("b"), send("b", "RDY 1\n"), nothing("b"), wait(500 * time.Millisecond), frames("b", 1), ask("a", "FIN <1>\n"), depths(), send("b", "FIN <1>\n"), nothing("b"), state(),
		}},
		{name: "TOUCH makes a lease longer", steps: steps{
			given("1"), open("a"), ask("a", identify(`{"msg_timeout":4000}`)), ask("a", sub("{T}", "c")), ask("a", "RDY 1\n"), send("a", "RDY 0\n"),
			notBefore(4400*time.Millisecond, steps{wait(2 * time.Second), send("a", "TOUCH <1>\n"), eventually("timeout_count", 1)}.play), depths(),
		}},
		{name: "TOUCH makes a lease no longer than is allowed", steps: steps{
			given("1"), open("a"), ask("a", identify(`{"msg_timeout":6000}`)), ask("a", sub("{T}", "c")), ask("a", "RDY 1\n"), send("a", "RDY 0\n"),
			wait(3 * time.Second), send("a", "TOUCH <1>\n"), within(4500*time.Millisecond, eventually("timeout_count", 1)), ask("a", "TOUCH <1>\n"), depths(),
		}},
		{name: "heartbeats", steps: steps{
			open("a"), ask("a", identify(`{"heartbeat_interval":1000}`)), beat("a"), send("a", "NOP\n"), beat("a"), ask("a", pub("{T}", "x")), beat("a"),
		}},
		{name: "a client that is silent is left", steps: steps{
			open("a"), ask("a", identify(`{"heartbeat_interval":1000}`)), beat("a"), within(2500*time.Millisecond, end("a")),
		}},
		{name: "a consumer that is silent is left", steps: steps{
			open("a"), ask("a", identify(`{"heartbeat_interval":1000}`)), ask("a", sub("{T}", "c")), within(3500*time.Millisecond, end("a")), eventually("client_count", 0), state(),
		}},
		{name: "a client that pauses only inside its commands is not silent", steps: steps{
			open("a"), ask("a", identify(`{"heartbeat_interval":1000}`)), send("a", "NO"), wait(900 * time.Millisecond), send("a", "P\nNO"), wait(900 * time.Millisecond),
			send("a", "P\nNO"), wait(900 * time.Millisecond), send("a", "P\n"), ask("a", pub("{T}", "x")),
		}},
		{name: "a body that trickles in is no sign of life", steps: steps{
			open("a"), ask("a", identify(`{"heartbeat_interval":1000}`)), send("a", "PUB {T}\n", be32(9)), wait(900 * time.Millisecond), send("a", "x"),
			wait(900 * time.Millisecond), send("a", "x"), end("a"),
		}},
		{name: "a client without heartbeats is not left", steps: steps{
			open("a"), ask("a", identify(`{"heartbeat_interval":-1}`)), wait(2500 * time.Millisecond), ask("a", pub("{T}", "x")),
		}},
		{name: "a client that was told a lease ended hears of the message again", steps: steps{
			given("1"), open("a"), ask("a", short), ask("a", sub("{T}", "c")), ask("a", "RDY 1\n"), wait(3 * time.Second), nothing("a"),
			send("a", "NOP\n"), frames("a", 1),
		}, because: "a client whose lease ended", ours: []string{
			`giver: response "OK"`, `a: response "OK"`, `a: response "OK"`, `a: message <1> attempt 1 "1"`, `a: nothing`, `a: message <1> attempt 2 "1"`,
		}},
	})
}

// within notes if a step takes longer.
func within(d time.Duration, step func(*session)) func(*session) {
	return func(s *session) {
		began := time.Now()
		step(s)
		if took := time.Since(began); took > d {
			s.note("took more than %v: %v", d, took)
		}
	}
}

// notBefore notes if a step takes less.
func notBefore(d time.Duration, step func(*session)) func(*session) {
	return func(s *session) {
		began := time.Now()
		step(s)
		if took := time.Since(began); took < d {
			s.note("took less than %v: %v", d, took)
		}
	}
}

// beat waits for a heartbeat.
func beat(name string) func(*session) {
	return func(s *session) {
		line := s.anyFrame(s.conn(name), patience)
		s.note("%s: %s", name, strings.Replace(line, silent, late, 1))
	}
}
