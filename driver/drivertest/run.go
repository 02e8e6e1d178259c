package drivertest

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
)

// Claim is something that a broker promises; its text names the subtest.
type Claim string

// The claims. A driver's Harness may differ from any of them, with a reason.
const (
	Intact          Claim = "a message arrives as it was published"
	Order           Claim = "one publisher's messages arrive in order"
	Large           Claim = "a large message arrives"
	TooLarge        Claim = "a batch with a message that is too large is refused as a whole"
	Competing       Claim = "consumers of a channel share its messages"
	Broadcast       Claim = "every channel gets every message"
	Backlog         Claim = "the first channel gets what waited in the topic, a later one does not"
	Declared        Claim = "a declared channel keeps messages for its consumers"
	Expiry          Claim = "a message is delivered again when its lease has ended"
	Extension       Claim = "an extended lease lasts longer"
	LateAck         Claim = "an ack that comes too late is refused"
	Attempts        Claim = "deliveries of a message are counted"
	Nack            Claim = "a nacked message comes again at once"
	NackDelay       Claim = "a message nacked with a delay comes again when that is over"
	PublishDelay    Claim = "a message published with a delay comes when that is over"
	GiveBack        Claim = "a closed subscription gives its messages back at once"
	Prefetch        Claim = "a subscription holds no more than its prefetch"
	Pause           Claim = "prefetch 0 pauses a subscription"
	Depth           Claim = "depth tells what is ready and in flight"
	DeleteChannel   Claim = "a deleted channel is gone with its messages"
	DeleteTopic     Claim = "a deleted topic is gone with its messages"
	Ephemeral       Claim = "an ephemeral channel goes with its last consumer"
	Contexts        Claim = "what waits ends with its context, and loses nothing"
	BadNames        Claim = "bad names are refused"
	Closed          Claim = "everything is refused after close"
	Concurrent      Claim = "everything can be used concurrently"
	SurvivesRestart Claim = "messages, acks and deferrals survive a restart of the broker"
)

// Harness is a broker to be tested.
type Harness struct {
	// Open connects to the broker. The suite closes the connection. It is called once,
	// and once more after Restart.
	Open func(t *testing.T) millrace.Broker
	// Restart stops the broker and starts it again; there is no connection meanwhile.
	// nil when it keeps nothing or cannot be restarted.
	Restart func(t *testing.T)
	// Differs tells which claims do not hold for this broker, and why.
	Differs map[Claim]string
	// Lease is a short lease that the broker can keep. 0 means 300 ms.
	Lease time.Duration
	// Delay is a short delay that the broker can keep. 0 means 1 s.
	Delay time.Duration
	// Slack is how much later than it should something may happen or become visible.
	// 0 means 2 s.
	Slack time.Duration
	// TooLarge is how many bytes a body has that the broker refuses. 0 means 65 MiB.
	TooLarge int
	// Virtual says that the broker is in this process and knows no clock but its own, so that
	// time can be virtual (testing/synctest): leases are kept to the nanosecond then, however
	// busy the machine is.
	Virtual bool
}

// Run tests every claim, each with a harness of its own.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	for _, c := range claims {
		t.Run(string(c.claim), func(t *testing.T) {
			h := newHarness(t)
			checkDiffers(t, h.Differs)
			if why, differs := h.Differs[c.claim]; differs {
				t.Skip(why)
			}
			if c.claim == SurvivesRestart && h.Restart == nil {
				t.Skip("this broker keeps nothing when it stops")
			}
			if h.Virtual {
				synctest.Test(t, func(t *testing.T) { c.test(newSuite(t, h)) })
				return
			}
			c.test(newSuite(t, h))
		})
	}
}

// checkDiffers makes sure that each difference is one, and has its reason.
func checkDiffers(t *testing.T, differs map[Claim]string) {
	known := map[Claim]bool{}
	for _, c := range claims {
		known[c.claim] = true
	}
	for claim, why := range differs {
		if !known[claim] || why == "" {
			t.Errorf("a harness differs from %q because %q", claim, why)
		}
	}
}

var claims = []struct {
	claim Claim
	test  func(*suite)
}{
	{Intact, intact},
	{Order, order},
	{Large, large},
	{TooLarge, tooLarge},
	{Competing, competing},
	{Broadcast, broadcast},
	{Backlog, backlog},
	{Declared, declared},
	{Expiry, expiry},
	{Extension, extension},
	{LateAck, lateAck},
	{Attempts, attempts},
	{Nack, nack},
	{NackDelay, nackDelay},
	{PublishDelay, publishDelay},
	{GiveBack, giveBack},
	{Prefetch, prefetch},
	{Pause, pause},
	{Depth, depth},
	{DeleteChannel, deleteChannel},
	{DeleteTopic, deleteTopic},
	{Ephemeral, ephemeral},
	{Contexts, contexts},
	{BadNames, badNames},
	{Closed, closed},
	{Concurrent, concurrent},
	{SurvivesRestart, survivesRestart},
}

// newSuite connects to the broker and makes up a topic.
func newSuite(t *testing.T, h Harness) *suite {
	if h.Lease == 0 {
		h.Lease = 300 * time.Millisecond
	}
	if h.Delay == 0 {
		h.Delay = time.Second
	}
	if h.Slack == 0 {
		h.Slack = 2 * time.Second
	}
	if h.TooLarge == 0 {
		h.TooLarge = 65 << 20
	}
	s := &suite{T: t, h: h, topic: "conformance-" + strconv.FormatUint(rand.Uint64(), 36)}
	s.connect()
	return s
}
