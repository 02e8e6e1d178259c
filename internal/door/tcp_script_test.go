package door

import (
	"strings"
	"testing"
	"time"
)

// A script is what a client sends, byte for byte, and the frames it gets.
type script struct {
	name string
	send []string
	want []string // as client.frame shows them
	open bool     // the connection is still open after the last frame
}

// like is Config of nsqd, whose ceilings are in the texts.
func like(cfg Config) Config {
	cfg.MaxReqTimeout, cfg.MaxMsgTimeout = time.Hour, 15*time.Minute
	return cfg
}

func runScripts(t *testing.T, cfg Config, scripts []script) {
	d := serveTCP(t, like(cfg))
	for _, s := range scripts {
		t.Run(s.name, func(t *testing.T) {
			d := &tcpDoor{Door: d.Door, t: t, addr: d.addr}
			c := d.connect()
			c.send(s.send...)
			c.want(s.want...)
			if !s.open {
				c.wantEnd()
				return
			}
			c.send(identify(`{"heartbeat_interval":5}`)) // one that is wrong at all times
			if got := c.frame(); !strings.HasPrefix(got, "!E_BAD_BODY") && !strings.HasPrefix(got, "!E_INVALID") {
				t.Errorf("got %q, the connection should be open", got)
			}
		})
	}
}

const magic = "  V2"

func TestTheProtocolBeginsWithTheMagic(t *testing.T) {
	runScripts(t, Config{}, []script{
		{"another version", []string{"  V1"}, []string{"!E_BAD_PROTOCOL"}, false},
		{"http", []string{"GET / HTTP/1.1\r\n\r\n"}, []string{"!E_BAD_PROTOCOL"}, false},
		{"version 2", []string{magic}, nil, true},
		{"and a command in one packet", []string{magic, "NOP\n", pub("t", "x")}, []string{"OK"}, true},
	})
}

func TestCommandsThatAreNone(t *testing.T) {
	long := strings.Repeat("x", 16<<10)
	runScripts(t, Config{}, []script{
		{"unknown", []string{magic, "FOO bar\n"}, []string{"!E_INVALID invalid command FOO"}, false},
		{"lower case", []string{magic, "nop\n"}, []string{"!E_INVALID invalid command nop"}, false},
		{"nothing", []string{magic, "\n"}, []string{"!E_INVALID invalid command "}, false},
		{"a space", []string{magic, " NOP\n"}, []string{"!E_INVALID invalid command "}, false},
		{"a carriage return", []string{magic, "NOP\r\n", pub("t", "x")}, []string{"OK"}, true},
		{"two carriage returns", []string{magic, "NOP\r\r\n"}, []string{"!E_INVALID invalid command NOP\r"}, false},
		{"parameters too many", []string{magic, "NOP a b c\n", pub("t x y", "x")}, []string{"OK"}, true},
		{"the longest line", []string{magic, long[:16<<10-1], "\n"}, []string{"!E_INVALID invalid command " + long[:16<<10-1]}, false},
		{"a line that is too long", []string{magic, long, "\n"}, nil, false},
		{"a line without end", []string{magic, long}, nil, false},
		{"commands before are done", []string{magic, pub("t", "x"), "FOO\n", pub("t", "x")}, []string{"OK", "!E_INVALID invalid command FOO"}, false},
	})
}

func TestPublishing(t *testing.T) {
	runScripts(t, Config{MaxMsgSize: 100, MaxBodySize: 300}, []script{
		{"PUB", []string{magic, pub("t", "x"), pub("t", "y"), pub("u", "z")}, []string{"OK", "OK", "OK"}, true},
		{"PUB without topic", []string{magic, "PUB\n"}, []string{"!E_INVALID PUB insufficient number of parameters"}, false},
		{"PUB to a bad name", []string{magic, pub("a$b", "x")}, []string{`!E_BAD_TOPIC PUB topic name "a$b" is not valid`}, false},
		{"PUB to no name", []string{magic, pub("", "x")}, []string{`!E_BAD_TOPIC PUB topic name "" is not valid`}, false},
		{"PUB to a long name", []string{magic, pub(strings.Repeat("n", 65), "x")}, []string{`!E_BAD_TOPIC PUB topic name "` + strings.Repeat("n", 65) + `" is not valid`}, false},
		{"PUB to the longest name", []string{magic, pub(strings.Repeat("n", 64), "x")}, []string{"OK"}, true},
		{"PUB to an ephemeral topic", []string{magic, pub("e#ephemeral", "x")}, []string{"OK"}, true},
		{"PUB to another suffix", []string{magic, pub("e#other", "x")}, []string{`!E_BAD_TOPIC PUB topic name "e#other" is not valid`}, false},
		{"PUB of nothing", []string{magic, pub("t", "")}, []string{"!E_BAD_MESSAGE PUB invalid message body size 0"}, false},
		{"PUB of less", []string{magic, "PUB t\n", be32(-1)}, []string{"!E_BAD_MESSAGE PUB invalid message body size -1"}, false},
		{"PUB of the most", []string{magic, pub("t", strings.Repeat("x", 100))}, []string{"OK"}, true},
		{"PUB of more", []string{magic, pub("t", strings.Repeat("x", 101))}, []string{"!E_BAD_MESSAGE PUB message too big 101 > 100"}, false},
		{"an error after answers", []string{magic, pub("t", "x"), pub("t", "y"), pub("t", "")}, []string{"OK", "OK", "!E_BAD_MESSAGE PUB invalid message body size 0"}, false},

		{"DPUB", []string{magic, "DPUB t 1000\n", sized("x"), "DPUB t 0\n", sized("x"), "DPUB t 3600000\n", sized("x")}, []string{"OK", "OK", "OK"}, true},
		{"DPUB without time", []string{magic, "DPUB t\n"}, []string{"!E_INVALID DPUB insufficient number of parameters"}, false},
		{"DPUB to a bad name", []string{magic, "DPUB $ 0\n"}, []string{`!E_BAD_TOPIC DPUB topic name "$" is not valid`}, false},
		{"DPUB with no number", []string{magic, "DPUB t 1s\n"}, []string{"!E_INVALID DPUB could not parse timeout 1s"}, false},
		{"DPUB in the past", []string{magic, "DPUB t -1\n"}, []string{"!E_INVALID DPUB could not parse timeout -1"}, false},
		{"DPUB too late", []string{magic, "DPUB t 3600001\n"}, []string{"!E_INVALID DPUB timeout 3600001 out of range 0-3600000"}, false},
		{"DPUB much too late", []string{magic, "DPUB t 18446744073709551615\n"}, []string{"!E_INVALID DPUB timeout 18446744073709551615 out of range 0-3600000"}, false},
		{"DPUB of nothing", []string{magic, "DPUB t 0\n", sized("")}, []string{"!E_BAD_MESSAGE DPUB invalid message body size 0"}, false},
		{"DPUB of more", []string{magic, "DPUB t 0\n", be32(101)}, []string{"!E_BAD_MESSAGE DPUB message too big 101 > 100"}, false},

		{"MPUB", []string{magic, mpub("t", "x"), mpub("u", "x", "y")}, []string{"OK", "OK"}, true},
		{"MPUB without topic", []string{magic, "MPUB\n"}, []string{"!E_INVALID MPUB insufficient number of parameters"}, false},
		{"MPUB to a bad name", []string{magic, mpub("a$b", "x")}, []string{`!E_BAD_TOPIC E_BAD_TOPIC MPUB topic name "a$b" is not valid`}, false},
		{"MPUB of nothing", []string{magic, "MPUB t\n", sized("")}, []string{"!E_BAD_BODY MPUB invalid body size 0"}, false},
		{"MPUB of less", []string{magic, "MPUB t\n", be32(-2)}, []string{"!E_BAD_BODY MPUB invalid body size -2"}, false},
		{"MPUB of more", []string{magic, "MPUB t\n", be32(301)}, []string{"!E_BAD_BODY MPUB body too big 301 > 300"}, false},
		{"MPUB without messages", []string{magic, mpub("t")}, []string{"!E_BAD_BODY MPUB invalid message count 0"}, false},
		{"MPUB with too many", []string{magic, "MPUB t\n", sized(be32(60))}, []string{"!E_BAD_BODY MPUB invalid message count 60"}, false},
		{"MPUB with an empty one", []string{magic, mpub("t", "x", "")}, []string{"!E_BAD_MESSAGE MPUB invalid message(1) body size 0"}, false},
		{"MPUB with a large one", []string{magic, mpub("t", "x", strings.Repeat("x", 101))}, []string{"!E_BAD_MESSAGE MPUB message too big 101 > 100"}, false},
		{"MPUB goes by the messages", []string{magic, "MPUB t\n", be32(1), be32(2), sized("x"), sized("y"), pub("t", "z")}, []string{"OK", "OK"}, true},
		{"MPUB does not go on for ever", []string{magic, "MPUB t\n", be32(1), be32(4), strings.Repeat(sized(strings.Repeat("x", 100)), 3)}, []string{"!E_BAD_BODY MPUB body too big 316 > 300"}, false},
	})
}

func TestConsuming(t *testing.T) {
	const id = "00000000000000ff"
	sub := magic + "SUB t c\n"
	runScripts(t, Config{}, []script{
		{"SUB", []string{sub}, []string{"OK"}, true},
		{"SUB twice", []string{sub, "SUB t c\n"}, []string{"OK", "!E_INVALID cannot SUB in current state"}, false},
		{"SUB without channel", []string{magic, "SUB t\n"}, []string{"!E_INVALID SUB insufficient number of parameters"}, false},
		{"SUB to a bad topic", []string{magic, "SUB t$ c\n"}, []string{`!E_BAD_TOPIC SUB topic name "t$" is not valid`}, false},
		{"SUB to a bad channel", []string{magic, "SUB t c$\n"}, []string{`!E_BAD_CHANNEL SUB channel name "c$" is not valid`}, false},
		{"IDENTIFY after SUB", []string{sub, "IDENTIFY\n"}, []string{"OK", "!E_INVALID cannot IDENTIFY in current state"}, false},
		{"AUTH after SUB", []string{sub, "AUTH\n"}, []string{"OK", "!E_INVALID cannot AUTH in current state"}, false},

		{"RDY before SUB", []string{magic, "RDY 1\n"}, []string{"!E_INVALID cannot RDY in current state"}, false},
		{"RDY without a count", []string{sub, "RDY\n"}, []string{"OK"}, true},
		{"RDY of nothing", []string{sub, "RDY \n"}, []string{"OK"}, true},
		{"RDY of all", []string{sub, "RDY 2500\n"}, []string{"OK"}, true},
		{"RDY of more", []string{sub, "RDY 2501\n"}, []string{"OK", "!E_INVALID RDY count 2501 out of range 0-2500"}, false},
		{"RDY of less", []string{sub, "RDY -1\n"}, []string{"OK", "!E_INVALID RDY could not parse count -1"}, false},
		{"RDY beyond numbers", []string{sub, "RDY 18446744073709551615\n"}, []string{"OK", "!E_INVALID RDY count -1 out of range 0-2500"}, false},

		{"FIN before SUB", []string{magic, "FIN " + id + "\n"}, []string{"!E_INVALID cannot FIN in current state"}, false},
		{"FIN of nothing", []string{sub, "FIN\n"}, []string{"OK", "!E_INVALID FIN insufficient number of params"}, false},
		{"FIN of a short id", []string{sub, "FIN 12\n"}, []string{"OK", "!E_INVALID invalid message ID"}, false},
		{"FIN of what is not in flight", []string{sub, "FIN " + id + "\n"}, []string{"OK", "!E_FIN_FAILED FIN " + id + " failed ID not in flight"}, true},
		{"FIN of what cannot be", []string{sub, "FIN xyzxyzxyzxyzxyzx\n"}, []string{"OK", "!E_FIN_FAILED FIN xyzxyzxyzxyzxyzx failed ID not in flight"}, true},
		{"FIN in capitals", []string{sub, "FIN 00000000000000FF\n"}, []string{"OK", "!E_FIN_FAILED FIN 00000000000000FF failed ID not in flight"}, true},

		{"REQ before SUB", []string{magic, "REQ " + id + " 0\n"}, []string{"!E_INVALID cannot REQ in current state"}, false},
		{"REQ without time", []string{sub, "REQ " + id + "\n"}, []string{"OK", "!E_INVALID REQ insufficient number of params"}, false},
		{"REQ of a short id", []string{sub, "REQ 12 x\n"}, []string{"OK", "!E_INVALID invalid message ID"}, false},
		{"REQ with no number", []string{sub, "REQ " + id + " x\n"}, []string{"OK", "!E_INVALID REQ could not parse timeout x"}, false},
		{"REQ of what cannot be, with no number", []string{sub, "REQ xyzxyzxyzxyzxyzx x\n"}, []string{"OK", "!E_INVALID REQ could not parse timeout x"}, false},
		{"REQ of what is not in flight", []string{sub, "REQ " + id + " 9\n"}, []string{"OK", "!E_REQ_FAILED REQ " + id + " failed ID not in flight"}, true},

		{"TOUCH before SUB", []string{magic, "TOUCH " + id + "\n"}, []string{"!E_INVALID cannot TOUCH in current state"}, false},
		{"TOUCH of nothing", []string{sub, "TOUCH\n"}, []string{"OK", "!E_INVALID TOUCH insufficient number of params"}, false},
		{"TOUCH of a short id", []string{sub, "TOUCH 12\n"}, []string{"OK", "!E_INVALID invalid message ID"}, false},
		{"TOUCH of what is not in flight", []string{sub, "TOUCH " + id + "\n"}, []string{"OK", "!E_TOUCH_FAILED TOUCH " + id + " failed ID not in flight"}, true},

		{"CLS before SUB", []string{magic, "CLS\n"}, []string{"!E_INVALID cannot CLS in current state"}, false},
		{"CLS", []string{sub, "CLS\n", "RDY 5\n", "RDY nonsense\n"}, []string{"OK", "CLOSE_WAIT"}, true},
		{"CLS twice", []string{sub, "CLS\n", "CLS\n"}, []string{"OK", "CLOSE_WAIT", "!E_INVALID cannot CLS in current state"}, false},
		{"errors in their order", []string{sub, "FIN " + id + "\nREQ " + id + " 0\nTOUCH " + id + "\nFIN " + id + "\n"}, []string{
			"OK",
			"!E_FIN_FAILED FIN " + id + " failed ID not in flight", "!E_REQ_FAILED REQ " + id + " failed ID not in flight",
			"!E_TOUCH_FAILED TOUCH " + id + " failed ID not in flight", "!E_FIN_FAILED FIN " + id + " failed ID not in flight",
		}, true},
	})
}

func TestIdentifying(t *testing.T) {
	bad := func(json, why string) script {
		return script{json, []string{magic, identify(json)}, []string{"!E_BAD_BODY IDENTIFY " + why}, false}
	}
	good := func(json string) script {
		return script{json, []string{magic, identify(json)}, []string{"OK"}, true}
	}
	features := func(name, asked, told string) script {
		return script{name, []string{magic, identify(asked)}, []string{told}, true}
	}
	const told = `{"max_rdy_count":2500,"version":"1.3.0","max_msg_timeout":900000,"msg_timeout":60000,"tls_v1":false,"deflate":false,` +
		`"deflate_level":6,"max_deflate_level":6,"snappy":false,"sample_rate":0,"auth_required":false,"output_buffer_size":16384,"output_buffer_timeout":250}`
	runScripts(t, Config{MaxBodySize: 500}, []script{
		good(`{}`), good(`{"client_id":"a","hostname":"b","unknown":[1]}`),
		bad(`{`, "failed to decode JSON body"), bad(`[]`, "failed to decode JSON body"),
		bad(`{"heartbeat_interval":"5"}`, "failed to decode JSON body"),
		{"no size", []string{magic, "IDENTIFY\n", be32(0)}, []string{"!E_BAD_BODY IDENTIFY invalid body size 0"}, false},
		{"a size below", []string{magic, "IDENTIFY\n", be32(-5)}, []string{"!E_BAD_BODY IDENTIFY invalid body size -5"}, false},
		{"a large size", []string{magic, "IDENTIFY\n", be32(501)}, []string{"!E_BAD_BODY IDENTIFY body too big 501 > 500"}, false},
		{"twice", []string{magic, identify(`{}`), identify(`{}`), pub("t", "x")}, []string{"OK", "OK", "OK"}, true},

		good(`{"heartbeat_interval":1000}`), good(`{"heartbeat_interval":60000}`), good(`{"heartbeat_interval":-1}`),
		bad(`{"heartbeat_interval":999}`, "heartbeat interval (999) is invalid"),
		bad(`{"heartbeat_interval":60001}`, "heartbeat interval (60001) is invalid"),
		bad(`{"heartbeat_interval":-2}`, "heartbeat interval (-2) is invalid"),
		good(`{"output_buffer_size":64}`), good(`{"output_buffer_size":65536}`), good(`{"output_buffer_size":-1}`),
		bad(`{"output_buffer_size":63}`, "output buffer size (63) is invalid"),
		bad(`{"output_buffer_size":65537}`, "output buffer size (65537) is invalid"),
		good(`{"output_buffer_timeout":25}`), good(`{"output_buffer_timeout":30000}`), good(`{"output_buffer_timeout":-1}`),
		bad(`{"output_buffer_timeout":24}`, "output buffer timeout (24) is invalid"),
		bad(`{"output_buffer_timeout":30001}`, "output buffer timeout (30001) is invalid"),
		good(`{"sample_rate":99}`),
		bad(`{"sample_rate":100}`, "sample rate (100) is invalid"), bad(`{"sample_rate":-1}`, "sample rate (-1) is invalid"),
		good(`{"msg_timeout":1000}`), good(`{"msg_timeout":900000}`),
		bad(`{"msg_timeout":999}`, "msg timeout (999) is invalid"),
		bad(`{"msg_timeout":900001}`, "msg timeout (900001) is invalid"), bad(`{"msg_timeout":-1}`, "msg timeout (-1) is invalid"),

		features("negotiating nothing", `{"feature_negotiation":true}`, told),
		features("asking for TLS where there is none", `{"feature_negotiation":true,"tls_v1":true}`, told),
		features("negotiating numbers", `{"feature_negotiation":true,"msg_timeout":2000,"output_buffer_size":100,"output_buffer_timeout":30,"sample_rate":5}`,
			`{"max_rdy_count":2500,"version":"1.3.0","max_msg_timeout":900000,"msg_timeout":2000,"tls_v1":false,"deflate":false,`+
				`"deflate_level":6,"max_deflate_level":6,"snappy":false,"sample_rate":5,"auth_required":false,"output_buffer_size":100,"output_buffer_timeout":30}`),
		features("negotiating no buffer", `{"feature_negotiation":true,"output_buffer_size":-1}`,
			strings.NewReplacer(`size":16384`, `size":1`, `timeout":250`, `timeout":0`).Replace(told)),
		{
			"two kinds of compression",
			[]string{magic, identify(`{"feature_negotiation":true,"snappy":true,"deflate":true}`)},
			[]string{"!E_IDENTIFY_FAILED cannot enable both deflate and snappy compression"},
			false,
		},
		{
			"SUB without heartbeats",
			[]string{magic, identify(`{"heartbeat_interval":-1}`), "SUB t c\n"},
			[]string{"OK", "!E_INVALID cannot SUB with heartbeats disabled"},
			false,
		},
	})
}

func TestWithoutCeilingsAnyTimeIsTaken(t *testing.T) {
	d := serveTCP(t, Config{})
	c := d.dial()
	c.send(identify(`{"feature_negotiation":true,"msg_timeout":86400000}`), "DPUB t 9223372036854\n", sized("x"))
	if got := c.frame(); !strings.Contains(got, `"max_msg_timeout":9223372036854,"msg_timeout":86400000`) {
		t.Errorf("told %s", got)
	}
	c.want("OK")
	c.send("DPUB t 9223372036855\n")
	c.want("!E_INVALID DPUB timeout 9223372036855 out of range 0-9223372036854")
}

func TestInputThatEndsInTheMiddleIsAnsweredAsByNsqd(t *testing.T) {
	d := serveTCP(t, Config{})
	for input, want := range map[string]string{
		"  V":                                   "",
		magic:                                   "",
		magic + "PUB t":                         "",
		magic + "PUB t\n":                       "!E_BAD_MESSAGE PUB failed to read message body size",
		magic + "PUB t\n" + be32(5)[:3]:         "!E_BAD_MESSAGE PUB failed to read message body size",
		magic + "PUB t\n" + be32(5) + "four":    "!E_BAD_MESSAGE PUB failed to read message body",
		magic + "DPUB t 0\n":                    "!E_BAD_MESSAGE DPUB failed to read message body size",
		magic + "DPUB t 0\n" + be32(5):          "!E_BAD_MESSAGE DPUB failed to read message body",
		magic + "MPUB t\n":                      "!E_BAD_BODY MPUB failed to read body size",
		magic + "MPUB t\n" + be32(50):           "!E_BAD_BODY MPUB failed to read message count",
		magic + "MPUB t\n" + be32(50) + be32(2): "!E_BAD_MESSAGE MPUB failed to read message(0) body size",
		magic + "MPUB t\n" + be32(50) + be32(2) + sized("x"):           "!E_BAD_MESSAGE MPUB failed to read message(1) body size",
		magic + "MPUB t\n" + be32(50) + be32(2) + sized("x") + be32(4): "!E_BAD_MESSAGE MPUB failed to read message body",
		magic + "IDENTIFY\n":           "!E_BAD_BODY IDENTIFY failed to read body size",
		magic + "IDENTIFY\n" + be32(5): "!E_BAD_BODY IDENTIFY failed to read body",
		magic + "AUTH\n":               "!E_BAD_BODY AUTH failed to read body size",
	} {
		c := d.connect()
		c.send(input)
		if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got := c.frame(); got != want {
			t.Errorf("%q: got %q, want %q", input, got, want)
		}
	}
}

// However the input is cut into packets, the answers are the same.
func TestInputInSmallPiecesIsUnderstood(t *testing.T) {
	d := serveTCP(t, Config{})
	input := magic + identify(`{}`) + pub("t", "one") + "DPUB t 0\n" + sized("two") + mpub("t", "three", "four") + "SUB t c\nRDY 10\nNOP\n"
	for _, step := range []int{1, 2, 3, 7, 40} {
		c := d.connect()
		for from := 0; from < len(input); from += step {
			c.send(input[from:min(from+step, len(input))])
			time.Sleep(100 * time.Microsecond)
		}
		c.want("OK", "OK", "OK", "OK", "OK")
		for range 4 {
			c.send("FIN ", c.message().id, "\n")
		}
		eventually(t, "all is finished", func() bool { return d.depth("t", "c").InFlight == 0 })
		_ = c.Close() // else it takes the next one's messages
	}
}
