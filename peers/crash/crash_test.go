package crash

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nsqio/go-nsq"

	"github.com/millrace/millrace/peers/node"
)

var (
	kills = flag.Int("kills", 30, "how often the broker is killed")
	seed  = flag.Uint64("seed", 0, "of the times between kills; 0 picks one")
)

// How long the broker runs before it is killed, at least and at most.
const (
	shortest = 10 * time.Millisecond
	longest  = 250 * time.Millisecond
)

// Not one acknowledged message is missing, whatever the broker syncs: the page cache
// survives the death of a process.
func TestKilledUnderLoad(t *testing.T) {
	millrace, err := node.BuildMillrace(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("seed %d", *seed)
	for i, sync := range []string{"always", "2s", "never"} {
		t.Run("sync="+sync, func(t *testing.T) {
			killAgainAndAgain(t, millrace, sync, (*kills+2)/3, rand.New(rand.NewPCG(*seed, uint64(i))))
		})
	}
}

func killAgainAndAgain(t *testing.T, millrace, sync string, kills int, random *rand.Rand) {
	p, err := node.MillraceProcess(millrace, t.TempDir(), "--sync="+sync)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Kill() }()
	l := newLoad(p.TCP, p.HTTP)
	l.start(t)
	for range kills {
		time.Sleep(shortest + time.Duration(random.Int64N(int64(longest-shortest))))
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
	}
	l.stopPublishing()
	l.consume(t, waiting, func(*nsq.Message) {})
	missing := l.drain(30 * time.Second)
	l.stopConsuming()
	t.Logf("%d kills: %s", kills, l)
	for channel, bodies := range missing {
		if len(bodies) > 0 {
			t.Errorf("channel %s: %d acknowledged messages never came, such as %s", channel, len(bodies), bodies[0])
		}
	}
	if invented := l.invented(); len(invented) > 0 {
		t.Errorf("%d messages came that nobody published, such as %q", len(invented), invented[0])
	}
	if l.acknowledged() == 0 {
		t.Error("nothing was acknowledged")
	}
	if err := p.Stop(); err != nil {
		t.Errorf("after all that it does not end in order: %v", err)
	}
}

// String tells how much happened.
func (l *load) String() string {
	return fmt.Sprintf("%d messages acknowledged, %d unanswered, %d deliveries", l.acknowledged(), l.unanswered(), l.deliveries.Load())
}
