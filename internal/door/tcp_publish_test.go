package door

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

func TestPipelinedPublishesAreAnsweredEach(t *testing.T) {
	d := serveTCP(t, Config{})
	p, c := d.dial(), d.dial()
	c.send("SUB t c\nRDY 2500\n")
	c.want("OK")
	c.send("NOP\n")
	go func() {
		var all strings.Builder
		for i := range 2000 {
			all.WriteString(pub("t", fmt.Sprint(i)))
			if i%7 == 0 {
				all.WriteString(pub("other", "x") + "DPUB t 60000\n" + sized("later"))
			}
		}
		_, _ = p.Write([]byte(all.String()))
	}()
	for range 2000 + 2*286 {
		p.want("OK")
	}
	for i := range 2000 {
		c.want("1:" + fmt.Sprint(i))
	}
	if got := d.depth("t", "c"); got != (millrace.Depth{InFlight: 2000, Deferred: 286}) {
		t.Errorf("the channel holds %+v", got)
	}
}

func TestATopicThatWasDeletedIsMadeAgainByTheNextPublish(t *testing.T) {
	d := serveTCP(t, Config{})
	p := d.dial()
	for _, command := range []string{pub("t", "x"), mpub("t", "x"), "DPUB t 0\n" + sized("x")} {
		p.send(command)
		p.want("OK")
		if err := d.broker.DeleteTopic("t"); err != nil {
			t.Fatal(err)
		}
	}
	p.send(pub("t", "y"))
	p.want("OK")
	c := d.dial()
	c.send("SUB t c\nRDY 5\n")
	c.want("OK", "1:y")
}

func TestAPublishThatFailsSaysSoAndEndsTheConnection(t *testing.T) {
	b, err := broker.Open(broker.Options{Logger: quiet(), MaxMemory: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	d := serveTCPOf(t, b, Config{})
	large := strings.Repeat("x", 200_000)
	for command, want := range map[string]string{
		pub("t", large):                 "!E_PUB_FAILED PUB failed publish to topic t: ",
		mpub("t", large):                "!E_MPUB_FAILED MPUB failed publish to topic t: ",
		"DPUB t 5\n" + sized(large):     "!E_DPUB_FAILED DPUB failed publish to topic t: ",
		pub("t", "x") + pub("t", large): "",
	} {
		p := d.dial()
		p.send(command)
		got := p.frame()
		if want == "" && got == "OK" {
			got = p.frame()
		}
		if !strings.HasPrefix(got, want) || !strings.Contains(got, millrace.ErrNoSpace.Error()) {
			t.Errorf("got %q, want %q and that there is no space", got, want)
		}
		p.wantEnd()
	}
}

func TestMessagesOfAllSizesArriveWhole(t *testing.T) {
	d := serveTCP(t, Config{})
	p, c := d.dial(), d.dial()
	c.send("SUB t c\nRDY 2500\n")
	c.want("OK")
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
	var sent []string
	for _, size := range []int{1, 2, 100, 65_000, 65_501, 65_502, 65_503, 65_536, 100_000, 1 << 20, 5, 70_000, 1} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(random.Uint32())
		}
		sent = append(sent, string(body))
	}
	for _, body := range sent {
		p.send(pub("t", body))
		p.want("OK")
	}
	p.send(mpub("t", sent...))
	p.want("OK")
	for i := range 2 * len(sent) {
		if m := c.message(); m.body != sent[i%len(sent)] {
			t.Fatalf("message %d has %d bytes and differs from the one with %d that was sent", i, len(m.body), len(sent[i%len(sent)]))
		}
	}
}
