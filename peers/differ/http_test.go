package differ

import (
	"strings"
	"testing"
	"time"
)

// What every path says to every method.
func TestRoutes(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	var scripts []script
	for _, target := range []string{
		"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/symbol", "/debug/pprof/heap", "/debug/pprof/goroutine", "/debug/pprof/block",
		"/debug/pprof/threadcreate", "/debug/pprof/mutex", "/debug/pprof/allocs", "/debug/pprof/trace", "/debug/pprof/nothing", "/debug/pprof/profile/",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "HEAD"} {
			scripts = append(scripts, script{name: method + " " + target, steps: steps{status(method, target)}})
		}
	}
	for _, target := range []string{
		"/", "/ping", "/info", "/pub", "/mpub", "/stats", "/topic/create", "/topic/delete", "/topic/empty", "/topic/pause", "/topic/unpause",
		"/channel/create", "/channel/delete", "/channel/empty", "/channel/pause", "/channel/unpause", "/config/nothing", "/config/", "/config", "/config/a/b",
		"/debug/pprof", "/debug", "/topic", "/topic/", "/topic/nothing", "/channel",
		"/ping/", "/PING", "/Topic/Create", "//ping", "/./ping", "/x/../ping", "/pub/", "/nowhere", "/ping/x", "/%70ing", "/ping%20", "/*",
		"/put", "/mput", "/create_topic", "/counter", "/delete_topic",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "DANCE"} {
			scripts = append(scripts, script{name: method + " " + target, steps: steps{web(method, target)}})
		}
	}
	p.run(t, "routes", scripts)
}

func TestHTTPPublish(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	const got = "/stats?format=json&topic={T}&include_mem=0&include_clients=0"
	scripts := []script{
		{name: "pub", steps: steps{web("POST", "/pub?topic={T}", "x"), steady(got)}},
		{name: "pub of bytes that are no text", steps: steps{web("POST", "/pub?topic={T}", "\x00\xff\n"), consumer("a"), ask("a", "RDY 1\n")}},
		{name: "pub of nothing", steps: steps{web("POST", "/pub?topic={T}"), steady(got)}},
		{name: "pub without a topic", steps: steps{web("POST", "/pub", "x")}},
		{name: "pub of nothing without a topic", steps: steps{web("POST", "/pub")}},
		{name: "pub to an empty topic", steps: steps{web("POST", "/pub?topic=", "x")}},
		{name: "pub to a bad topic", steps: steps{web("POST", "/pub?topic=a/b", "x")}},
		{name: "pub to two topics", steps: steps{web("POST", "/pub?topic={T}&topic=a/b", "x"), steady(got)}},
		{name: "pub with an escaped name", steps: steps{web("POST", "/pub?topic=%61.{T}", "x")}},
		{name: "pub with a name in the body", steps: steps{web("POST", "/pub", "topic={T}")}},
		{name: "pub with a query that is none", steps: steps{web("POST", "/pub?topic=%zz", "x")}},
		{name: "pub with a semicolon", steps: steps{web("POST", "/pub?topic={T};defer=1", "x")}},
		{name: "pub to an ephemeral topic", steps: steps{web("POST", "/pub?topic={T}%23ephemeral", "x")}},
		{name: "pub of the most bytes", steps: steps{web("POST", "/pub?topic={T}", mib(0)), steady(got)}},
		{name: "pub of one byte more", steps: steps{announced("POST", "/pub?topic={T}", 1<<20+1), steady(got)}},
		{name: "pub of one byte more, unannounced", steps: steps{chunked("POST", "/pub?topic={T}", mib(-1)), steady(got)}},
		{name: "pub of an unannounced size", steps: steps{chunked("POST", "/pub?topic={T}", "x"), steady(got)}},
		{name: "pub in a moment", steps: steps{consumer("a"), send("a", "RDY 1\n"), notBefore(time.Second, steps{web("POST", "/pub?topic={T}&defer=1000", "x"), frames("a", 1)}.play), steady(got)}},

		{name: "mpub", steps: steps{web("POST", "/mpub?topic={T}", "a\nb\nccc"), steady(got), consumer("a"), send("a", "RDY 9\n"), inAnyOrder("a", 3)}},
		{name: "mpub that ends in a line", steps: steps{web("POST", "/mpub?topic={T}", "a\nb\n"), steady(got)}},
		{name: "mpub skips empty lines", steps: steps{web("POST", "/mpub?topic={T}", "\n\na\n\n\nb\n\n"), steady(got)}},
		{name: "mpub keeps carriage returns", steps: steps{web("POST", "/mpub?topic={T}", "a\r\n\r\n"), steady(got)}},
		{name: "mpub of nothing", steps: steps{web("POST", "/mpub?topic={T}"), steady(got)}},
		{name: "mpub of empty lines", steps: steps{web("POST", "/mpub?topic={T}", "\n\n"), steady(got)}},
		{name: "mpub without a topic", steps: steps{web("POST", "/mpub", "x")}},
		{name: "mpub to a bad topic", steps: steps{web("POST", "/mpub?topic=a/b", "x")}},
		{name: "mpub of a line that is too long", steps: steps{web("POST", "/mpub?topic={T}", "a\n"+mib(-1)+"\nb"), steady(got)}},
		{name: "mpub of the longest line", steps: steps{web("POST", "/mpub?topic={T}", "a\n"+mib(0)+"\nb"), steady(got)}},
		{name: "mpub of the most bytes", steps: steps{web("POST", "/mpub?topic={T}", strings.Repeat(mib(1)+"\n", 5)), steady(got)}},
		{name: "mpub of one byte more", steps: steps{announced("POST", "/mpub?topic={T}", 5<<20+1), steady(got)}},
		{name: "mpub of a line that is too long and then of too much", steps: steps{chunked("POST", "/mpub?topic={T}", mib(-1)+"\n"+strings.Repeat(mib(1)+"\n", 5)), steady(got)}},
		{name: "mpub of too much, and its last line too long", steps: steps{chunked("POST", "/mpub?topic={T}", strings.Repeat(mib(1)+"\n", 4)+mib(-9)), steady(got)}},
		{name: "mpub of lines that end one byte behind the most", steps: steps{chunked("POST", "/mpub?topic={T}", strings.Repeat(mib(1)+"\n", 4)+mib(0)+"\n"), steady(got)}},
		{name: "mpub of a batch that ends one byte behind the most", steps: steps{chunked("POST", "/mpub?topic={T}&binary=1", batch("a")+strings.Repeat(mib(0), 5)), steady(got)}},
		{name: "pub that breaks off", steps: steps{raw("POST /pub?topic={T}" + brokenOff + "1\r\na\r\nnone\r\n"), steady(got)}},
		{name: "mpub of lines that breaks off", steps: steps{raw("POST /mpub?topic={T}" + brokenOff + "2\r\na\n\r\nnone\r\n"), steady(got)}},
		{name: "mpub of a batch that breaks off", steps: steps{raw("POST /mpub?topic={T}&binary=true" + brokenOff + "9\r\n" + batch("a") + "\r\n1\r\nb\r\nnone\r\n"), steady(got)}},
		{name: "mpub of a batch that breaks off in its middle", steps: steps{raw("POST /mpub?topic={T}&binary=true" + brokenOff + "8\r\n" + be32(1) + be32(4) + "\r\nnone\r\n"), steady(got)}},
		{name: "mpub of one byte more, unannounced", steps: steps{chunked("POST", "/mpub?topic={T}", strings.Repeat(mib(1)+"\n", 5)+"x"), steady(got)}},
	}
	for _, value := range []string{"", "0", "-1", "+5", "soon", "1.5", "3600001", "99999999999999999999", "9223372036854775807", "%201", "0x10", "1_0"} {
		scripts = append(scripts, script{name: "pub deferred by " + tell(value), steps: steps{web("POST", "/pub?topic={T}&defer="+value, "x"), steady(got)}})
	}
	for _, value := range []string{"", "true", "1", "false", "0", "yes", "True", "2"} {
		scripts = append(scripts,
			script{name: "mpub of a batch, binary=" + value, steps: steps{web("POST", "/mpub?topic={T}&binary="+value, batch("a", "b\nc")), steady(got)}},
			script{name: "mpub of lines, binary=" + value, steps: steps{web("POST", "/mpub?topic={T}&binary="+value, "a\nb\n"), steady(got)}})
	}
	for name, body := range map[string]string{
		"nothing": "", "half a count": "\x00\x00", "no messages": be32(0), "a negative number of messages": be32(-1), "too many messages": be32((5<<20-4)/5 + 1),
		"half a size": be32(1) + "\x00", "an empty message": batch("a", ""), "a message of negative size": be32(1) + be32(-1), "a message that is too big": be32(1) + be32(1<<20+1),
		"half a message": be32(1) + be32(5) + "ab", "a message too few": be32(2) + sized("a"), "something behind": batch("a") + "more",
	} {
		scripts = append(scripts, script{name: "mpub, binary, of " + name, steps: steps{web("POST", "/mpub?topic={T}&binary=true", body), steady(got)}})
	}
	p.run(t, "webpub", scripts)
}

// brokenOff is the rest of the head of a request whose body is in chunks, the last of
// which is not one.
const brokenOff = " HTTP/1.1\r\nHost: nsqd\r\nTransfer-Encoding: chunked\r\n\r\n"

func TestHTTPAdmin(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	const got = "/stats?format=json&topic={T}&include_mem=0&include_clients=0"
	topic := func(verb string) func(*session) { return web("POST", "/topic/"+verb+"?topic={T}") }
	channel := func(verb string) func(*session) { return web("POST", "/channel/"+verb+"?topic={T}&channel=c") }
	scripts := []script{
		{name: "create", steps: steps{topic("create"), steady(got), topic("create"), channel("create"), channel("create"), steady(got)}},
		{name: "delete a channel", steps: steps{
			given("1"), consumer("a"), ask("a", "RDY 1\n"), channel("delete"), end("a"), steady(got), channel("delete"),
		}},
		{name: "delete a topic", steps: steps{
			given("1"), consumer("a"), ask("a", "RDY 1\n"), topic("delete"), end("a"), steady(got), topic("delete"), channel("delete"),
		}},
		{name: "delete a topic, and it comes again empty", steps: steps{
			given("1"), topic("delete"), given("2"), steady(got), consumer("a"), send("a", "RDY 5\n"), frames("a", 1), nothing("a"),
		}},
		{name: "pause a channel", steps: steps{
			given("1", "2"), consumer("a"), ask("a", "RDY 1\n"), channel("pause"), send("a", "FIN <1>\n"), nothing("a"), steady(got),
			channel("pause"), channel("unpause"), frames("a", 1), channel("unpause"), steady(got),
		}},
		{name: "pause a topic", steps: steps{
			given("1"), consumer("a"), send("a", "RDY 9\n"), frames("a", 1), topic("pause"), given("2", "3"), nothing("a"), steady(got),
			topic("unpause"), inAnyOrder("a", 2), steady(got),
		}},
		{name: "pause a topic, and its channels go on", steps: steps{
			given("1"), channel("create"), topic("create"), channel("create"), eventually("depth", 1), topic("pause"), consumer("a"), ask("a", "RDY 1\n"), steady(got),
		}},
		{name: "a channel of a paused topic gets what is published meanwhile, later", steps: steps{
			topic("create"), topic("pause"), given("1"), consumer("a"), send("a", "RDY 9\n"), nothing("a"), steady(got), topic("unpause"), frames("a", 1),
		}},
		{name: "empty a channel", steps: steps{
			given("1", "2", "3", "4"), consumer("a"), send("a", "RDY 2\n"), frames("a", 2), send("a", "REQ <2> 3600000\n", "RDY 0\n"), nothing("a"), steady(got),
			channel("empty"), steady(got), ask("a", "FIN <1>\n"), given("5"), ask("a", "RDY 5\n"), nothing("a"),
		}},
		{name: "empty a channel, and its clients have nothing in flight", steps: steps{
			given("1", "2"), consumer("a"), ask("a", "RDY 1\n"), channel("empty"), given("3"), frames("a", 1), state(),
		}},
		{name: "empty a topic", steps: steps{
			given("1", "2"), topic("empty"), steady(got), given("3"), consumer("a"), ask("a", "RDY 9\n"), nothing("a"),
		}},
		{name: "empty a topic, and its channels keep what they have", steps: steps{
			topic("create"), channel("create"), given("1"), eventually("depth", 1), topic("pause"), given("2"), topic("empty"), steady(got), topic("unpause"),
			consumer("a"), send("a", "RDY 9\n"), frames("a", 1), nothing("a"),
		}},
		{name: "an ephemeral channel goes with its last client", steps: steps{
			given("1"), open("a"), ask("a", sub("{T}", "e#ephemeral")), eventually("depth", 1), steady(got), hangUp("a"), eventually("depth", noChannel), steady(got),
		}},
		{name: "an ephemeral topic goes with its last channel", steps: steps{
			open("a"), ask("a", sub("{T}#ephemeral", "e#ephemeral")), hangUp("a"), gone("{T}%23ephemeral"),
		}},
		{name: "an ephemeral topic stays without a channel", steps: steps{
			web("POST", "/topic/create?topic={T}%23ephemeral"), web("GET", "/stats?format=json&topic={T}%23ephemeral&include_mem=0&include_clients=0"),
			web("POST", "/channel/create?topic={T}%23ephemeral&channel=c"), web("POST", "/channel/delete?topic={T}%23ephemeral&channel=c"),
			gone("{T}%23ephemeral"),
		}},
	}
	for _, verb := range []string{"create", "delete", "empty", "pause", "unpause"} {
		for _, query := range []string{"", "?topic=", "?topic=a/b", "?topic=nothing.of.the.kind.{T}" + verb, "?topic=%zz", "?topic=a;b", "?topic={T}&topic=a/b"} {
			scripts = append(scripts, script{name: "topic/" + verb + query, steps: steps{web("POST", "/topic/"+verb+query), steady(got)}})
		}
		scripts = append(scripts, script{name: "topic/" + verb + " with the topic in the body", steps: steps{web("POST", "/topic/"+verb, "topic={T}")}})
		for _, query := range []string{
			"", "?topic={T}", "?channel=c", "?topic=&channel=c", "?topic={T}&channel=", "?topic=a/b&channel=c", "?topic={T}&channel=a/b",
			"?topic={T}.none&channel=c", "?topic={T}&channel=none", "?topic=%zz&channel=c", "?topic={T}&channel=%zz", "?topic={T}&channel=c&channel=a/b",
		} {
			scripts = append(scripts, script{name: "channel/" + verb + query, steps: steps{topic("create"), web("POST", "/channel/"+verb+query), steady(got)}})
		}
	}
	p.run(t, "admin", scripts)
}

func TestHTTPStats(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	scripts := []script{
		{name: "text of one topic", steps: steps{given("1", "2"), consumer("a"), ask("a", "RDY 1\n"), web("GET", "/stats?topic={T}")}},
		{name: "text without clients and memory", steps: steps{given("1"), consumer("a"), web("GET", "/stats?topic={T}&include_clients=false&include_mem=false")}},
		{name: "text of what is paused", steps: steps{
			given("1"), consumer("a"), eventually("depth", 1), web("POST", "/topic/pause?topic={T}"), web("POST", "/channel/pause?topic={T}&channel=c"), web("GET", "/stats?topic={T}&include_clients=0&include_mem=0"),
		}},
		{name: "text of a topic that is not there", steps: steps{web("GET", "/stats?topic={T}&include_clients=0&include_mem=0")}},
		{name: "JSON of a topic that is not there", steps: steps{web("GET", "/stats?format=json&topic={T}&include_clients=0&include_mem=0")}},
		{name: "JSON of a channel that is not there", steps: steps{given("1"), web("GET", "/stats?format=json&topic={T}&channel=none&include_clients=0&include_mem=0")}},
		{name: "text of a channel that is not there", steps: steps{given("1"), web("GET", "/stats?topic={T}&channel=none&include_clients=0&include_mem=0")}},
		{name: "JSON of one channel of two", steps: steps{given("1"), consumer("a"), eventually("depth", 1), web("POST", "/channel/create?topic={T}&channel=d"), web("GET", "/stats?format=json&topic={T}&channel=d&include_mem=0")}},
		{name: "channels are sorted", steps: steps{
			given("1"), web("POST", "/channel/create?topic={T}&channel=b"), eventually("depth", 1), web("POST", "/channel/create?topic={T}&channel=c"), web("POST", "/channel/create?topic={T}&channel=a"),
			web("GET", "/stats?format=json&topic={T}&include_mem=0&include_clients=0"),
		}},
		{name: "a query that is none", steps: steps{web("GET", "/stats?topic=%zz")}},
		{name: "a client that publishes is no producer of a topic that is not there", steps: steps{
			open("a"), ask("a", pub("{T}", "1")), web("GET", "/stats?format=json&topic={T}.none&include_mem=0"), web("GET", "/stats?topic={T}.none&include_mem=0"),
		}},
		{name: "a client that publishes is a producer, whatever the topic", steps: steps{
			open("a"), ask("a", pub("{T}", "1")), web("POST", "/topic/create?topic={T}.b"), web("GET", "/stats?format=json&topic={T}.b&include_mem=0"), web("GET", "/stats?topic={T}.b&include_mem=0"),
			web("GET", "/stats?format=json&topic={T}&channel=none&include_mem=0"),
		}},
		{name: "one that publishes and consumes", steps: steps{
			consumer("a"), ask("a", pub("{T}", "1")), ask("a", "RDY 1\n"), state(), web("GET", "/stats?topic={T}&include_mem=0"),
		}},
		{name: "another format is text", steps: steps{given("1"), web("GET", "/stats?format=xml&topic={T}&include_mem=0&include_clients=0")}},
		{name: "what clients said of themselves", steps: steps{
			given("1"), open("a"), ask("a", identify(`{"client_id":"me \"<x>\"","hostname":"here","user_agent":"mine/1","feature_negotiation":true,"sample_rate":42}`)),
			ask("a", sub("{T}", "c")), state(), web("GET", "/stats?topic={T}&include_mem=0"),
		}},
		{name: "what a producer published where", steps: steps{
			open("a"), ask("a", pub("{T}", "1")), ask("a", mpub("{T}", "1", "2")), ask("a", dpub("{T}", "1", "1")), state(), web("GET", "/stats?topic={T}&include_mem=0"),
		}},
		{name: "what a client counts", steps: steps{
			given("1", "2", "3", "4"), consumer("a"), send("a", "RDY 4\n"), frames("a", 4), send("a", "FIN <1>\nREQ <2> 3600000\nTOUCH <3>\nFIN <3>\n"), nothing("a"), state(),
			web("GET", "/stats?topic={T}&include_mem=0"),
		}},
		{name: "who comes from HTTP is nobody's producer", steps: steps{web("POST", "/pub?topic={T}", "x"), state()}},
	}
	for _, value := range []string{"", "true", "1", "false", "0", "no", "True"} {
		scripts = append(scripts, script{name: "include_clients and include_mem " + tell(value), steps: steps{
			consumer("a"), web("GET", "/stats?format=json&topic={T}&include_clients="+value+"&include_mem="+value),
		}})
	}
	p.run(t, "stats", scripts)

	// One after the other, because each sees all that the broker has.
	for i, sc := range []script{
		{name: "nothing", steps: steps{web("GET", "/stats"), web("GET", "/stats?format=json"), web("GET", "/stats?include_mem=0"), web("GET", "/stats?format=json&include_mem=0&include_clients=0")}},
		{name: "a client that does nothing", steps: steps{open("a"), ask("a", identify(`{}`)), web("GET", "/stats?format=json&include_mem=0"), web("GET", "/stats?include_mem=0")}},
		{name: "topics are sorted", steps: steps{
			web("POST", "/topic/create?topic=b"), web("POST", "/topic/create?topic=c"), web("POST", "/topic/create?topic=a"), web("GET", "/stats?format=json&include_mem=0"), web("GET", "/stats?include_mem=0"),
		}},
	} {
		t.Run("alone: "+sc.name, func(t *testing.T) { both(t, nil).compare(t, sc, "alone"+string(rune('a'+i))) })
	}
}

func TestHTTPConfig(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	reads := steps{web("GET", "/ping"), web("GET", "/info")}
	for _, opt := range []string{
		"log_level", "nsqlookupd_tcp_addresses", "max_msg_size", "max_body_size", "msg_timeout", "max_msg_timeout", "max_req_timeout", "max_rdy_count",
		"broadcast_address", "auth_http_addresses", "snappy", "deflate", "max_deflate_level", "max_channel_consumers", "http_client_connect_timeout",
		"lookupd_tcp_address", "logger", "max-msg-size", "MAX_MSG_SIZE", "",
	} {
		reads = append(reads, web("GET", "/config/"+opt))
	}
	writes := steps{
		web("PUT", "/config/log_level", "debug"), web("GET", "/config/log_level"), web("PUT", "/config/log_level", "WARN"), web("GET", "/config/log_level"),
		web("PUT", "/config/log_level", "loud"), web("PUT", "/config/log_level"), web("PUT", "/config/log_level", "info"),
		web("PUT", "/config/nsqlookupd_tcp_addresses", `["127.0.0.1:1","127.0.0.1:2"]`), web("GET", "/config/nsqlookupd_tcp_addresses"),
		web("PUT", "/config/nsqlookupd_tcp_addresses", `"127.0.0.1:1"`), web("PUT", "/config/nsqlookupd_tcp_addresses", `no`), web("PUT", "/config/nsqlookupd_tcp_addresses", `null`), web("GET", "/config/nsqlookupd_tcp_addresses"), web("PUT", "/config/nsqlookupd_tcp_addresses", `["127.0.0.1:1","127.0.0.1:1"]`),
		web("PUT", "/config/nsqlookupd_tcp_addresses", `["a b"]`), web("PUT", "/config/nsqlookupd_tcp_addresses", `[]`),
		web("GET", "/config/nsqlookupd_tcp_addresses"), web("PUT", "/config/max_rdy_count", "1"), web("PUT", "/config/nothing", "1"), web("PUT", "/config/nothing"), chunked("PUT", "/config/log_level", mib(-1)),
	}
	p.run(t, "config", []script{
		{name: "read and write", steps: append(reads, writes...)},
		{name: "no block rate", steps: steps{web("PUT", "/debug/setblockrate?rate=x"), web("PUT", "/debug/setblockrate"), web("GET", "/debug/setblockrate?rate=0")}},
		{
			name: "block rate", steps: steps{web("PUT", "/debug/setblockrate?rate=0")},
			because: "setblockrate and freememory", ours: []string{`PUT /debug/setblockrate?rate=0: 200 ""`},
		},
		{
			name: "free memory", steps: steps{web("POST", "/debug/freememory")},
			because: "setblockrate and freememory", ours: []string{`POST /debug/freememory: 200 ""`},
		},
	})
}
