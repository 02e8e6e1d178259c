package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/fleet"
	"github.com/millrace/millrace/internal/control"
)

func TestAReportListsEveryReplicaWithItsTask(t *testing.T) {
	inBubble(t, []int{2, 1}, func(d *depot) {
		d.ask(4)
		time.Sleep(time.Minute)
		r := d.report()
		d.equal("workers", len(r.Workers), 2)
		d.equal("replicas", fmt.Sprint(r.Size(), r.Busy(), r.Answered()), "3 3 2")
		d.equal("depth", r.Depth, millrace.Depth{Ready: 1, InFlight: 3})
		if r.Done >= 0 || r.Failed >= 0 {
			t.Errorf("rates without a report before: %v, %v", r.Done, r.Failed)
		}
		tasks := map[string]bool{}
		for _, w := range r.Workers {
			if w.Host == "" || w.PID == 0 || w.Cores == 0 || w.Lease != millrace.DefaultLease || w.Age < time.Minute {
				t.Errorf("worker %+v", w)
			}
			for i, one := range w.Replicas {
				tasks[one.Task] = true
				if one.Number != i+1 || one.Serial == 0 || one.State != "running" || !one.Busy || one.LastBeat != 0 {
					t.Errorf("replica %+v", one)
				}
				if one.Running < time.Minute || one.Running > time.Minute+time.Second {
					t.Errorf("runs for %v", one.Running)
				}
			}
		}
		d.equal("tasks", len(tasks), 3)
		close(d.release)
		synctest.Wait()
		r = d.report()
		d.equal("busy", r.Busy(), 0)
		if r.Done <= 0 || r.Failed != 0 {
			t.Errorf("rates %v, %v", r.Done, r.Failed)
		}
	})
}

func TestWithoutAWorkerItIsSaidAfterTwoSeconds(t *testing.T) {
	inBubble(t, nil, func(d *depot) {
		ctx := d.Context()
		for what, command := range map[string]func() error{
			"scale":  func() error { _, err := d.fleet.Scale(ctx, fleet.To(3)); return err },
			"retire": func() error { _, err := d.fleet.Retire(ctx); return err },
			"drain":  func() error { _, err := d.fleet.Drain(ctx); return err },
		} {
			start := time.Now()
			d.fails(what, command(), fleet.ErrNoWorker, "no worker answers")
			d.equal(what+" took", time.Since(start), 2*time.Second)
		}
		r := d.report()
		d.equal("answered", r.Answered(), 0)
		// What is said while nobody listens must not pile up.
		for _, ch := range d.raw.Lookup(control.Topic(queue)).Channels() {
			d.equal(ch.Name()+" holds", ch.Depth(), millrace.Depth{})
		}
		// What was said to nobody must not wait for the first worker to come.
		h := d.hire(1)
		synctest.Wait()
		if depth, err := d.broker.Depth(ctx, control.Topic(queue), control.WorkerChannel(h.id())); err != nil || depth != (millrace.Depth{}) {
			t.Errorf("waits for the first worker: %+v, %v", depth, err)
		}
		r = d.report()
		d.equal("answered", r.Answered(), 1)
	})
}

func TestAQueueThatIsNotThereIsRefusedAndNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw, b := open(t)
		defer func() { must(t, b.Close()) }()
		if _, err := fleet.Open(t.Context(), b, "typo"); !errors.Is(err, fleet.ErrNoQueue) || !errors.Is(err, millrace.ErrNotFound) {
			t.Errorf("Open returned %v", err)
		}
		if _, err := fleet.Open(t.Context(), b, "no/name"); !errors.Is(err, millrace.ErrBadName) {
			t.Errorf("Open returned %v", err)
		}
		if raw.Lookup(control.Topic("typo")) != nil || raw.Lookup("typo") != nil {
			t.Error("a topic is left")
		}
	})
}

func TestWhoHasAnsweredAndDoesNoMoreIsShownAsSilent(t *testing.T) {
	inBubble(t, []int{1, 1}, func(d *depot) {
		d.report()
		silent := d.workers[0]
		silent.line.cut.Store(true)
		time.Sleep(time.Minute)
		start := time.Now()
		r := d.report()
		d.equal("waited for it", time.Since(start), 2*time.Second)
		d.equal("answered", fmt.Sprint(r.Answered(), len(r.Workers), r.Size()), "1 2 1")
		for _, w := range r.Workers {
			if (w.ID == silent.id()) != (w.Silent > time.Minute && w.Silent < 2*time.Minute) {
				t.Errorf("%s is silent for %v", w.ID, w.Silent)
			}
		}
		start = time.Now()
		d.report()
		if took := time.Since(start); took > time.Second {
			t.Errorf("one that is known to be silent is waited for: %v", took)
		}
		silent.line.cut.Store(false)
		r = d.report()
		d.equal("answers again", r.Answered(), 2)

		silent.line.cut.Store(true)
		d.report()
		time.Sleep(15 * time.Minute)
		d.report()
		d.equal("forgotten", len(d.report().Workers), 1)
	})
}

func TestAWorkerThatEndsSaysSo(t *testing.T) {
	inBubble(t, []int{1, 1}, func(d *depot) {
		replyTo := ""
		d.line.arrives(func(_ string, body []byte) int {
			o, _ := control.ReadOrder(body)
			replyTo = o.ReplyTo
			return 1
		})
		d.report()
		d.workers[0].stop()
		synctest.Wait()
		// What it has said before arrives after that.
		late := control.Answer{Outcome: control.Done, Worker: control.Worker{ID: d.workers[0].id(), Age: 1 << 40}}
		must(t, d.broker.Publish(d.Context(), replyTo, late.Encode()))
		synctest.Wait()
		start := time.Now()
		r := d.report()
		d.equal("workers", len(r.Workers), 1)
		if took := time.Since(start); took > time.Second {
			t.Errorf("it was waited for: %v", took)
		}
	})
}

// Messages are lost and doubled on the way there and back.
func TestALossyBrokerChangesNothing(t *testing.T) {
	inBubble(t, []int{1, 1, 1}, func(d *depot) {
		lossy := func() func(string, []byte) int {
			n := 0
			return func(string, []byte) int {
				n++
				return []int{0, 3, 0, 1}[n%4]
			}
		}
		d.line.arrives(lossy())
		for _, h := range d.workers {
			h.line.arrives(lossy())
		}
		r := d.report()
		d.equal("answered", r.Answered(), 3)
		s, err := d.fleet.Scale(d.Context(), fleet.By(5))
		must(t, err)
		d.equal("scaled", fmt.Sprint(s.Before, s.After), "3 8")
		n := 0
		for _, size := range d.sizes() {
			n += size
		}
		d.equal("replicas", n, 8)
	})
}

func TestWhatIsNoAnswerIsIgnored(t *testing.T) {
	inBubble(t, []int{1}, func(d *depot) {
		replyTo := ""
		d.line.arrives(func(_ string, body []byte) int {
			o, _ := control.ReadOrder(body)
			replyTo = o.ReplyTo
			for _, foreign := range []string{
				"", "{", "[]", `{"v":1}`, `{"v":1,"outcome":"done","worker":{}}`, `{"v":2,"outcome":"done","worker":{"id":"x"}}`,
				`{"v":1,"outcome":"glad","worker":{"id":"x"}}`, `{"v":1,"outcome":"done","worker":{"id":"x","size":-1}}`,
			} {
				must(d, d.broker.Publish(d.Context(), replyTo, millrace.Message{Body: []byte(foreign)}))
				must(d, d.broker.Publish(d.Context(), control.Topic(queue), millrace.Message{Body: []byte(foreign)}))
			}
			return 1
		})
		r := d.report()
		d.equal("workers", len(r.Workers), 1)
		d.equal("sizes", d.sizes(), "[1]")
	})
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	inBubble(t, []int{1}, func(d *depot) {
		var replyTo string
		d.line.arrives(func(_ string, body []byte) int {
			o, _ := control.ReadOrder(body)
			replyTo = o.ReplyTo
			return 1
		})
		f, err := fleet.Open(d.Context(), d.line, queue)
		must(t, err)
		_, err = f.Report(d.Context())
		must(t, err)
		must(t, f.Close(d.Context()))
		if gone := d.line.gone.Load(); gone == nil || *gone != replyTo {
			t.Errorf("%v was deleted, not %s", gone, replyTo) // it does not go by itself everywhere
		}
		// A worker that was stopped hears a question only now. It makes no topic for it.
		order := control.Order{ID: "late", Op: control.Report, ReplyTo: replyTo}.Encode()
		order.Delay = time.Minute
		must(t, d.broker.Publish(d.Context(), control.Topic(queue), order))
		time.Sleep(2 * time.Minute)
		if d.raw.Lookup(replyTo) != nil {
			t.Error("the topic of the answers is there")
		}
		if _, err := f.Report(d.Context()); !errors.Is(err, fleet.ErrClosed) {
			t.Errorf("a report after Close: %v", err)
		}
	})
}

func TestAReportEndsWithItsContextAndWithTheBroker(t *testing.T) {
	inBubble(t, nil, func(d *depot) {
		ctx, cancel := context.WithTimeout(d.Context(), time.Second)
		defer cancel()
		_, err := d.fleet.Report(ctx)
		d.fails("report", err, context.DeadlineExceeded, "")
		f, err := fleet.Open(d.Context(), d.broker, queue)
		must(t, err)
		go func() {
			time.Sleep(time.Second)
			must(t, f.Close(context.Background()))
		}()
		_, err = f.Report(d.Context())
		d.fails("report", err, fleet.ErrClosed, "")
	})
}
