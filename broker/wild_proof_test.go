package broker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// wild leads a life of random steps that goes on after errors, as a broker's users do.
// Whoever was told of an error when he created, deleted, paused or emptied something does
// that again before anything else is done to the topic.
type wild struct {
	life
	r     *rand.Rand
	opts  broker.Options
	fault *outage // nil: nothing fails

	story   []string                // what was done, for whom it may concern
	made    int                     // bodies
	redo    map[string]func() error // by topic: what failed there
	refused map[string]bool         // the publish failed, and the broker was not opened again since
	done    map[string]bool         // "topic/channel/body": acked, the same
	held    []heldBack
}

// heldBack is a consumer that has something in flight for long.
type heldBack struct {
	topic, channel string
	c              *broker.Consumer
	ds             []millrace.Delivery
}

const (
	wildLease   = 2 * time.Hour
	compactable = 15 * time.Second // after which sparse segments are rewritten
)

func newWild(t *testing.T, seed uint64, opts broker.Options) *wild {
	return &wild{
		life: life{t: t, claims: claims{}},
		r:    rand.New(rand.NewPCG(seed, 0)), //nolint:gosec // the same each time
		opts: opts, redo: map[string]func() error{},
		refused: map[string]bool{}, done: map[string]bool{},
	}
}

// live takes so many steps and stops the broker.
func (w *wild) live(steps int) {
	for range steps {
		w.step()
	}
	if w.b != nil {
		w.restart()
	}
}

// tell notes what has just been done.
func (w *wild) tell(words ...any) {
	w.know(func(claims) { w.story = append(w.story, fmt.Sprint(time.Now().Format("04:05.000 "), words)) })
}

// check fails the test if an error is not the one that was injected.
func (w *wild) check(what string, err error) error {
	w.tell(what, err)
	switch {
	case err == nil:
	case w.fault == nil || !errors.Is(err, w.fault.err):
		w.t.Errorf("%s: %v", what, err)
	case w.fault.err == syscall.ENOSPC && !errors.Is(err, millrace.ErrNoSpace):
		w.t.Errorf("%s: the error is not ErrNoSpace: %v", what, err)
	}
	return err
}

func (w *wild) step() {
	if w.b == nil {
		b, err := broker.Open(w.opts)
		if w.check("open", err) == nil {
			w.b = b
			clear(w.refused)
			clear(w.done)
		}
		return
	}
	topic := []string{"t", "t", "u"}[w.r.IntN(3)]
	if again := w.redo[topic]; again != nil {
		if again() == nil {
			delete(w.redo, topic)
		}
		return
	}
	channel := []string{"one", "two", "three"}[w.r.IntN(3)]
	switch n := w.r.IntN(100); {
	case n < 30:
		w.publish(topic)
	case n < 55:
		w.consume(topic, channel)
	case n < 60:
		w.settleHeld()
	case n < 70:
		w.try(topic, func() error { return w.channel(topic, channel) })
	case n < 74:
		w.try(topic, func() error { return w.deleteChannel(topic, channel) })
	case n < 75:
		w.try(topic, func() error { return w.deleteTopic(topic) })
	case n < 80:
		w.pauseTopic(topic, w.r.IntN(3) == 0)
	case n < 84:
		w.pauseChannel(topic, channel, w.r.IntN(3) == 0)
	case n < 86:
		w.try(topic, func() error { return w.emptyTopic(topic) })
	case n < 88:
		w.try(topic, func() error { return w.emptyChannel(topic, channel) })
	case n < 94:
		time.Sleep(200 * time.Millisecond) // the housekeeper comes
	case n < 98:
		time.Sleep(compactable)
	default:
		w.restart()
	}
}

// try does something that is done again when it fails.
func (w *wild) try(topic string, do func() error) {
	if do() != nil {
		w.redo[topic] = do
	}
}

// restart closes the broker; the next step opens it.
func (w *wild) restart() {
	w.held = nil
	b := w.b
	w.b = nil
	err := w.check("close", b.Close())
	w.know(func(cs claims) {
		for _, t := range cs {
			for _, c := range t.channels {
				for body := range c.acked {
					if err == nil {
						delete(c.may, body)
					}
				}
				clear(c.acked)
			}
		}
	})
}

func (w *wild) publish(topic string) {
	msgs := make([]millrace.Message, 1+w.r.IntN(4))
	var delay time.Duration
	if w.r.IntN(5) == 0 {
		delay = deferral
	}
	for i := range msgs {
		w.made++
		msgs[i].Body = fmt.Appendf(nil, "%d", w.made)
		if w.r.IntN(5) == 0 {
			msgs[i].Headers = millrace.Headers(nil).Append("filler", strings.Repeat(".", w.r.IntN(300)))
		}
		msgs[i].Delay = delay
	}
	each := func(f func(c *channelClaim, body string)) {
		w.know(func(cs claims) {
			t := cs.topic(topic)
			to := t.receivers()
			if t.paused != absent && !slices.Contains(to, &t.waiting) {
				to = append(to, &t.waiting) // a channel that is made meanwhile gets it too
			}
			for _, c := range to {
				for _, m := range msgs {
					f(c, string(m.Body))
				}
			}
		})
	}
	w.know(func(cs claims) { t := cs.topic(topic); t.presence = max(t.presence, maybe) })
	each(func(c *channelClaim, body string) { c.may[body] = true })
	due := time.Now().Add(delay)
	if w.check(fmt.Sprintf("publish to %s until %d, delay %v", topic, w.made, delay), w.b.Publish(topic, msgs)) != nil {
		for _, m := range msgs {
			w.refused[string(m.Body)] = true
			w.know(func(cs claims) { cs.topic(topic).doubtful[string(m.Body)] = true })
		}
		return
	}
	w.know(func(cs claims) { cs.topic(topic).presence = present })
	each(func(c *channelClaim, body string) { c.must[body] = due })
}

// consume takes what there is, up to a few, and acks it, gives it back, defers it, or
// keeps it in flight.
func (w *wild) consume(topic, channel string) {
	claim, doubtful := w.known(topic, channel), map[string]bool{}
	w.know(func(cs claims) { doubtful = cs.topic(topic).doubtful })
	if claim == nil {
		return
	}
	c, err := w.b.Subscribe(topic, channel, millrace.SubscribeOptions{Lease: wildLease})
	if w.check("subscribe", err) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Microsecond)
	defer cancel()
	buf := make([]millrace.Delivery, 1+w.r.IntN(8))
	n, err := c.Receive(ctx, buf)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		_ = w.check("receive", err)
	}
	ds := buf[:n]
	now := time.Now()
	for _, d := range ds {
		body := string(d.Body)
		w.know(func(claims) {
			if !claim.may[body] && !doubtful[body] || w.refused[body] || w.done[key(topic, channel, body)] || claim.must[body].After(now) {
				w.t.Errorf("channel %s of %s delivers %s: known %t, too soon %t, refused %t, acked %t", channel, topic, body,
					claim.may[body], claim.must[body].After(now), w.refused[body], w.done[key(topic, channel, body)])
			}
		})
	}
	if n > 0 && w.r.IntN(6) == 0 {
		w.held = append(w.held, heldBack{topic, channel, c, ds})
		return
	}
	w.settle(heldBack{topic, channel, c, ds})
	_ = c.Close()
}

func key(words ...string) string { return strings.Join(words, "/") }

func (w *wild) settleHeld() {
	if len(w.held) == 0 {
		return
	}
	i := w.r.IntN(len(w.held))
	h := w.held[i]
	w.held = slices.Delete(w.held, i, i+1)
	w.settle(h)
	_ = h.c.Close()
}

// settle acks some of what is in flight, gives some back, and leaves the rest.
func (w *wild) settle(h heldBack) {
	claim := w.known(h.topic, h.channel)
	if claim == nil {
		return
	}
	acks := h.ds[:w.r.IntN(len(h.ds)+1)]
	w.know(func(claims) {
		for _, d := range acks {
			delete(claim.must, string(d.Body))
			claim.acked[string(d.Body)] = true
		}
	})
	err := h.c.Ack(context.Background(), acks...)
	w.tell("ack ", h.topic, "/", h.channel, " ", describe(acks), err)
	if err == nil {
		for _, d := range acks {
			w.done[key(h.topic, h.channel, string(d.Body))] = true
		}
	}
	nacks := h.ds[len(acks):]
	nacks = nacks[:w.r.IntN(len(nacks)+1)]
	if len(nacks) == 0 {
		return
	}
	delay := []time.Duration{0, 0, deferral}[w.r.IntN(3)]
	due := time.Now().Add(delay)
	err = h.c.Nack(context.Background(), delay, nacks...)
	if errors.Is(err, millrace.ErrLeaseLost) || errors.Is(err, millrace.ErrClosed) {
		return // it was emptied or deleted meanwhile
	}
	if w.check(fmt.Sprint("nack ", delay, " ", h.topic, "/", h.channel, " ", describe(nacks)), err) != nil {
		due = time.Time{} // a crash may bring them back at once
	}
	w.know(func(claims) {
		for _, d := range nacks {
			if _, ok := claim.must[string(d.Body)]; ok {
				claim.must[string(d.Body)] = due
			}
		}
	})
}
