package differ

import (
	"strings"
	"testing"
)

// How a connection begins, and what a line of it is.
func TestLines(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	p.run(t, "lines", []script{
		{name: "another magic is refused", steps: steps{connect("a"), fails("a", "  V1")}},
		{name: "HTTP is refused", steps: steps{connect("a"), fails("a", "GET ")}},
		{name: "no magic, no answer", steps: steps{connect("a"), send("a", "  V"), shut("a"), end("a")}},
		{name: "the magic may come in pieces", steps: steps{
			connect("a"), send("a", " "), wait(aMoment / 4), send("a", " V"), wait(aMoment / 4), send("a", "2PU"),
			wait(aMoment / 4), send("a", "B {T}\n"), wait(aMoment / 4), send("a", "\x00\x00"), wait(aMoment / 4),
			send("a", "\x00\x02h"), wait(aMoment / 4), ask("a", "i"), shut("a"), end("a"),
		}},
		{name: "the end of the input is the end", steps: steps{open("a"), shut("a"), end("a")}},
		{name: "the end of a consumer's input is its end", steps: steps{
			given("1"), consumer("a"), ask("a", "RDY 1\n"), send("a", "FIN <1>\n"), shut("a"), end("a"), eventually("client_count", 0), eventually("in_flight_count", 0), depths(),
		}},
		{name: "half a line is not a line", steps: steps{open("a"), send("a", "PUB {T}"), shut("a"), end("a")}},
		{name: "an unknown command", steps: steps{open("a"), fails("a", "BOGUS\n")}},
		{name: "an unknown command with arguments", steps: steps{open("a"), fails("a", "BOGUS a b c\n")}},
		{name: "an empty line", steps: steps{open("a"), fails("a", "\n")}},
		{name: "an empty line with a carriage return", steps: steps{open("a"), fails("a", "\r\n")}},
		{name: "two carriage returns", steps: steps{open("a"), fails("a", "NOP\r\r\n")}},
		{name: "a carriage return alone is no end", steps: steps{open("a"), fails("a", "NOP\rNOP\n")}},
		{name: "commands in small letters", steps: steps{open("a"), fails("a", "nop\n")}},
		{name: "a space first", steps: steps{open("a"), fails("a", " NOP\n")}},
		{name: "a tab is no space", steps: steps{open("a"), fails("a", "PUB\t{T}\n")}},
		{name: "bytes that are no text", steps: steps{open("a"), fails("a", "\x00\xff\xfeA \x01\n")}},
		{name: "a command that begins like another", steps: steps{open("a"), fails("a", "PUBX {T}\n")}},
		{name: "a command that another begins like", steps: steps{open("a"), fails("a", "PU {T}\n")}},
		{name: "lines that end in a carriage return", steps: steps{
			open("a"), ask("a", "PUB {T}\r\n", sized("x")), ask("a", "SUB {T} c\r\n"), ask("a", "RDY 1\r\n"),
			send("a", "FIN <1>\r\n"), ask("a", "CLS\r\n"), hangUp("a"),
		}},
		{name: "NOP does nothing", steps: steps{open("a"), send("a", "NOP\n"), nothing("a"), ask("a", pub("{T}", "x"))}},
		{name: "NOP takes anything", steps: steps{open("a"), send("a", "NOP a b\n"), nothing("a"), ask("a", pub("{T}", "x"))}},
		{name: "the longest line", steps: steps{open("a"), fails("a", strings.Repeat("x", 16383), "\n")}},
		{name: "the longest line after others", steps: steps{
			open("a"), ask("a", pub("{T}", strings.Repeat("b", 9000))), ask("a", pub("{T}", "b")),
			fails("a", strings.Repeat("x", 16383), "\n"),
		}},
		{name: "a line that is too long", steps: steps{open("a"), fails("a", strings.Repeat("x", 16384))}},
		{name: "a long command in one piece", steps: steps{open("a"), fails("a", "PUB "+strings.Repeat("t", 9000)+"\n")}},
		{name: "many commands in one piece", steps: steps{
			open("a"), send("a", pub("{T}", "1"), "NOP\n", pub("{T}", "2"), mpub("{T}", "3", "4"), dpub("{T}", "0", "5"), sub("{T}", "c"), "RDY 5\n"),
			frames("a", 5), inAnyOrder("a", 5),
		}},
		{name: "commands behind an error are not done", steps: steps{
			open("a"), fails("a", pub("{T}", "1"), "BOGUS\n"), web("GET", "/stats?format=json&topic={T}&include_mem=0&include_clients=0"),
		}},
	})
}

// IDENTIFY: its body, its ranges, and what it answers.
func TestIdentify(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	scripts := []script{
		{name: "nothing asked", steps: steps{open("a"), ask("a", identify(`{}`))}},
		{name: "nothing asked, and negotiation", steps: steps{open("a"), ask("a", identify(`{"feature_negotiation":true}`))}},
		{name: "null is nothing asked", steps: steps{open("a"), ask("a", identify(`null`))}},
		{name: "arguments are ignored", steps: steps{open("a"), ask("a", "IDENTIFY a b\n", sized(`{}`))}},
		{name: "unknown keys are ignored", steps: steps{open("a"), ask("a", identify(`{"x":{"y":[1,2]},"feature_negotiation":true}`))}},
		{name: "keys in any case", steps: steps{open("a"), ask("a", identify(`{"MSG_Timeout":1234,"Feature_negotiation":true}`))}},
		{name: "the last of two keys", steps: steps{open("a"), ask("a", identify(`{"msg_timeout":1,"msg_timeout":2345,"feature_negotiation":true}`))}},
		{name: "white space around", steps: steps{open("a"), ask("a", identify("\n {\"feature_negotiation\" :\ttrue} \n"))}},
		{name: "null for a number", steps: steps{open("a"), ask("a", identify(`{"msg_timeout":null,"feature_negotiation":true}`))}},
		{name: "twice", steps: steps{open("a"), ask("a", identify(`{"msg_timeout":1234}`)), ask("a", identify(`{"feature_negotiation":true}`))}},
		{name: "what a real client sends", steps: steps{open("a"), ask("a", identify(`{"client_id":"c","deflate":false,"deflate_level":6,`+
			`"feature_negotiation":true,"heartbeat_interval":30000,"hostname":"h","long_id":"h","msg_timeout":0,"output_buffer_size":16384,`+
			`"output_buffer_timeout":250,"sample_rate":0,"short_id":"c","snappy":false,"tls_v1":false,"user_agent":"go-nsq/1.1.0"}`))}},
		{name: "once subscribed", steps: steps{open("a"), ask("a", sub("{T}", "c")), fails("a", identify(`{}`))}},
		{name: "an empty body", steps: steps{open("a"), fails("a", "IDENTIFY\n", be32(0))}},
		{name: "a body of negative size", steps: steps{open("a"), fails("a", "IDENTIFY\n", be32(-1))}},
		{name: "a body that is too big", steps: steps{open("a"), fails("a", "IDENTIFY\n", be32(5<<20+1))}},
		{name: "no size", steps: steps{open("a"), send("a", "IDENTIFY\n\x00\x00"), shut("a"), end("a")}},
		{name: "half a body", steps: steps{open("a"), send("a", "IDENTIFY\n", be32(10), "{}"), shut("a"), end("a")}},
		{name: "no JSON", steps: steps{open("a"), fails("a", identify(`no`))}},
		{name: "an array", steps: steps{open("a"), fails("a", identify(`[]`))}},
		{name: "something behind", steps: steps{open("a"), fails("a", identify(`{} {}`))}},
		{name: "text for a number", steps: steps{open("a"), fails("a", identify(`{"msg_timeout":"1000"}`))}},
		{name: "a number for text", steps: steps{open("a"), fails("a", identify(`{"client_id":1}`))}},
		{name: "a number for a truth", steps: steps{open("a"), fails("a", identify(`{"snappy":1}`))}},
		{name: "a fraction", steps: steps{open("a"), fails("a", identify(`{"msg_timeout":1000.5}`))}},
		{name: "a number with an exponent", steps: steps{open("a"), fails("a", identify(`{"msg_timeout":1e4}`))}},
		{name: "a number beyond 64 bits", steps: steps{open("a"), fails("a", identify(`{"msg_timeout":99999999999999999999}`))}},
		{name: "a rate beyond 32 bits", steps: steps{open("a"), fails("a", identify(`{"sample_rate":4294967296}`))}},
		{name: "a timeout that is too long to count in nanoseconds", steps: steps{open("a"), fails("a", identify(`{"msg_timeout":18446744073710}`))}},
		{name: "an interval that is too long to count in nanoseconds", steps: steps{open("a"), fails("a", identify(`{"heartbeat_interval":18446744073710}`))}},
		{name: "TLS without a certificate", steps: steps{open("a"), ask("a", identify(`{"tls_v1":true,"feature_negotiation":true}`)), ask("a", pub("{T}", "x"))}},
		{name: "both compressions", steps: steps{open("a"), fails("a", identify(`{"snappy":true,"deflate":true,"feature_negotiation":true}`))}},
		{name: "both compressions without negotiation", steps: steps{
			open("a"), ask("a", identify(`{"snappy":true,"deflate":true}`)), ask("a", pub("{T}", "x")),
		}},
	}
	for _, field := range []struct {
		name   string
		values []string
	}{
		{"heartbeat_interval", []string{"-2", "-1", "0", "1", "999", "1000", "60000", "60001"}},
		{"output_buffer_size", []string{"-2", "-1", "0", "1", "63", "64", "65536", "65537"}},
		{"output_buffer_timeout", []string{"-2", "-1", "0", "1", "24", "25", "30000", "30001"}},
		{"sample_rate", []string{"-1", "0", "1", "99", "100"}},
		{"msg_timeout", []string{"-1", "0", "1", "999", "1000", "900000", "900001"}},
	} {
		for _, value := range field.values {
			scripts = append(scripts, script{name: field.name + " of " + value, steps: steps{
				open("a"), send("a", identify(`{"feature_negotiation":true,"`+field.name+`":`+value+`}`)), shut("a"), end("a"),
			}})
		}
	}
	p.run(t, "identify", scripts)
}
