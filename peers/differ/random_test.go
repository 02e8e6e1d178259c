package differ

import (
	"fmt"
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
		for i := 0; i < 12 && !tw.theirs.over && !tw.ours.over; i++ {
			command := commands().Draw(r, "command")
			tw.both(func(s *session) { s.upTo(command, fmt.Sprintf("barrier%09d", i), 2*aMoment) })
		}
		tw.do(func(s *session) { s.toTheEnd("barrier") })
		tw.do(depths())
	})
}

// upTo sends the command and behind it one that is answered by an error that tells them
// apart, and notes all frames up to it. If it does not come, because the connection has
// ended, or the command has taken it for a part of itself, s is over.
func (s *session) upTo(command, barrier string, within time.Duration) {
	s.write("a", command+"FIN "+barrier+"\n")
	s.note("> %s", tell(command))
	for {
		line := s.frame(s.conn("a"), within)
		switch {
		case strings.Contains(line, barrier):
			return
		case line == ended || line == silent:
			s.over = true
			return
		default:
			s.note("%s", line)
		}
	}
}

// toTheEnd notes all frames to the end of the connection, but for those of barriers.
func (s *session) toTheEnd(barrier string) {
	shut("a")(s)
	for {
		line := s.wanted("a")
		if !strings.Contains(line, barrier) {
			s.note("%s", line)
		}
		if line == ended || line == late || strings.HasPrefix(line, broken) {
			return
		}
	}
}

// commands are random commands of one who has subscribed. Some have a body that is not
// what they say it is.
func commands() *rapid.Generator[string] {
	name := rapid.OneOf(rapid.Just("{T}"), rapid.SampledFrom([]string{"", "a/b", "x#ephemeral", "ä", strings.Repeat("n", 65)}))
	// None that is over while its script runs.
	number := rapid.SampledFrom([]string{"-2", "-1", "0", "000", "", "x", "3600000", "3600001", "1e3", "18446744073709551616", "99999999999999999999"})
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

// Whatever a client sends in one go, and however it is cut into pieces, all of it is
// answered the same.
func TestRandomConversations(t *testing.T) {
	t.Parallel()
	p := both(t, nil)
	rapid.Check(t, func(r *rapid.T) {
		tw := p.twins(t, r, freshTopic())
		defer tw.close()
		said := ""
		for _, command := range rapid.SliceOfN(rapid.OneOf(beginnings(), commands()), 1, 8).Draw(r, "commands") {
			said += command
		}
		cut := rapid.IntRange(0, len(said)).Draw(r, "cut")
		tw.do(open("a"))
		tw.do(steps{send("a", said[:cut]), send("a", said[cut:]), shut("a"), end("a"), depths()}.play)
	})
}

// beginnings are commands of one who has not subscribed.
func beginnings() *rapid.Generator[string] {
	number := rapid.Map(rapid.SampledFrom([]int{-2, -1, 0, 1, 24, 25, 63, 64, 99, 100, 999, 1000, 60000, 65536, 900000, 900001}), func(n int) string { return fmt.Sprint(n) })
	value := rapid.OneOf(number, rapid.SampledFrom([]string{"null", "true", `"x"`, "1.5", "{}", ""}))
	field := rapid.Custom(func(r *rapid.T) string {
		key := rapid.SampledFrom([]string{
			"client_id", "hostname", "user_agent", "heartbeat_interval", "output_buffer_size", "output_buffer_timeout", "sample_rate", "msg_timeout",
			"feature_negotiation", "deflate_level", "x",
		}).Draw(r, "key")
		return `"` + key + `":` + value.Draw(r, "value")
	})
	return rapid.OneOf(
		rapid.Map(rapid.SliceOfN(field, 0, 3), func(fields []string) string { return identify("{" + strings.Join(fields, ",") + "}") }),
		rapid.Just(identify(`{"feature_negotiation":true,"msg_timeout":5000}`)),
		rapid.Map(rapid.SampledFrom([]string{"c", "", "a/b", "c more"}), func(channel string) string { return sub("{T}", channel) }),
		rapid.Just(pub("{T}", "x")), rapid.Just("NOP\n"),
	)
}
