package differ

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// What becomes of connections when the things they use come and go, or are used up.
func TestLife(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	post := func(target string) func(*session) { return web("POST", target) }
	p.run(t, "life", []script{
		{name: "a topic that was deleted is made again by the next PUB", steps: steps{
			open("a"), ask("a", pub("{T}", "1")), post("/topic/delete?topic={T}"), ask("a", pub("{T}", "22")), depths(),
			post("/topic/delete?topic={T}"), ask("a", mpub("{T}", "333", "4")), post("/topic/delete?topic={T}"), ask("a", dpub("{T}", "0", "5")), depths(), state(),
		}},
		{name: "a channel that was deleted leaves the others alone", steps: steps{
			given("1"), consumer("a"), send("a", "RDY 9\n"), frames("a", 1), open("b"), ask("b", sub("{T}", "d")), send("b", "RDY 9\n"),
			post("/channel/delete?topic={T}&channel=c"), end("a"), given("2"), frames("b", 1), depths(),
		}},
		{name: "a channel that was deleted can be made again", steps: steps{
			given("1"), consumer("a"), eventually("depth", 1), post("/channel/delete?topic={T}&channel=c"), end("a"), given("2"), consumer("a"), ask("a", "RDY 9\n"), nothing("a"), depths(),
		}},
		{name: "a producer stays when its topic is deleted", steps: steps{
			open("a"), ask("a", pub("{T}", "1")), post("/topic/delete?topic={T}"), nothing("a"), ask("a", pub("{T}.b", "1")), state(),
		}},
		{name: "a deferred message is gone with its channel", steps: steps{
			given("1"), consumer("a"), ask("a", "RDY 1\n"), send("a", "REQ <1> 3600000\n"), nothing("a"), post("/channel/delete?topic={T}&channel=c"), end("a"),
			consumer("b"), send("b", "RDY 1\n"), nothing("b"), depths(),
		}},
		{name: "two consumers share what there is", steps: steps{
			consumer("a"), consumer("b"), send("a", "RDY 2\n"), send("b", "RDY 2\n"), given("1", "2", "3", "4", "5"),
			eventually("depth", 1), eventually("in_flight_count", 4), send("a", "RDY 0\n"), send("b", "RDY 0\n"),
		}},
		{name: "a consumer that closes leaves what waits to others", steps: steps{
			given("1", "2"), consumer("a"), ask("a", "RDY 1\n"), ask("a", "CLS\n"), send("a", "FIN <1>\n"), consumer("b"), ask("b", "RDY 1\n"), state(),
		}},
		{name: "sampled messages are gone", steps: steps{
			open("p"), ask("p", mpub("{T}", many(2000)...)), open("a"), ask("a", identify(`{"sample_rate":20}`)), ask("a", sub("{T}", "c")), send("a", "RDY 2500\n"),
			eventually("depth", 0), about("in_flight_count", 300, 540), eventually("deferred_count", 0), eventually("requeue_count", 0), eventually("message_count", 2000),
		}},
		{name: "a channel is asked for by many at once", steps: steps{
			open("a", "b", "c", "d"), send("a", sub("{T}", "c")), send("b", sub("{T}", "c")), send("c", sub("{T}", "c")), send("d", sub("{T}", "d")),
			frames("a", 1), frames("b", 1), frames("c", 1), frames("d", 1), depths(),
		}},
	})

	one := both(t, func(o *Options) { o.MaxChannelConsumers = 1 })
	one.run(t, "one", []script{
		{name: "a channel has as many consumers as it may", steps: steps{
			consumer("a"), open("b"), fails("b", sub("{T}", "c")), open("b"), ask("b", sub("{T}", "d")), hangUp("a"), eventually("client_count", 0), consumer("a"),
		}},
	})

	few := both(t, func(o *Options) {
		o.MaxRdyCount, o.MaxMsgSize, o.MaxBodySize, o.MaxReqTimeout = 3, 10, 40, 2*time.Second
		o.MaxHeartbeatInterval, o.MaxOutputBufferSize, o.MaxOutputBufferTimeout = 2*time.Second, 128, 100*time.Millisecond
		o.MinOutputBufferTimeout, o.MaxMsgTimeout, o.MsgTimeout = 50*time.Millisecond, 3*time.Second, 2*time.Second
	})
	few.run(t, "few", []script{
		{name: "what IDENTIFY is told", steps: steps{open("a"), ask("a", identify(`{"feature_negotiation":true}`))}},
		{name: "RDY", steps: steps{consumer("a"), send("a", "RDY 3\n"), fails("a", "RDY 4\n")}},
		{name: "PUB", steps: steps{open("a"), ask("a", pub("{T}", "0123456789")), fails("a", pub("{T}", "0123456789a"))}},
		{name: "DPUB", steps: steps{open("a"), ask("a", dpub("{T}", "2000", "0123456789")), fails("a", dpub("{T}", "2001", "x"))}},
		{name: "DPUB of too much", steps: steps{open("a"), fails("a", dpub("{T}", "2000", "0123456789a"))}},
		{name: "MPUB", steps: steps{open("a"), ask("a", mpub("{T}", "0123456789", "0123456789")), fails("a", mpub("{T}", "0123456789a"))}},
		{name: "MPUB of too much", steps: steps{open("a"), fails("a", mpub("{T}", "0123456789", "0123456789", "0123456789"))}},
		{name: "MPUB of too many", steps: steps{open("a"), fails("a", mpub("{T}", strings.Split("1 2 3 4 5 6 7 8", " ")...))}},
		{name: "IDENTIFY of too much", steps: steps{open("a"), fails("a", identify(`{"client_id":"0123456789012345678901234567890123456789"}`))}},
		{name: "REQ", steps: steps{given("1"), consumer("a"), ask("a", "RDY 1\n"), notBefore(2*time.Second, steps{send("a", "REQ <1> 999999\n"), frames("a", 1)}.play)}},
		{name: "a message times out", steps: steps{given("1"), consumer("a"), ask("a", "RDY 1\n"), send("a", "RDY 0\n"), notBefore(1500*time.Millisecond, eventually("timeout_count", 1)), depths()}},
		{name: "heartbeats", steps: steps{open("a"), fails("a", identify(`{"heartbeat_interval":2001}`))}},
		{name: "buffers", steps: steps{open("a"), fails("a", identify(`{"output_buffer_size":129}`))}},
		{name: "slow buffers", steps: steps{open("a"), fails("a", identify(`{"output_buffer_timeout":101}`))}},
		{name: "quick buffers", steps: steps{open("a"), fails("a", identify(`{"output_buffer_timeout":49}`))}},
		{name: "timeouts", steps: steps{open("a"), fails("a", identify(`{"msg_timeout":3001}`))}},
		{name: "all that may be", steps: steps{open("a"), ask("a", identify(`{"feature_negotiation":true,"heartbeat_interval":2000,"output_buffer_size":128,"output_buffer_timeout":100,"msg_timeout":3000}`))}},
		{name: "pub", steps: steps{web("POST", "/pub?topic={T}&defer=2000", "0123456789"), web("POST", "/pub?topic={T}&defer=2001", "0123456789"), web("POST", "/pub?topic={T}", "0123456789a")}},
		{name: "mpub", steps: steps{web("POST", "/mpub?topic={T}", strings.Repeat("0123\n", 8)), web("POST", "/mpub?topic={T}", strings.Repeat("0123\n", 8)+"x"), web("POST", "/mpub?topic={T}", "0123456789a"), web("POST", "/mpub?topic={T}&binary=1", batch("0123456789a"))}},
		{name: "config", steps: steps{web("PUT", "/config/log_level", "0123456789a"), web("GET", "/config/max_rdy_count")}},
	})
}

// many are bodies.
func many(n int) []string {
	bodies := make([]string, n)
	for i := range bodies {
		bodies[i] = "x"
	}
	return bodies
}

// eventually waits until a number in the stats of {T}'s first channel is what it should be.
func eventually(key string, want int) func(*session) { return about(key, want, want) }

// about is eventually for a number that may be anything from least to most.
func about(key string, least, most int) func(*session) {
	return func(s *session) {
		got := noChannel - 1
		for until := time.Now().Add(patience); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
			if got = s.channelStat(key); least <= got && got <= most {
				s.note("%s is %d to %d", key, least, most)
				return
			}
		}
		s.note("%s is %d, not %d to %d", key, got, least, most)
	}
}

// noChannel is what channelStat says when there is no channel.
const noChannel = -1

// channelStat is a number in the stats of the first channel of the session's topic.
func (s *session) channelStat(key string) int {
	resp, err := http.Get("http://" + s.node.HTTP + "/stats?format=json&include_clients=0&include_mem=0&topic=" + s.topic)
	if err != nil {
		return noChannel
	}
	defer resp.Body.Close()
	var stats struct {
		Topics []struct {
			Channels []map[string]any `json:"channels"`
		} `json:"topics"`
	}
	if json.NewDecoder(resp.Body).Decode(&stats) != nil || len(stats.Topics) == 0 || len(stats.Topics[0].Channels) == 0 {
		return noChannel
	}
	n, ok := stats.Topics[0].Channels[0][key].(float64)
	if !ok {
		return noChannel
	}
	return int(n)
}
