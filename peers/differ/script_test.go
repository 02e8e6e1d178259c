package differ

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/peers/node"
)

// Options are what both brokers are told.
type Options = node.Options

// script is what some clients do. Its topic is {T}, which is one of its own; the first
// message that comes to any of them has the id <1>, the next <2>.
type script struct {
	name  string
	steps steps

	// because names the line of the table (tableFile) that says why Millrace is meant to
	// differ, and ours is its transcript. Without it the two transcripts must be equal.
	because string
	ours    []string
}

type steps []func(*session)

func (st steps) play(s *session) {
	for _, step := range st {
		step(s)
	}
}

// open connects, and says that NSQ's protocol is spoken.
func open(names ...string) func(*session) {
	return func(s *session) {
		for _, name := range names {
			s.dial(name)
			s.write(name, "  V2")
		}
	}
}

// connect connects, and says nothing.
func connect(name string) func(*session) {
	return func(s *session) { s.dial(name) }
}

// hangUp closes the connection.
func hangUp(name string) func(*session) {
	return func(s *session) { _ = s.conn(name).Close() }
}

// shut says that the client will send nothing more.
func shut(name string) func(*session) {
	return func(s *session) {
		if c, ok := s.conn(name).Conn.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
	}
}

// send sends bytes.
func send(name string, parts ...string) func(*session) {
	return func(s *session) { s.write(name, strings.Join(parts, "")) }
}

// frames waits for n frames.
func frames(name string, n int) func(*session) {
	return func(s *session) {
		for range n {
			s.note("%s: %s", name, s.wanted(name))
		}
	}
}

// inAnyOrder waits for n frames whose order is not the broker's to promise.
func inAnyOrder(name string, n int) func(*session) {
	return func(s *session) {
		var lines []string
		for range n {
			lines = append(lines, s.wanted(name))
		}
		slices.Sort(lines)
		s.note("%s, in any order: %s", name, strings.Join(lines, "; "))
	}
}

// ask sends bytes and waits for one frame.
func ask(name string, parts ...string) func(*session) {
	return func(s *session) {
		send(name, parts...)(s)
		frames(name, 1)(s)
	}
}

// nothing waits for a moment in which nothing must come.
func nothing(name string) func(*session) { return whether(name, aMoment) }

// aWhile is how long a frame is waited for that one broker sends, and the other does not.
const aWhile = time.Second

// something waits for a frame that one broker sends, and the other does not.
func something(name string) func(*session) { return whether(name, aWhile) }

func whether(name string, within time.Duration) func(*session) {
	return func(s *session) { s.note("%s: %s", name, s.frame(s.conn(name), within)) }
}

// end reads until the broker closes.
func end(name string) func(*session) {
	return func(s *session) {
		for {
			line := s.wanted(name)
			s.note("%s: %s", name, line)
			if line == ended || line == late || strings.HasPrefix(line, broken) {
				return
			}
		}
	}
}

// fails sends bytes to which the answer is an error that ends the connection.
func fails(name string, parts ...string) func(*session) {
	return func(s *session) {
		send(name, parts...)(s)
		end(name)(s)
	}
}

// wait lets time pass.
func wait(d time.Duration) func(*session) {
	return func(*session) { time.Sleep(d) }
}

// play plays a script on one broker and returns the transcript.
func (sc script) play(t *testing.T, n *node.Node, topic string) []string {
	s := newSession(t, n, topic)
	defer s.close()
	sc.steps.play(s)
	return s.log
}

// pair is nsqd and Millrace, told the same.
type pair struct{ theirs, ours *node.Node }

// both starts the two.
func both(t *testing.T, change func(*Options)) pair {
	t.Helper()
	return pair{theirs: start(t, node.NSQD, change), ours: start(t, node.Millrace, change)}
}

// ordinary are the options of all brokers: each has a host of its own, and nsqd does not
// wait for more to write with a message.
func ordinary(o *Options) {
	host := newHost()
	o.TCPAddress, o.HTTPAddress, o.HTTPSAddress, o.BroadcastAddress = host+":0", host+":0", host+":0", host
	o.OutputBufferTimeout = time.Millisecond
}

// hosts numbers the hosts of loopback. On 127.0.0.1 there are others, some of which look for
// a broker that had our port before.
var hosts atomic.Int32

func newHost() string {
	pid, n := os.Getpid(), int(hosts.Add(1))
	return fmt.Sprintf("127.%d.%d.%d", 1+pid%250, pid/250%200+n/250, 1+n%250)
}

func start(t *testing.T, which node.Start, change func(*Options)) *node.Node {
	t.Helper()
	n, err := which(t.TempDir(), func(o *Options) {
		ordinary(o)
		if change != nil {
			change(o)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Errorf("stop %s: %v", n.Name, err)
		}
	})
	return n
}

// run plays the scripts on both, and compares.
func (p pair) run(t *testing.T, prefix string, scripts []script) {
	for i, sc := range scripts {
		topic := fmt.Sprintf("%s.%03d", prefix, i)
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			p.compare(t, sc, topic)
		})
	}
}

func (p pair) compare(t *testing.T, sc script, topic string) {
	t.Helper()
	var theirs, ours []string
	var playing sync.WaitGroup
	playing.Go(func() { theirs = sc.play(t, p.theirs, topic) })
	playing.Go(func() { ours = sc.play(t, p.ours, topic) })
	playing.Wait()
	sc.judge(t, topic, theirs, ours)
}

// judge fails the test unless the two transcripts are what they are meant to be.
func (sc script) judge(t *testing.T, topic string, theirs, ours []string) {
	t.Helper()
	want := theirs
	if sc.because != "" {
		why, ok := table.prove(sc.because)
		if !ok {
			t.Errorf("%s has no line %q", tableFile, sc.because)
		}
		if slices.Equal(theirs, ours) {
			t.Errorf("Millrace does not differ from nsqd, though it is meant to: %s\n%s", why, list(ours))
		}
		want = nil
		for _, line := range sc.ours {
			want = append(want, strings.ReplaceAll(line, "{T}", topic))
		}
	}
	if i, differ := firstDifference(want, ours); differ {
		t.Errorf("after\n%s", list(want[:min(i, len(want))]))
		for ; i < max(len(want), len(ours)); i++ {
			if line(want, i) != line(ours, i) {
				w, g := excerpts(line(want, i), line(ours, i))
				t.Errorf("\nwant %s\ngot  %s", w, g)
			}
		}
	}
	for _, line := range theirs {
		if strings.HasSuffix(line, late) {
			t.Errorf("the script waits for a frame that nsqd does not send:\n%s", list(theirs))
		}
	}
}

func list(lines []string) string { return "\t" + strings.Join(lines, "\n\t") }

// firstDifference is the first line that is not the same in both.
func firstDifference(want, got []string) (int, bool) {
	for i := range max(len(want), len(got)) {
		if line(want, i) != line(got, i) {
			return i, true
		}
	}
	return 0, false
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "nothing more"
}

// excerpts are what stands around the first byte that is not the same in both.
func excerpts(want, got string) (string, string) {
	same := 0
	for same < min(len(want), len(got)) && want[same] == got[same] {
		same++
	}
	cut := func(text string) string {
		from, to := max(same-150, 0), min(same+250, len(text))
		if from > 0 {
			return "… " + text[from:to]
		}
		return text[:to]
	}
	return cut(want), cut(got)
}

// sized is text with its length before it.
func sized(text string) string { return be32(len(text)) + text }

// be32 is a number as it goes over the wire. Negative ones wrap, as scripts want.
func be32(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }

func pub(topic, body string) string { return "PUB " + topic + "\n" + sized(body) }

func dpub(topic, delay, body string) string {
	return "DPUB " + topic + " " + delay + "\n" + sized(body)
}

// batch is the body of an MPUB.
func batch(bodies ...string) string {
	text := be32(len(bodies))
	for _, b := range bodies {
		text += sized(b)
	}
	return text
}

func mpub(topic string, bodies ...string) string {
	return "MPUB " + topic + "\n" + sized(batch(bodies...))
}

func identify(json string) string { return "IDENTIFY\n" + sized(json) }

func sub(topic, channel string) string { return "SUB " + topic + " " + channel + "\n" }
