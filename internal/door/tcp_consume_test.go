package door

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace"
)

func TestRDYIsAWindowNotACount(t *testing.T) {
	d := serveTCP(t, Config{})
	p, c := d.dial(), d.dial()
	p.send(mpub("t", "1", "2", "3", "4", "5", "6"))
	p.want("OK")
	c.send("SUB t c\n")
	c.want("OK")
	c.wantNothing()
	c.send("RDY 2\n")
	one, two := c.message(), c.message()
	c.wantNothing()
	c.send("FIN ", one.id, "\n")
	three := c.message()
	c.wantNothing()
	c.send("RDY 1\n", "FIN ", two.id, "\n") // now it has as many as it may
	c.wantNothing()
	c.send("REQ ", three.id, " 0\n")
	c.want("2:3")
	c.send("RDY 2\n")
	c.want("1:4")
	c.wantNothing()
	c.send("RDY 0\n")
	c.wantNothing()
	c.send("RDY 100\n")
	c.want("1:5", "1:6")
}

func TestAfterCLSNothingComesAndWhatIsInFlightCanBeSettled(t *testing.T) {
	d := serveTCP(t, Config{})
	p, c := d.dial(), d.dial()
	p.send(mpub("t", "1", "2", "3", "4"))
	p.want("OK")
	c.send("SUB t c\nRDY 3\n")
	c.want("OK")
	one, two, three := c.message(), c.message(), c.message()
	c.send("CLS\n")
	c.want("CLOSE_WAIT")
	c.send("RDY 10\n", "TOUCH ", one.id, "\nFIN ", one.id, "\nREQ ", two.id, " 0\nFIN ", three.id, "\n")
	c.wantNothing()
	if got := d.depth("t", "c"); got != (millrace.Depth{Ready: 2}) {
		t.Errorf("the channel holds %+v, want 2 ready", got)
	}
}

func TestAConnectionThatDiesGivesItsMessagesBackAtOnce(t *testing.T) {
	d := serveTCP(t, Config{})
	p, dies, lives := d.dial(), d.dial(), d.dial()
	dies.send("SUB t c\nRDY 10\n")
	dies.want("OK")
	p.send(mpub("t", "1", "2"))
	p.want("OK")
	dies.want("1:1", "1:2")
	lives.send("SUB t c\nRDY 10\n")
	lives.want("OK")
	_ = dies.Close()
	lives.want("2:1", "2:2")
}

func TestAFatalErrorGivesMessagesBackBeforeTheClientHasGone(t *testing.T) {
	d := serveTCP(t, Config{})
	p, bad, good := d.dial(), d.dial(), d.dial()
	bad.send("SUB t c\nRDY 10\n")
	bad.want("OK")
	p.send(pub("t", "1"))
	p.want("OK")
	bad.want("1:1")
	good.send("SUB t c\nRDY 10\n")
	good.want("OK")
	bad.send("RDY x\n")
	good.want("2:1")
	bad.want("!E_INVALID RDY could not parse count x")
}

func TestAMessageIsSettledByWhoHoldsItAlone(t *testing.T) {
	d := serveTCP(t, Config{})
	p, mine, other := d.dial(), d.dial(), d.dial()
	for _, c := range []*client{mine, other} {
		c.send("SUB t c\n")
		c.want("OK")
	}
	p.send(pub("t", "1"))
	p.want("OK")
	mine.send("RDY 1\n")
	id := mine.message().id
	other.send("FIN ", id, "\nFIN ", id, "\nREQ ", id, " 0\nTOUCH ", id, "\n")
	other.want(
		"!E_FIN_FAILED FIN "+id+" failed client does not own message",
		"!E_FIN_FAILED FIN "+id+" failed client does not own message",
		"!E_REQ_FAILED REQ "+id+" failed client does not own message",
		"!E_TOUCH_FAILED TOUCH "+id+" failed client does not own message",
	)
	mine.send("FIN ", id, "\nFIN ", id, "\n")
	mine.want("!E_FIN_FAILED FIN " + id + " failed ID not in flight")
}

// FINs that are settled together are still each for itself, and in the order of all else.
func TestARunOfFINsAndREQsIsSettledEachForItself(t *testing.T) {
	d := serveTCP(t, Config{})
	p, c := d.dial(), d.dial()
	var bodies []string
	for i := range 1500 {
		bodies = append(bodies, fmt.Sprint(i))
	}
	p.send(mpub("t", bodies...))
	p.want("OK")
	c.send("SUB t c\nRDY 1500\n")
	c.want("OK")
	const none = "0000000000ffffff"
	var commands strings.Builder
	var want []string
	for i := range bodies {
		m := c.message()
		switch {
		case i%100 == 7:
			commands.WriteString("FIN " + none + "\n")
			want = append(want, "!E_FIN_FAILED FIN "+none+" failed ID not in flight")
			fallthrough
		case i%3 > 0:
			commands.WriteString("FIN " + m.id + "\n")
		default:
			commands.WriteString("REQ " + m.id + " 60000\n")
		}
		if i%400 == 9 {
			commands.WriteString("FIN " + m.id + "\n")
			want = append(want, "!E_FIN_FAILED FIN "+m.id+" failed ID not in flight")
		}
	}
	c.send(commands.String(), "CLS\n")
	c.want(want...)
	c.want("CLOSE_WAIT")
	if got := d.depth("t", "c"); got.InFlight != 0 || got.Ready != 0 || got.Deferred == 0 {
		t.Errorf("the channel holds %+v, want deferred ones alone", got)
	}
	if s := d.onlyClient(func(s clientStats) bool { return s.channel.topic != "" }); s.FinishCount+s.RequeueCount != 1500 {
		t.Errorf("finished %d and requeued %d, want 1500 in all", s.FinishCount, s.RequeueCount)
	}
}

func TestREQsThatStandTogetherKeepTheirOwnDelays(t *testing.T) {
	d := serveTCP(t, Config{})
	p, c := d.dial(), d.dial()
	p.send(mpub("t", "1", "2", "3"))
	p.want("OK")
	c.send("SUB t c\nRDY 3\n")
	c.want("OK")
	one, two, three := c.message(), c.message(), c.message()
	c.send("REQ ", one.id, " 60000\nREQ ", two.id, " 60000\nREQ ", three.id, " 0\n")
	c.want("2:3")
	c.wantNothing()
}

// onlyClient returns the one client that there should be.
func (d *tcpDoor) onlyClient(which func(clientStats) bool) clientStats {
	d.t.Helper()
	var found []clientStats
	d.eachClient(func(s clientStats) {
		if which(s) {
			found = append(found, s)
		}
	})
	if len(found) != 1 {
		d.t.Fatalf("%d clients, want one: %+v", len(found), found)
	}
	return found[0]
}

func TestABacklogComesWholeAndInOrderThroughAnyOutputBuffer(t *testing.T) {
	for _, size := range []int{0, -1, 64, 1000, 65536} {
		d := serveTCP(t, Config{})
		p, c := d.dial(), d.dial()
		var bodies []string
		for i := range 2000 {
			bodies = append(bodies, strings.Repeat(fmt.Sprint(i, " "), 40))
		}
		p.send(mpub("t", bodies...))
		p.want("OK")
		c.send(identify(fmt.Sprintf(`{"output_buffer_size":%d}`, size)), "SUB t c\nRDY 2500\n")
		c.want("OK", "OK")
		for i, want := range bodies {
			if got := c.message().body; got != want {
				t.Fatalf("size %d: message %d is %q", size, i, got)
			}
		}
	}
}

func TestAPumpGoesOnAfterTheBrokerCouldNotRead(t *testing.T) {
	virtually(t, Config{}, func(t *testing.T, d *tcpDoor, _ func() *client) {
		ctx, cancel := context.WithCancel(t.Context())
		_, its := net.Pipe()
		p := &pump{conn: d.newConn(ctx, its)}
		start := time.Now()
		if !p.goesOn(io.ErrUnexpectedEOF) || time.Since(start) != retryRead {
			t.Errorf("it does not try again in %v", retryRead)
		}
		start = time.Now()
		if p.goesOn(errNotWritten) || p.goesOn(fmt.Errorf("channel c: %w", millrace.ErrClosed)) || time.Since(start) != 0 {
			t.Error("it goes on when there is no use")
		}
		cancel()
		if p.goesOn(io.ErrUnexpectedEOF) {
			t.Error("it goes on when the door closes")
		}
	})
}

func TestASampleIsKeptAndTheRestDiscarded(t *testing.T) {
	d := serveTCP(t, Config{})
	p, c := d.dial(), d.dial()
	c.send(identify(`{"sample_rate":30}`), "SUB t c\nRDY 2500\n")
	c.want("OK", "OK")
	const all = 2000
	for range 10 {
		p.send(mpub("t", make200()...))
		p.want("OK")
	}
	got := 0
	eventually(t, "all were sent or discarded", func() bool { return d.depth("t", "c").Ready == 0 })
	for d.depth("t", "c").InFlight > int64(got) {
		c.message()
		got++
	}
	if got < all/5 || got > all/2 {
		t.Errorf("%d of %d messages came, want about 31 %%", got, all)
	}
}

func make200() []string {
	bodies := make([]string, 200)
	for i := range bodies {
		bodies[i] = "x"
	}
	return bodies
}

func TestEphemeralChannelsAndTopicsGoWithTheirLastClient(t *testing.T) {
	d := serveTCP(t, Config{})
	one, two := d.dial(), d.dial()
	for _, c := range []*client{one, two} {
		c.send("SUB e#ephemeral c#ephemeral\n")
		c.want("OK")
	}
	_ = one.Close()
	eventually(t, "one client is left", func() bool { return d.clientsOf("e#ephemeral", "c#ephemeral") == 1 })
	if topic := d.broker.Lookup("e#ephemeral"); topic == nil || topic.Lookup("c#ephemeral") == nil {
		t.Error("the channel went with its first client")
	}
	_ = two.Close()
	eventually(t, "the topic is gone", func() bool { return d.broker.Lookup("e#ephemeral") == nil })
}

func (d *tcpDoor) clientsOf(topic, channel string) int {
	n := 0
	d.eachClient(func(s clientStats) {
		if s.channel == (channelName{topic, channel}) {
			n++
		}
	})
	return n
}

func TestDeletingAChannelClosesItsClients(t *testing.T) {
	d := serveTCP(t, Config{})
	c, other := d.dial(), d.dial()
	c.send("SUB t c\nRDY 1\n")
	c.want("OK")
	other.send("SUB t other\n")
	other.want("OK")
	if err := d.broker.DeleteChannel("t", "c"); err != nil {
		t.Fatal(err)
	}
	c.wantEnd()
	other.wantNothing()
	if err := d.broker.DeleteTopic("t"); err != nil {
		t.Fatal(err)
	}
	other.wantEnd()
}

func TestTheClientsOfAChannelCanBeLimited(t *testing.T) {
	d := serveTCP(t, Config{MaxChannelConsumers: 1})
	one, two, other := d.dial(), d.dial(), d.dial()
	one.send("SUB t c\n")
	one.want("OK")
	two.send("SUB t c\n")
	two.want("!E_SUB_FAILED SUB failed consumers for t:c exceeds limit of 1")
	two.wantEnd()
	other.send("SUB t d\n")
	other.want("OK")
	_ = one.Close()
	eventually(t, "the place is free", func() bool {
		c := d.dial()
		c.send("SUB t c\n")
		return c.frame() == "OK"
	})
}
