package differ

import (
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/peers/node"
)

// statsd receives what a broker pushes: the last value of each gauge, and what each counter
// has come to.
type statsd struct {
	net.PacketConn

	mu     sync.Mutex // guards what follows
	values map[string]string
	counts map[string]int
	last   int      // how often the last topic came
	wrong  []string // lines that are none, packets that are too large
}

const packetSize = 200

func newStatsd(t *testing.T) *statsd {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &statsd{PacketConn: conn, values: make(map[string]string), counts: make(map[string]int)}
	var reading sync.WaitGroup
	reading.Go(s.read)
	t.Cleanup(func() {
		_ = conn.Close()
		reading.Wait()
	})
	return s
}

func (s *statsd) read() {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := s.ReadFrom(buf)
		if err != nil {
			return
		}
		s.mu.Lock()
		if n > packetSize {
			s.wrong = append(s.wrong, fmt.Sprintf("a packet of %d bytes", n))
		}
		for line := range strings.Lines(string(buf[:n])) {
			s.line(line)
		}
		s.mu.Unlock()
	}
}

var metric = regexp.MustCompile(`^([^:]+):(-?\d+)\|([cg])\n$`)

// line takes a line; the caller holds the lock.
func (s *statsd) line(line string) {
	m := metric.FindStringSubmatch(line)
	if m == nil {
		s.wrong = append(s.wrong, strconv.Quote(line))
		return
	}
	name, value := m[1], m[2]
	if strings.HasSuffix(name, ".empty.message_count") {
		s.last++
	}
	switch {
	case strings.Contains(name, ".mem."), strings.HasSuffix(name, ".backend_depth"):
		s.values[name] = m[3]
	case m[3] == "c":
		n, _ := strconv.Atoi(value)
		s.counts[name] += n
		s.values[name] = fmt.Sprintf("%d c", s.counts[name])
	default:
		s.values[name] = value + " g"
	}
}

// pushes is how often counts have to come, so that one that comes twice is noticed.
const pushes = 3

// pushed is how often all counts have come.
func (s *statsd) pushed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// told notes everything that has come, with the port of the broker's in it named.
func (s *statsd) told(broker *node.Node) []string {
	_, port, _ := net.SplitHostPort(broker.HTTP)
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := slices.Clone(s.wrong)
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		lines = append(lines, strings.ReplaceAll(name, "_"+port, "_PORT")+" "+s.values[name])
	}
	return lines
}

// What nsqd would push to statsd, Millrace pushes: the same names, counters and gauges.
func TestStatsd(t *testing.T) {
	t.Parallel()
	theirs, ours := programs(t)
	for name, flags := range map[string][]string{
		"as it is":       nil,
		"with a prefix":  {"--statsd-prefix=a.%s.b", "--statsd-mem-stats=false", "--broadcast-address=here.example"},
		"no prefix":      {"--statsd-prefix=", "--statsd-mem-stats=false", "--statsd-exclude-ephemeral"},
		"with a dot end": {"--statsd-prefix=a.", "--statsd-mem-stats=false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := map[string]*statsd{"nsqd": newStatsd(t), "millrace": newStatsd(t)}
			with := func(who string) []string {
				// nsqd spreads what it sends over all but a second of it, and panics at a second.
				return append([]string{
					"--statsd-address=" + to[who].LocalAddr().String(), "--statsd-interval=1050ms", fmt.Sprint("--statsd-udp-packet-size=", packetSize),
				}, flags...)
			}
			p := pair{theirs: process(t, "nsqd", theirs, with("nsqd")), ours: process(t, "millrace", ours, with("millrace"))}
			tw := p.twins(t, t, "statsd")
			t.Cleanup(tw.close)
			tw.do(steps{
				given("1", "22", "333", "4444"), consumer("a"), send("a", "RDY 3\n"), frames("a", 3), send("a", "FIN <1>\nREQ <2> 3600000\n"), frames("a", 1),
				open("b"), ask("b", sub("{T}", "e#ephemeral")), open("c"), ask("c", sub("{T}#ephemeral", "c")), web("POST", "/topic/create?topic={T}.empty"),
			}.play)
			for until := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
				want, got := to["nsqd"].told(p.theirs), to["millrace"].told(p.ours)
				if to["nsqd"].pushed() >= pushes && to["millrace"].pushed() >= pushes && slices.Equal(want, got) {
					return
				}
				if time.Now().After(until) {
					script{}.judge(t, "statsd", want, got)
					return
				}
			}
		})
	}
}
