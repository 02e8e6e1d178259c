package differ

import (
	"strings"
	"testing"
	"time"
)

// depths asks what the script's topic holds.
func depths() func(*session) {
	return steady("/stats?format=json&topic={T}&include_mem=0&include_clients=0")
}

// PUB, MPUB and DPUB: their sizes, their errors, and what is there afterwards.
func TestPublish(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	p.run(t, "pub", append(named(), []script{
		{name: "PUB", steps: steps{open("a"), ask("a", pub("{T}", "x")), depths()}},
		{name: "PUB of bytes that are no text", steps: steps{open("a"), ask("a", pub("{T}", "\x00\n\xff")), ask("a", sub("{T}", "c")), ask("a", "RDY 1\n")}},
		{name: "PUB ignores a second argument", steps: steps{open("a"), ask("a", "PUB {T} more\n", sized("x")), depths()}},
		{name: "PUB without a topic", steps: steps{open("a"), fails("a", "PUB\n")}},
		{name: "PUB of nothing", steps: steps{open("a"), fails("a", "PUB {T}\n", be32(0)), depths()}},
		{name: "PUB of a negative size", steps: steps{open("a"), fails("a", "PUB {T}\n", be32(-5))}},
		{name: "PUB of the most bytes", steps: steps{open("a"), ask("a", pub("{T}", strings.Repeat("x", 1<<20))), ask("a", sub("{T}", "c")), ask("a", "RDY 1\n")}},
		{name: "PUB of one byte more", steps: steps{open("a"), fails("a", "PUB {T}\n", be32(1<<20+1)), depths()}},
		{name: "PUB without a size", steps: steps{open("a"), send("a", "PUB {T}\n\x00"), shut("a"), end("a")}},
		{name: "PUB of half a body", steps: steps{open("a"), send("a", "PUB {T}\n", be32(10), "half"), shut("a"), end("a"), depths()}},
		{name: "PUB of what begins with a line of headers", steps: steps{
			open("a"), ask("a", pub("{T}", `MR1 {"k":"v"}`+"\nbody")), ask("a", pub("{T}", `MR1 {"k":`+"\nbody")), ask("a", sub("{T}", "c")), send("a", "RDY 2\n"), inAnyOrder("a", 2), send("a", "REQ <1> 0\n"), frames("a", 1),
		}},
		{name: "PUB by one who consumes", steps: steps{open("a"), ask("a", sub("{T}", "c")), ask("a", pub("{T}", "x")), ask("a", "RDY 1\n")}},
		{name: "PUB by one who has said that it closes", steps: steps{open("a"), ask("a", sub("{T}", "c")), ask("a", "CLS\n"), ask("a", pub("{T}", "x")), depths()}},

		{name: "MPUB", steps: steps{open("a"), ask("a", mpub("{T}", "a", "b", "ccc")), depths(), ask("a", sub("{T}", "c")), send("a", "RDY 9\n"), inAnyOrder("a", 3)}},
		{name: "MPUB of one", steps: steps{open("a"), ask("a", mpub("{T}", "a")), depths()}},
		{name: "MPUB ignores a second argument", steps: steps{open("a"), ask("a", "MPUB {T} more\n", sized(batch("x"))), depths()}},
		{name: "MPUB without a topic", steps: steps{open("a"), fails("a", "MPUB\n")}},
		{name: "MPUB with an empty body", steps: steps{open("a"), fails("a", "MPUB {T}\n", be32(0)), depths()}},
		{name: "MPUB with a body of negative size", steps: steps{open("a"), fails("a", "MPUB {T}\n", be32(-1))}},
		{name: "MPUB with a body that is too big", steps: steps{open("a"), fails("a", "MPUB {T}\n", be32(5<<20+1))}},
		{name: "MPUB without a size", steps: steps{open("a"), send("a", "MPUB {T}\n\x00"), shut("a"), end("a")}},
		{name: "MPUB without a count", steps: steps{open("a"), send("a", "MPUB {T}\n", be32(4), "\x00"), shut("a"), end("a")}},
		{name: "MPUB of no messages", steps: steps{open("a"), fails("a", "MPUB {T}\n", be32(4), be32(0)), depths()}},
		{name: "MPUB of a negative number of messages", steps: steps{open("a"), fails("a", "MPUB {T}\n", be32(4), be32(-1))}},
		{name: "MPUB of more messages than can be", steps: steps{open("a"), fails("a", "MPUB {T}\n", be32(4), be32((5<<20-4)/5+1))}},
		{name: "MPUB with an empty message", steps: steps{open("a"), fails("a", mpub("{T}", "a", "")), depths()}},
		{name: "MPUB with a message of negative size", steps: steps{open("a"), fails("a", "MPUB {T}\n", sized(be32(1)+be32(-1)))}},
		{name: "MPUB with a message that is too big", steps: steps{open("a"), fails("a", "MPUB {T}\n", sized(be32(1)+be32(1<<20+1)))}},
		{name: "MPUB that ends before a message's size", steps: steps{open("a"), send("a", "MPUB {T}\n", be32(20), be32(2), sized("a"), "\x00"), shut("a"), end("a"), depths()}},
		{name: "MPUB that ends in a message", steps: steps{open("a"), send("a", "MPUB {T}\n", be32(20), be32(2), sized("a"), be32(5), "ab"), shut("a"), end("a"), depths()}},
		{name: "MPUB of the most bytes", steps: steps{
			open("a"), ask("a", mpub("{T}", mib(5), mib(5), mib(5), mib(5), mib(4))), depths(),
		}},
		{name: "MPUB of one byte more", steps: steps{
			open("a"), fails("a", "MPUB {T}\n", be32(5<<20+1)), depths(),
		}},
		{name: "MPUB whose messages end before its body", steps: steps{
			open("a"), ask("a", "MPUB {T}\n", sized(batch("a")+"NOP\n")), depths(), ask("a", pub("{T}", "x")),
		}},
		{name: "MPUB whose messages end behind its body", steps: steps{
			open("a"), ask("a", "MPUB {T}\n", be32(4+4+1+2), batch("a", "b")), depths(), ask("a", pub("{T}", "x")),
		}},
		{name: "MPUB with too much at its end", steps: steps{
			open("a"), fails("a", "MPUB {T}\n", sized(batch("a")+"x\n")), depths(),
		}},

		{name: "DPUB at once", steps: steps{open("a"), ask("a", dpub("{T}", "0", "x")), ask("a", sub("{T}", "c")), ask("a", "RDY 1\n")}},
		{name: "DPUB in a moment", steps: steps{
			open("a"), ask("a", sub("{T}", "c")), send("a", "RDY 1\n"), notBefore(time.Second, steps{ask("a", dpub("{T}", "1000", "x")), frames("a", 1)}.play), depths(),
		}},
		{name: "DPUB in more than an hour", steps: steps{open("a"), fails("a", "DPUB {T} 3600001\n")}},
		{name: "DPUB never", steps: steps{open("a"), fails("a", "DPUB {T} 99999999999999999999\n", sized("x"))}},
		{name: "DPUB in the past", steps: steps{open("a"), fails("a", "DPUB {T} -1\n")}},
		{name: "DPUB at no number", steps: steps{open("a"), fails("a", "DPUB {T} soon\n")}},
		{name: "DPUB at an empty number", steps: steps{open("a"), send("a", "DPUB {T} \n", sized("x")), shut("a"), end("a")}},
		{
			name: "DPUB in time that wraps", steps: steps{open("a"), send("a", "DPUB {T} 18446744073710\n", sized("x")), shut("a"), end("a")},
			because: "a delay beyond 64 bits", ours: []string{
				`a: error "E_INVALID DPUB timeout 18446744073710 out of range 0-3600000"`, `a: end`,
			},
		},
		{name: "DPUB without a delay", steps: steps{open("a"), fails("a", "DPUB {T}\n")}},
		{name: "DPUB without a topic", steps: steps{open("a"), fails("a", "DPUB\n")}},
		{name: "DPUB ignores a third argument", steps: steps{open("a"), ask("a", "DPUB {T} 0 more\n", sized("x"))}},
		{name: "DPUB to a bad name", steps: steps{open("a"), fails("a", "DPUB a/b 1\n")}},
		{name: "DPUB of nothing", steps: steps{open("a"), fails("a", "DPUB {T} 1\n", be32(0)), depths()}},
		{name: "DPUB of a negative size", steps: steps{open("a"), fails("a", "DPUB {T} 1\n", be32(-1))}},
		{name: "DPUB of too many bytes", steps: steps{open("a"), fails("a", "DPUB {T} 1\n", be32(1<<20+1))}},
		{name: "DPUB without a size", steps: steps{open("a"), send("a", "DPUB {T} 1\n\x00"), shut("a"), end("a")}},
		{name: "DPUB of half a body", steps: steps{open("a"), send("a", "DPUB {T} 1\n", be32(10), "half"), shut("a"), end("a")}},
	}...))
}

// mib is a message of a MiB, less some bytes.
func mib(less int) string { return strings.Repeat("x", 1<<20-less) }

// named publishes to names that are good, bad, and nearly bad, and subscribes to them.
func named() []script {
	var scripts []script
	for _, name := range []string{
		"a", "A.b_c-9", ".", "-", "_", strings.Repeat("n", 64), strings.Repeat("n", 65), "",
		"e#ephemeral", "#ephemeral", "e#ephemera", "e#ephemeral#ephemeral", "e#Ephemeral", strings.Repeat("n", 54) + "#ephemeral",
		strings.Repeat("n", 55) + "#ephemeral", "a/b", "a:b", "a%20b", "ä", "\xff", "a\tb", "a\"b", "a\\b", "a\x00b", "a\r", "..", "a*",
	} {
		quoted := tell(name)
		scripts = append(scripts,
			script{name: "PUB to " + quoted, steps: steps{open("a"), send("a", pub(name, "x")), shut("a"), end("a")}},
			script{name: "MPUB to " + quoted, steps: steps{open("a"), send("a", mpub(name, "x")), shut("a"), end("a")}},
			script{name: "SUB to " + quoted, steps: steps{open("a"), send("a", sub(name, "c")), shut("a"), end("a")}},
			script{name: "SUB to the channel " + quoted, steps: steps{open("a"), send("a", sub("{T}", name)), shut("a"), end("a")}},
		)
	}
	return scripts
}
