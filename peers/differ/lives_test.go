package differ

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever a producer and a consumer do, the same messages come, with the same attempts,
// and the channel holds the same.
func TestRandomLives(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	rapid.Check(t, func(r *rapid.T) {
		tw := p.twins(t, r, freshTopic())
		defer tw.close()
		l := &lives{twins: tw}
		tw.do(steps{open("p"), consumer("a")}.play)
		r.Repeat(map[string]func(*rapid.T){
			"publish": l.publish, "rdy": l.rdy, "finish": l.finish, "requeue": l.requeue, "touch": l.touch, "pause": l.pause, "empty": l.empty,
			"": func(*rapid.T) { l.settle() },
		})
	})
}

// heed is how long nsqd may go on to send after it was told not to.
const heed = 50 * time.Millisecond

// lives models a channel with one consumer, as far as is needed to know how many
// messages will come.
type lives struct {
	*twins
	published int
	ready     []string // bodies of messages that wait
	inFlight  []string
	gone      []string // were in flight once
	deferred  int
	open      bool // RDY is not 0
	paused    bool
}

// settle waits for the messages that must come, and compares them and the channel.
func (l *lives) settle() {
	if l.open && !l.paused {
		if n := len(l.ready); n > 0 {
			l.do(func(s *session) { s.messages("a", n) })
		}
		l.inFlight = append(l.inFlight, l.ready...)
		l.ready = nil
	}
	l.do(func(s *session) { s.holds(len(l.ready), len(l.inFlight), l.deferred) })
}

// holds waits until the channel holds so many messages. nsqd takes its time to move them
// from the topic to it.
func (s *session) holds(ready, inFlight, deferred int) {
	var stats struct {
		Topics []struct {
			Channels []struct {
				Depth         int `json:"depth"`
				InFlightCount int `json:"in_flight_count"`
				DeferredCount int `json:"deferred_count"`
			} `json:"channels"`
		} `json:"topics"`
	}
	want := [3]int{ready, inFlight, deferred}
	for until := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		resp, err := http.Get("http://" + s.node.HTTP + "/stats?format=json&include_clients=0&include_mem=0&topic=" + s.topic)
		if err != nil {
			s.note("stats: %v", err)
			return
		}
		err = json.NewDecoder(resp.Body).Decode(&stats)
		_ = resp.Body.Close()
		if err != nil || len(stats.Topics) != 1 || len(stats.Topics[0].Channels) != 1 {
			s.note("stats: %v %v", stats, err)
			return
		}
		c := stats.Topics[0].Channels[0]
		if got := [3]int{c.Depth, c.InFlightCount, c.DeferredCount}; got == want || time.Now().After(until) {
			s.note("ready, in flight, deferred: %v", got)
			return
		}
	}
}

// messages waits for n messages, in any order, and remembers their ids by their bodies.
func (s *session) messages(name string, n int) {
	var lines []string
	for range n {
		_ = s.conn(name).SetReadDeadline(time.Now().Add(patience))
		kind, data, err := readFrame(s.conn(name).in)
		if err != nil || kind != 2 || len(data) < 26 {
			s.note("%s: %d %q %v", name, kind, data, err)
			return
		}
		id, body := string(data[10:26]), string(data[26:])
		if s.byBody == nil {
			s.byBody = make(map[string]string)
		}
		s.byBody[body] = id
		lines = append(lines, fmt.Sprintf("%s attempt %d", body, data[9]))
	}
	slices.Sort(lines)
	s.note("%s: %s", name, strings.Join(lines, ", "))
}

// told sends a command about a message, and behind it one whose answer ends the wait.
func (l *lives) told(command, body, rest string) {
	l.do(func(s *session) { s.upTo(command+" {body:"+body+"}"+rest+"\n", "barrier000000000", patience) })
}

func (l *lives) publish(r *rapid.T) {
	var bodies []string
	for range rapid.IntRange(1, 4).Draw(r, "messages") {
		l.published++
		bodies = append(bodies, fmt.Sprintf("m%d", l.published))
	}
	l.ready = append(l.ready, bodies...)
	l.do(ask("p", mpub("{T}", bodies...)))
	l.settle()
}

func (l *lives) rdy(*rapid.T) {
	l.open = !l.open
	if l.open {
		l.do(send("a", "RDY 2500\n"))
	} else {
		l.do(func(s *session) { s.upTo("RDY 0\n", "barrier000000000", patience) })
		l.do(wait(heed))
	}
	l.settle()
}

// pick takes one of those in flight, or sometimes one that no longer is.
func (l *lives) pick(r *rapid.T) (body string, held bool) {
	if len(l.inFlight) > 0 && (len(l.gone) == 0 || rapid.IntRange(0, 4).Draw(r, "held") > 0) {
		i := rapid.IntRange(0, len(l.inFlight)-1).Draw(r, "which")
		return l.inFlight[i], true
	}
	if len(l.gone) == 0 {
		r.Skip("no message has come yet")
	}
	body = rapid.SampledFrom(l.gone).Draw(r, "gone")
	return body, slices.Contains(l.inFlight, body)
}

func (l *lives) release(body string) {
	l.inFlight = slices.DeleteFunc(l.inFlight, func(b string) bool { return b == body })
	if !slices.Contains(l.gone, body) {
		l.gone = append(l.gone, body)
	}
}

func (l *lives) finish(r *rapid.T) {
	body, _ := l.pick(r)
	l.told("FIN", body, "")
	l.release(body)
}

func (l *lives) touch(r *rapid.T) {
	body, _ := l.pick(r)
	l.told("TOUCH", body, "")
}

func (l *lives) requeue(r *rapid.T) {
	body, held := l.pick(r)
	if held && l.open && !l.paused && rapid.Bool().Draw(r, "at once") {
		// Its redelivery would come among what is waited for.
		l.do(send("a", "REQ {body:"+body+"} 0\n"))
		l.release(body)
		l.ready = append(l.ready, body)
		l.settle()
		return
	}
	l.told("REQ", body, " 3600000")
	if held {
		l.deferred++
	}
	l.release(body)
}

func (l *lives) pause(*rapid.T) {
	l.paused = !l.paused
	verb := "unpause"
	if l.paused {
		verb = "pause"
	}
	l.do(web("POST", "/channel/"+verb+"?topic={T}&channel=c"))
	if l.paused {
		l.do(wait(heed))
	}
	l.settle()
}

func (l *lives) empty(*rapid.T) {
	l.do(web("POST", "/channel/empty?topic={T}&channel=c"))
	l.gone = append(l.gone, l.inFlight...)
	l.inFlight, l.ready, l.deferred = nil, nil, 0
	l.settle()
}
