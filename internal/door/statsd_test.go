package door

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// pushed returns the lines that a door pushes in one interval, without the prefix, and
// fails the test if a packet is too large.
func pushed(t *testing.T, conn net.PacketConn, limit int, until func(lines map[string]string) bool) map[string]string {
	t.Helper()
	lines := make(map[string]string)
	packet := make([]byte, 1<<16)
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for !until(lines) {
		n, _, err := conn.ReadFrom(packet)
		if err != nil {
			t.Fatalf("%v; so far %v", err, lines)
		}
		if n > limit {
			t.Errorf("a packet of %d bytes, the limit is %d", n, limit)
		}
		for line := range strings.Lines(string(packet[:n])) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			name, ok := strings.CutPrefix(name, "nsq.me_example_4151.")
			if !ok {
				t.Errorf("%q lacks the prefix", line)
			}
			lines[name] = value
		}
	}
	return lines
}

func TestStatsdGetsWhatNsqdWouldPush(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d := busy(t)
	d.cfg.Statsd = Statsd{Address: conn.LocalAddr().String(), Interval: 20 * time.Millisecond, PacketSize: 120}.withDefaults()
	for _, ch := range []channelName{{"gone#ephemeral", "c"}, {"orders", "tail#ephemeral"}} {
		if _, err := d.broker.Channel(ch.topic, ch.channel); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	has := func(name string) func(map[string]string) bool {
		return func(lines map[string]string) bool { return lines[name] != "" }
	}
	lines := pushed(t, conn, 120, has("mem.gc_runs"))
	for name, want := range map[string]string{
		"topic.orders.message_count": "3|c", "topic.orders.message_bytes": "11|c", "topic.orders.depth": "0|g", "topic.orders.backend_depth": "0|g",
		"topic.orders.channel.work.message_count": "3|c", "topic.orders.channel.work.depth": "0|g",
		"topic.orders.channel.work.backend_depth": "0|g", "topic.orders.channel.work.in_flight_count": "1|g",
		"topic.orders.channel.work.deferred_count": "1|g", "topic.orders.channel.work.requeue_count": "1|c",
		"topic.orders.channel.work.timeout_count": "0|c", "topic.orders.channel.work.clients": "1|g",
		"topic.orders.channel.archive.depth": "3|g", "topic.gone#ephemeral.depth": "0|g",
		"topic.orders.channel.tail#ephemeral.depth": "0|g",
	} {
		if lines[name] != want {
			t.Errorf("%s is %q, want %q", name, lines[name], want)
		}
	}
	for _, name := range []string{"heap_objects", "heap_idle_bytes", "heap_in_use_bytes", "heap_released_bytes", "gc_pause_usec_100", "gc_pause_usec_99", "gc_pause_usec_95", "next_gc_bytes"} {
		if value := lines["mem."+name]; !strings.HasSuffix(value, "|g") {
			t.Errorf("mem.%s is %q", name, value)
		}
	}
	// What only grows is pushed as what has come since.
	lines = pushed(t, conn, 120, has("mem.gc_runs"))
	if got := lines["topic.orders.message_count"]; got != "0|c" {
		t.Errorf("the second time message_count is %q", got)
	}
}

func TestStatsdCanBeSpared(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d := opened(t, Config{Statsd: Statsd{
		Address: conn.LocalAddr().String(), Interval: time.Millisecond, NoMemory: true, NoEphemeral: true,
	}})
	for _, ch := range []channelName{{"gone#ephemeral", "c"}, {"orders", "tail#ephemeral"}, {"orders", "work"}} {
		if _, err := d.broker.Channel(ch.topic, ch.channel); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	lines := pushed(t, conn, 508, func(lines map[string]string) bool { return lines["topic.orders.channel.work.clients"] != "" })
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		if strings.Contains(name, "#ephemeral") || strings.HasPrefix(name, "mem.") {
			t.Errorf("%s is pushed", name)
		}
	}
}

func TestACountThatShrankBelongsToATopicThatWasMadeAnew(t *testing.T) {
	of := func(n uint64) statsdCounts {
		return statsdCounts{topics: []topicStats{{TopicName: "t", MessageCount: n}}}
	}
	push := statsdPush{limit: 1000}
	push.counts(of(10), of(3))
	if got := string(push.packets[0]); !strings.HasPrefix(got, "topic.t.message_count:3|c\n") {
		t.Errorf("pushed %q", got)
	}
}

func TestThePrefixOfStatsdIsNsqds(t *testing.T) {
	for prefix, want := range map[string]string{
		"": "nsq.10_0_0_1_4151.", "nsq.%s": "nsq.10_0_0_1_4151.", "nsq.%s.": "nsq.10_0_0_1_4151.", "x": "x.", ".": "",
	} {
		if got := (Statsd{Prefix: prefix}).withDefaults().prefixFor("10.0.0.1", 4151); got != want {
			t.Errorf("%q: %q, want %q", prefix, got, want)
		}
	}
}
