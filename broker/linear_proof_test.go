package broker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// What somebody did with one message of one channel, or with all: publish, receive, ack,
// nack, extend, empty; crash, of the machine; and at the end, that it is gone.
type deed struct {
	kind          string
	topic         string // "" for all
	channel, body string // the same
	attempt       uint32
}

// What came of it.
type outcome int

const (
	done    outcome = iota
	refused         // the lease had ended
	unknown         // the power went before there was an answer
)

// oneLife is a message's life in one channel as it can be seen from outside, through power
// losses: durable linearizability. What was published stays so, and so does what was
// emptied; acks may be forgotten with the power, and leases are.
type oneLife struct {
	published, leased, acked bool
	emptied                  bool   // for good
	attempt                  uint32 // of the last delivery
	crashed                  bool   // since then
}

func (l oneLife) step(d deed, out outcome) []oneLife {
	after, legal := l.apply(d, out)
	switch {
	case out == unknown:
		return []oneLife{l, after} // before the power went, or never
	case legal:
		return []oneLife{after}
	}
	return nil
}

func (l oneLife) apply(d deed, out outcome) (after oneLife, legal bool) {
	holds := l.leased && l.attempt == d.attempt
	switch d.kind {
	case "publish":
		legal = !l.published
		l.published = true
	case "receive":
		legal = l.published && !l.emptied && (!l.acked || l.crashed) && l.follows(d.attempt)
		l.leased, l.acked, l.attempt, l.crashed = true, false, d.attempt, false
	case "empty":
		legal = true
		if l.published {
			l.emptied, l.acked, l.leased = true, true, false
		}
	case "crash":
		legal = true
		l.leased, l.crashed = false, true
	case "gone":
		legal = !l.published || l.acked || l.emptied
	case "ack", "nack", "extend":
		if out == refused { // the lease had ended, or ended in that moment
			l.leased = l.leased && !holds
			return l, true
		}
		legal = holds
		l.acked = l.acked || d.kind == "ack" && holds
		l.leased = l.leased && d.kind == "extend"
	}
	return l, legal
}

// follows says whether a delivery may have this attempt. A power loss takes counts back to
// what was written, and a delivery with it that nobody saw.
func (l oneLife) follows(attempt uint32) bool {
	if l.crashed {
		return attempt >= 1 && attempt <= max(l.attempt, 1)+2
	}
	return attempt == l.attempt+1
}

var durableModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{oneLife{}} },
	Step: func(state, input, output any) (out []any) {
		for _, after := range state.(oneLife).step(input.(deed), output.(outcome)) {
			out = append(out, after)
		}
		return out
	},
	Equal: func(a, b any) bool { return a == b },
}).ToModel()

// chronicle is what clients did to several brokers, one after the power loss of another.
type chronicle struct {
	start time.Time

	mu      sync.Mutex // guards what follows, and a power loss
	epoch   int
	pending map[*porcupine.Operation]bool
	ops     []porcupine.Operation
	bodies  [linearTopics][]string
}

// So many topics are published to at once, that some rounds go to the redo log.
const linearTopics = 6

var linearChannels = []string{"c", "d"}

func topicOf(n int) string { return fmt.Sprint("t", n) }

func (c *chronicle) now() int64 { return int64(time.Since(c.start)) }

// do notes what f does to the broker of that epoch, and what comes of it unless the power
// goes before that.
func (c *chronicle) do(epoch int, d deed, f func() error) error {
	op := &porcupine.Operation{Input: d, Call: c.now()}
	c.mu.Lock()
	if epoch == c.epoch {
		c.pending[op] = true
	}
	c.mu.Unlock()
	err := f()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.pending[op] {
		return err
	}
	delete(c.pending, op)
	op.Output, op.Return = done, c.now()
	if err != nil {
		op.Output = refused
	}
	c.ops = append(c.ops, *op)
	return err
}

// received notes a delivery, unless its broker's power has gone.
func (c *chronicle) received(epoch int, call int64, topic, channel string, ds []millrace.Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.epoch {
		return
	}
	for _, d := range ds {
		c.ops = append(c.ops, porcupine.Operation{
			Input: deed{"receive", topic, channel, string(d.Body), d.Attempt}, Call: call, Output: done, Return: c.now(),
		})
	}
}

// powerLoss is one moment: what the disk holds then, and what was answered by then.
func (c *chronicle) powerLoss(disk *vfs.Mem, r *rand.Rand) *vfs.Mem {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := disk.Crash()
	if r.IntN(2) == 0 {
		left = disk.CrashKeeping(r)
	}
	at := c.now()
	for op := range c.pending {
		op.Output, op.Return = unknown, at
		c.ops = append(c.ops, *op)
	}
	clear(c.pending)
	c.ops = append(c.ops, porcupine.Operation{Input: deed{kind: "crash"}, Call: at + 1, Output: done, Return: at + 2})
	c.epoch++
	return left
}

// lives takes the chronicle apart, by topic, channel and message.
func (c *chronicle) lives() map[[3]string][]porcupine.Operation {
	out := map[[3]string][]porcupine.Operation{}
	for n := range linearTopics {
		byBody := map[string][]porcupine.Operation{}
		var all []porcupine.Operation // what concerns every message
		for _, op := range c.ops {
			if d := op.Input.(deed); d.body != "" && d.topic == topicOf(n) {
				byBody[d.body] = append(byBody[d.body], op)
			} else if d.body == "" && (d.topic == "" || d.topic == topicOf(n)) {
				all = append(all, op)
			}
		}
		for _, body := range c.bodies[n] {
			for _, channel := range linearChannels {
				for _, op := range append(byBody[body][:len(byBody[body]):len(byBody[body])], all...) {
					if d := op.Input.(deed); d.channel == "" || d.channel == channel {
						at := [3]string{topicOf(n), channel, body}
						out[at] = append(out[at], op)
					}
				}
			}
		}
	}
	return out
}

// Publishers and consumers that ack, nack, extend, dawdle and die, with leases so short
// that they end all the time, and somebody who empties a channel now and then, on a machine
// that loses its power every few milliseconds: each message's life is one that is allowed,
// and in the end nothing is left.
func TestEachMessageLivesOneLifeThroughPowerLosses(t *testing.T) {
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any
	t.Logf("seed %d", seed)
	for round := range uint64(2) {
		r := rand.New(rand.NewPCG(seed, round)) //nolint:gosec // nothing secret
		c := &chronicle{start: time.Now(), pending: map[*porcupine.Operation]bool{}}
		disk := vfs.NewMem()
		for epoch := range 5 {
			b, err := broker.Open(broker.Options{Dir: "data", Logger: quiet()}.WithSegments(1000).On(vfs.Inject(disk, slowSync)))
			if err != nil {
				t.Fatal(err)
			}
			for n := range linearTopics {
				for _, channel := range linearChannels {
					if _, err := b.Channel(topicOf(n), channel); err != nil {
						t.Fatal(err)
					}
				}
			}
			next := c.liveThrough(t, b, disk, r, epoch < 4)
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			disk = next
		}
		for at, ops := range c.lives() {
			ops = append(ops, porcupine.Operation{Input: deed{kind: "gone"}, Call: c.now(), Output: done, Return: c.now() + 1})
			if result := porcupine.CheckOperationsTimeout(durableModel, ops, 20*time.Second); result != porcupine.Ok {
				t.Errorf("%v: %s of %d operations", at, result, len(ops))
				for _, op := range ops {
					t.Logf("%d to %d: %+v %v", op.Call, op.Return, op.Input, op.Output)
				}
				return
			}
		}
		t.Logf("%d operations", len(c.ops))
	}
}

// slowSync takes as long as that of a disk, so that publishers meet in a round.
func slowSync(op vfs.Op) error {
	if op.Kind == vfs.OpSync {
		time.Sleep(100 * time.Microsecond)
	}
	return nil
}

// liveThrough works with a broker until the power goes, and returns what is left; or with
// the last one until there is nothing more.
func (c *chronicle) liveThrough(t *testing.T, b *broker.Broker, disk *vfs.Mem, r *rand.Rand, loses bool) *vfs.Mem {
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(10+r.IntN(40))*time.Millisecond)
	defer cancel()
	epoch := c.epoch
	var publishing, consuming sync.WaitGroup
	for p := range 2 * linearTopics {
		publishing.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				c.publish(t, b, epoch, p%linearTopics, fmt.Sprintf("%d.%d.%d", epoch, p, i))
			}
		})
	}
	stop, done := context.WithCancel(t.Context())
	for n := range 2 * 2 * linearTopics {
		random := rand.New(rand.NewPCG(r.Uint64(), 0)) //nolint:gosec // nothing secret
		consuming.Go(func() {
			for stop.Err() == nil {
				c.consume(t, stop, b, epoch, topicOf(n/2%linearTopics), linearChannels[n%2], random)
			}
		})
	}
	random := rand.New(rand.NewPCG(r.Uint64(), 0)) //nolint:gosec // nothing secret
	consuming.Go(func() {
		for stop.Err() == nil {
			time.Sleep(time.Millisecond)
			topic := topicOf(random.IntN(linearTopics))
			if err := c.do(epoch, deed{"empty", topic, "d", "", 0}, b.Lookup(topic).Lookup("d").Empty); err != nil {
				t.Error(err)
			}
		}
	})
	if loses {
		<-ctx.Done()
		disk = c.powerLoss(disk, r)
	}
	publishing.Wait()
	for !loses && !empty(b) {
		time.Sleep(time.Millisecond)
	}
	done()
	consuming.Wait()
	return disk
}

func empty(b *broker.Broker) bool {
	for n := range linearTopics {
		for _, channel := range linearChannels {
			if d, err := b.Depth(topicOf(n), channel); err != nil || d != (millrace.Depth{}) {
				return false
			}
		}
	}
	return true
}

func (c *chronicle) publish(t *testing.T, b *broker.Broker, epoch, topic int, body string) {
	c.mu.Lock()
	c.bodies[topic] = append(c.bodies[topic], body)
	c.mu.Unlock()
	name := topicOf(topic)
	if err := c.do(epoch, deed{"publish", name, "", body, 0}, func() error { return b.Publish(name, messages(body)) }); err != nil {
		t.Error(err)
	}
}

func (c *chronicle) consume(t *testing.T, ctx context.Context, b *broker.Broker, epoch int, topic, channel string, r *rand.Rand) { //nolint:revive // t comes first
	s, err := b.Subscribe(topic, channel, millrace.SubscribeOptions{Prefetch: 1 + r.IntN(8), Lease: 3 * time.Millisecond})
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	buf := make([]millrace.Delivery, 4)
	for range 20 {
		call := c.now()
		n, err := s.Receive(ctx, buf)
		if err != nil {
			return
		}
		c.received(epoch, call, topic, channel, buf[:n])
		if r.IntN(4) == 0 {
			time.Sleep(time.Duration(r.IntN(8)) * time.Millisecond)
		}
		for _, d := range buf[:n] {
			what := []string{"ack", "ack", "ack", "nack", "extend", ""}[r.IntN(6)]
			if what == "" {
				continue // forgotten
			}
			err := c.do(epoch, deed{what, topic, channel, string(d.Body), d.Attempt}, func() error {
				switch what {
				case "ack":
					return s.Ack(ctx, d)
				case "nack":
					return s.Nack(ctx, time.Duration(r.IntN(3))*time.Millisecond, d)
				default:
					return s.Extend(ctx, d)
				}
			})
			if err != nil && !errors.Is(err, millrace.ErrLeaseLost) {
				t.Error(err)
			}
		}
	}
}
