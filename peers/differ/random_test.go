package differ

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// serial numbers the topics of random tests.
var serial atomic.Int64

func freshTopic() string { return fmt.Sprintf("random.%06d", serial.Add(1)) }

// twins are two sessions that do the same, step by step.
type twins struct {
	rapid.TB
	theirs, ours *session
}

// twins starts them. They fail r, which may be t.
func (p pair) twins(t *testing.T, r rapid.TB, topic string) *twins {
	return &twins{r, newSession(t, p.theirs, topic), newSession(t, p.ours, topic)}
}

func (tw *twins) close() {
	tw.theirs.close()
	tw.ours.close()
}

// soon does the step in both, again and again until they note the same, and fails the
// test if they never do.
func (tw *twins) soon(step func(*session)) {
	tw.Helper()
	n := len(tw.theirs.log)
	for until := time.Now().Add(patience); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		tw.theirs.log, tw.ours.log = tw.theirs.log[:n], tw.ours.log[:n]
		tw.both(step)
		if _, differ := firstDifference(tw.theirs.log, tw.ours.log); !differ {
			return
		}
	}
	tw.do(func(*session) {})
}

// both does the step in both, at the same time, and ends the test if one was abandoned.
func (tw *twins) both(step func(*session)) {
	tw.Helper()
	var done [2]bool
	var playing sync.WaitGroup
	for i, s := range []*session{tw.theirs, tw.ours} {
		playing.Go(func() {
			step(s)
			done[i] = true
		})
	}
	playing.Wait()
	if done != [2]bool{true, true} {
		tw.FailNow()
	}
}

// do does the step in both and fails the test if what they noted differs.
func (tw *twins) do(step func(*session)) {
	tw.Helper()
	tw.both(step)
	theirs, ours := tw.theirs.log, tw.ours.log
	if i, differ := firstDifference(theirs, ours); differ {
		w, g := excerpts(line(theirs, i), line(ours, i))
		tw.Fatalf("after\n%s\nwant %s\ngot  %s", list(theirs[:min(i, len(theirs))]), w, g)
	}
}

// Whatever commands a client says, in whatever order and however broken, the answers are
// the same, and the connection ends at the same one.
func TestRandomCommands(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	rapid.Check(t, func(r *rapid.T) {
		tw := p.twins(t, r, freshTopic())
		defer tw.close()
		tw.do(consumer("a"))
		for i := 0; i < 12 && !tw.theirs.over; i++ {
			command := commands().Draw(r, "command")
			tw.do(func(s *session) { s.upTo(command, fmt.Sprintf("barrier%09d", i)) })
		}
		tw.do(depths())
	})
}

// upTo sends the command and behind it one that is answered by an error that tells them
// apart, and notes all frames up to it. When there can be no more of them, s is over.
func (s *session) upTo(command, barrier string) {
	s.write("a", command+"FIN "+barrier+"\n")
	s.note("> %s", tell(command))
	for {
		line := s.frame(s.conn("a"), 2*aMoment)
		switch {
		case strings.Contains(line, barrier):
			return
		case line == ended || line == silent:
			s.note("%s", line)
			s.over = true
			return
		default:
			s.note("%s", line)
		}
	}
}

// commands are random commands of one who has subscribed. Some have a body that is not
// what they say it is.
func commands() *rapid.Generator[string] {
	name := rapid.OneOf(rapid.Just("{T}"), rapid.SampledFrom([]string{"", "a/b", "x#ephemeral", "ä", strings.Repeat("n", 65)}))
	number := rapid.OneOf(
		rapid.Map(rapid.IntRange(-2, 3), func(n int) string { return fmt.Sprint(n) }),
		rapid.SampledFrom([]string{"", "x", "2500", "2501", "3600000", "3600001", "007", "1e3", "18446744073709551616", "99999999999999999999"}),
	)
	id := rapid.SampledFrom([]string{"0123456789abcdef", "0123456789ABCDEF", "", "short", "0123456789abcdefg", "not a number !!!"})
	body := rapid.OneOf(
		rapid.Map(rapid.StringN(0, 20, 40), sized),
		rapid.Map(rapid.SliceOfN(rapid.StringN(0, 5, 10), 0, 4), func(bodies []string) string { return sized(batch(bodies...)) }),
		rapid.Map(rapid.IntRange(-2, 1<<30), be32),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 12), func(b []byte) string { return string(b) }),
	)
	text := func(gens ...*rapid.Generator[string]) *rapid.Generator[string] {
		return rapid.Custom(func(r *rapid.T) string {
			var b strings.Builder
			for _, g := range gens {
				b.WriteString(g.Draw(r, "part"))
			}
			return b.String()
		})
	}
	just := rapid.Just[string]
	eol := rapid.SampledFrom([]string{"\n", "\n", "\r\n", " \n", " more\n"})
	good := rapid.Map(rapid.StringN(1, 20, 40), func(b string) string { return pub("{T}", b) })
	return rapid.OneOf(
		good, good,
		rapid.Map(rapid.SliceOfN(rapid.StringN(1, 5, 10), 1, 4), func(bodies []string) string { return mpub("{T}", bodies...) }),
		text(just("RDY 0"), eol), text(just("NOP"), eol),
		text(just("FIN "), id, eol), text(just("REQ "), id, just(" "), number, eol), text(just("TOUCH "), id, eol),
		text(just("PUB "), name, eol, body), text(just("MPUB "), name, eol, body), text(just("DPUB "), name, just(" "), number, eol, body),
		text(just("RDY "), rapid.SampledFrom([]string{"-1", "x", "2501", "0"}), eol), text(just("CLS"), eol),
		text(rapid.StringN(0, 10, 20), eol),
	)
}

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
const heed = 20 * time.Millisecond

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
	l.do(func(s *session) { s.upTo(command+" {body:"+body+"}"+rest+"\n", "barrier000000000") })
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
		l.do(func(s *session) { s.upTo("RDY 0\n", "barrier000000000") })
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

// Whatever is asked of the HTTP door, the answers are the same.
func TestRandomRequests(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	rapid.Check(t, func(r *rapid.T) {
		tw := p.twins(t, r, freshTopic())
		defer tw.close()
		for range 8 {
			method, target, body := requests(r)
			tw.do(web(method, target, body))
		}
		tw.do(depths())
	})
}

func requests(r *rapid.T) (method, target, body string) {
	paths := []string{"/pub", "/mpub", "/stats"}
	for _, verb := range []string{"create", "delete", "empty", "pause", "unpause"} {
		paths = append(paths, "/topic/"+verb, "/channel/"+verb)
	}
	path := rapid.SampledFrom(paths).Draw(r, "path")
	method = rapid.SampledFrom([]string{"POST", "POST", "POST", "POST", "GET", "PUT"}).Draw(r, "method")
	var query []string
	for _, of := range []struct {
		key    string
		values []string
	}{
		{"topic", []string{"{T}", "{T}", "{T}", "{T}.b", "", "a/b", "%zz", "{T}%23ephemeral"}},
		{"channel", []string{"c", "c", "d", "", "a/b", "e%23ephemeral"}},
		{"defer", []string{"0", "-1", "x", "3600000", "3600001"}},
		{"binary", []string{"true", "false", "0", "1", "maybe", ""}},
	} {
		if rapid.IntRange(0, 9).Draw(r, of.key+" given") < 6 {
			query = append(query, of.key+"="+rapid.SampledFrom(of.values).Draw(r, of.key))
		}
	}
	target = path + "?" + strings.Join(append(query, "format=json&include_mem=0&include_clients=0"), "&")
	body = rapid.OneOf(
		rapid.StringN(0, 20, 40),
		rapid.SampledFrom([]string{"a\nb\n\nc", batch("a", "b"), batch("a", ""), be32(1) + be32(9) + "ab", "\n\n"}),
	).Draw(r, "body")
	if path == "/stats" && !strings.Contains(target, "topic=") {
		target += "&topic={T}" // other tests run at the same time
	}
	return method, target, body
}
