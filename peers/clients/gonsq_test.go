package clients

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsqio/go-nsq"

	"github.com/millrace/millrace/peers/node"
)

func TestEveryWayToPublishArrives(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		p := producer(t, n, nil)
		if err := p.Ping(); err != nil {
			t.Fatal(err)
		}
		single, batch, late, async := bodies("single", 300), bodies("batch", 300), bodies("late", 50), bodies("async", 300)
		for _, body := range single {
			if err := p.Publish("t", []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		for chunk := range slices.Chunk(batch, 100) {
			if err := p.MultiPublish("t", asBytes(chunk)); err != nil {
				t.Fatal(err)
			}
		}
		for _, body := range late {
			if err := p.DeferredPublish("t", 50*time.Millisecond, []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan *nsq.ProducerTransaction, len(async))
		for _, body := range async {
			if err := p.PublishAsync("t", []byte(body), done, body); err != nil {
				t.Fatal(err)
			}
		}
		for range async {
			if tr := <-done; tr.Error != nil {
				t.Fatalf("%v: %v", tr.Args, tr.Error)
			}
		}
		in := new(inbox)
		connect(t, n, consumer(t, "t", "c", in, 4, nil))
		in.want(t, slices.Concat(single, batch, late, async)...)
		if ch := wantDone(t, n, "t", "c"); ch.Messages != 950 || ch.Requeued != 0 || ch.TimedOut != 0 {
			t.Errorf("the channel says %+v", ch)
		}
	})
}

func asBytes(bodies []string) [][]byte {
	out := make([][]byte, len(bodies))
	for i, b := range bodies {
		out[i] = []byte(b)
	}
	return out
}

func publish(t *testing.T, n *node.Node, topic string, bodies ...string) {
	t.Helper()
	if err := producer(t, n, nil).MultiPublish(topic, asBytes(bodies)); err != nil {
		t.Fatal(err)
	}
}

func TestConsumersCompeteAndChannelsDoNot(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		var a1, a2, b inbox
		connect(t, n, consumer(t, "t", "a", &a1, 2, func(c *nsq.Config) { c.MaxInFlight = 10 }))
		connect(t, n, consumer(t, "t", "a", &a2, 2, func(c *nsq.Config) { c.MaxInFlight = 10 }))
		connect(t, n, consumer(t, "t", "b", &b, 2, nil))
		eventually(t, func() error { // a consumer is connected before it has subscribed
			if channels, err := stats(n, "t"); err != nil || channels["a"].Clients+channels["b"].Clients != 3 {
				return fmt.Errorf("%+v %w", channels, err)
			}
			return nil
		})
		all := bodies("m", 2000)
		for chunk := range slices.Chunk(all, 50) {
			publish(t, n, "t", chunk...)
		}
		b.want(t, all...)
		eventually(t, func() error {
			got := slices.Concat(a1.has(), a2.has())
			slices.Sort(got)
			if !slices.Equal(got, all) {
				return fmt.Errorf("%d and %d messages came to the two consumers of a channel, want %d", len(a1.has()), len(a2.has()), len(all))
			}
			return nil
		})
		if len(a1.has()) == 0 || len(a2.has()) == 0 {
			t.Errorf("one consumer got all: %d and %d", len(a1.has()), len(a2.has()))
		}
	})
}

func TestFailedMessagesComeAgainWithBackoff(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		var attempts atomic.Int64
		in := &inbox{do: func(m *nsq.Message) error {
			attempts.Add(int64(m.Attempts))
			if m.Attempts < 3 {
				return errors.New("not yet")
			}
			return nil
		}}
		connect(t, n, consumer(t, "t", "c", in, 4, nil))
		publish(t, n, "t", bodies("m", 30)...)
		in.want(t, bodies("m", 30)...)
		ch := wantDone(t, n, "t", "c")
		if ch.Requeued != 60 || attempts.Load() != 30*(1+2+3) {
			t.Errorf("requeued %d times with %d attempts in all, want 60 and 180", ch.Requeued, attempts.Load())
		}
	})
}

func TestRequeuedForLater(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		var first, second atomic.Int64
		in := &inbox{do: func(m *nsq.Message) error {
			if m.Attempts == 1 {
				first.Store(time.Now().UnixNano())
				m.RequeueWithoutBackoff(400 * time.Millisecond)
				return nil
			}
			second.Store(time.Now().UnixNano())
			return nil
		}}
		connect(t, n, consumer(t, "t", "c", in, 1, nil))
		publish(t, n, "t", "m")
		wantTimes(t, in, "m", 2)
		if waited := time.Duration(second.Load() - first.Load()); waited < 390*time.Millisecond || waited > 5*time.Second {
			t.Errorf("it came again after %v, want 400ms", waited)
		}
	})
}

func wantTimes(t *testing.T, in *inbox, body string, times int) {
	t.Helper()
	eventually(t, func() error {
		if got := in.count(body); got != times {
			return fmt.Errorf("%s came %d times, want %d", body, got, times)
		}
		return nil
	})
}

func TestTouchKeepsAMessage(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		in := &inbox{do: func(m *nsq.Message) error {
			for range 6 {
				time.Sleep(300 * time.Millisecond)
				m.Touch()
			}
			return nil
		}}
		connect(t, n, consumer(t, "t", "c", in, 1, func(c *nsq.Config) { c.MsgTimeout = time.Second }))
		publish(t, n, "t", "m")
		in.want(t, "m")
		if ch := wantDone(t, n, "t", "c"); ch.TimedOut != 0 || in.count("m") != 1 {
			t.Errorf("it came %d times, %+v", in.count("m"), ch)
		}
	})
}

func TestAMessageThatTakesTooLongComesAgain(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		in := &inbox{do: func(m *nsq.Message) error {
			if m.Attempts == 1 {
				time.Sleep(1500 * time.Millisecond)
			}
			return nil
		}}
		connect(t, n, consumer(t, "t", "c", in, 2, func(c *nsq.Config) { c.MsgTimeout = time.Second; c.HeartbeatInterval = time.Second }))
		publish(t, n, "t", "m")
		wantTimes(t, in, "m", 2)
		if ch := wantDone(t, n, "t", "c"); ch.TimedOut != 1 {
			t.Errorf("%d leases have ended, want 1", ch.TimedOut)
		}
	})
}

func TestStoppingAConsumerLosesNothing(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		// nsqd lets what was on its way to a consumer that stopped time out.
		soon := func(c *nsq.Config) { c.MsgTimeout = time.Second }
		all := bodies("m", 3000)
		publish(t, n, "t", all...)
		in := new(inbox)
		for i := 0; len(in.has()) < len(all) && i < 100; i++ {
			c := connect(t, n, consumer(t, "t", "c", in, 2, soon))
			time.Sleep(20 * time.Millisecond)
			stop(c)
		}
		connect(t, n, consumer(t, "t", "c", in, 2, soon))
		in.want(t, all...)
		wantDone(t, n, "t", "c")
	})
}

func TestMaxInFlightChangesWhileItRuns(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		gate := make(chan struct{})
		in := &inbox{do: func(*nsq.Message) error { <-gate; return nil }}
		c := connect(t, n, consumer(t, "t", "c", in, 50, func(c *nsq.Config) { c.MaxInFlight = 3 }))
		publish(t, n, "t", bodies("m", 40)...)
		inFlight := func(want int) {
			t.Helper()
			eventually(t, func() error {
				channels, err := stats(n, "t")
				if got := channels["c"].InFlight; err != nil || got != want {
					return fmt.Errorf("%d in flight, want %d: %w", got, want, err)
				}
				return nil
			})
		}
		inFlight(3)
		c.ChangeMaxInFlight(20)
		inFlight(20)
		close(gate)
		in.want(t, bodies("m", 40)...)
	})
}

func TestPausedAndEmptied(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		in := new(inbox)
		connect(t, n, consumer(t, "t", "c", in, 1, nil))
		publish(t, n, "t", "before")
		in.want(t, "before")
		post(t, n, "/channel/pause?topic=t&channel=c", "")
		publish(t, n, "t", "lost")
		eventually(t, func() error {
			if channels, err := stats(n, "t"); err != nil || channels["c"].Depth != 1 {
				return fmt.Errorf("%+v %w", channels, err)
			}
			return nil
		})
		post(t, n, "/channel/empty?topic=t&channel=c", "")
		publish(t, n, "t", "after")
		post(t, n, "/channel/unpause?topic=t&channel=c", "")
		in.want(t, "before", "after")
	})
}

func TestBigAndOddMessages(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		all := []string{strings.Repeat("x", 1<<20), "\x00", "\n", "\xff\xfe", strings.Repeat("\r\n", 1000), "FIN 0123456789abcdef\n", " ", "MR1 {}\n", "MR1"}
		in := new(inbox)
		connect(t, n, consumer(t, "t", "c", in, 1, nil))
		p := producer(t, n, nil)
		for _, body := range all {
			if err := p.Publish("t", []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Publish("t", make([]byte, 1<<20+1)); err == nil || !strings.Contains(err.Error(), "E_BAD_MESSAGE") {
			t.Errorf("a message of a byte more than allowed: %v", err)
		}
		in.want(t, all...)
	})
}

func TestEphemeral(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, n *node.Node) {
		in := new(inbox)
		c := connect(t, n, consumer(t, "t#ephemeral", "c#ephemeral", in, 1, nil))
		publish(t, n, "t#ephemeral", bodies("m", 10)...)
		in.want(t, bodies("m", 10)...)
		stop(c)
		eventually(t, func() error {
			channels, err := stats(n, "t%23ephemeral")
			if err != nil || len(channels) > 0 {
				return fmt.Errorf("still there: %v %w", channels, err)
			}
			return nil
		})
	})
}

func TestABrokerThatStartsAgain(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]node.Start{"nsqd": node.NSQD, "millrace": node.Millrace} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			first, err := with(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			addresses := func(o *node.Options) { o.TCPAddress, o.HTTPAddress = first.TCP, first.HTTP }
			in := new(inbox)
			connect(t, first, consumer(t, "t", "c", in, 1, nil))
			p := producer(t, first, nil)
			if err := p.Publish("t", []byte("one")); err != nil {
				t.Fatal(err)
			}
			in.want(t, "one")
			post(t, first, "/channel/pause?topic=t&channel=c", "")
			if err := p.MultiPublish("t", asBytes(bodies("m", 500))); err != nil {
				t.Fatal(err)
			}
			if err := p.DeferredPublish("t", 300*time.Millisecond, []byte("late")); err != nil {
				t.Fatal(err)
			}
			if err := first.Stop(); err != nil {
				t.Fatal(err)
			}

			second := start(t, with, dir, addresses)
			publish(t, second, "t", "two") // by a new one: go-nsq races with itself when it connects again
			if channels, err := stats(second, "t"); err != nil || !channels["c"].Paused {
				t.Errorf("the channel is no longer paused: %+v %v", channels, err)
			}
			post(t, second, "/channel/unpause?topic=t&channel=c", "")
			in.want(t, append(bodies("m", 500), "one", "two", "late")...)
			wantDone(t, second, "t", "c")
		})
	}
}
