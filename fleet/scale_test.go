package fleet_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/fleet"
	"github.com/millrace/millrace/internal/control"
)

func TestScaleStartsAndRetiresReplicasAcrossWorkers(t *testing.T) {
	inBubble(t, []int{1, 3, 2}, func(d *depot) {
		for _, step := range []struct {
			change        fleet.Change
			before, after int
			sizes         string
		}{
			{fleet.By(+2), 6, 8, "[3 3 2]"},
			{fleet.By(-1), 8, 7, "[2 3 2]"},
			{fleet.To(9), 7, 9, "[3 3 3]"},
			{fleet.To(9), 9, 9, "[3 3 3]"},
			{fleet.By(0), 9, 9, "[3 3 3]"},
			{fleet.To(0), 9, 0, "[0 0 0]"},
			{fleet.By(+1), 0, 1, "[1 0 0]"},
		} {
			s, err := d.fleet.Scale(d.Context(), step.change)
			must(t, err)
			d.equal(step.change.String(), fmt.Sprint(s.Before, s.After), fmt.Sprint(step.before, step.after))
			sum := 0
			for _, size := range d.sizes() {
				sum += size
			}
			d.equal("replicas", sum, step.after)
			moved := 0
			for _, c := range s.Changes {
				moved += c.To - c.From
				d.equal("what a changed worker says", c.Worker.Size, c.To)
			}
			d.equal("what is told to have changed", moved, step.after-step.before)
		}
		_, err := d.fleet.Scale(d.Context(), fleet.By(-2))
		d.fails("scale by -2", err, fleet.ErrTooFew, "there are 1")
		_, err = d.fleet.Scale(d.Context(), fleet.To(-2))
		d.fails("scale to -2", err, fleet.ErrTooFew, "-2")
		_, err = d.fleet.Scale(d.Context(), fleet.To(40_000))
		d.fails("scale to 40000", err, fleet.ErrTooMany, "40000")
	})
}

func TestWithZeroReplicasTasksWaitAndAreHandledLater(t *testing.T) {
	inBubble(t, []int{2, 2}, func(d *depot) {
		close(d.release)
		_, err := d.fleet.Scale(d.Context(), fleet.To(0))
		must(t, err)
		d.ask(5)
		time.Sleep(time.Hour)
		d.equal("waiting", d.depth(), millrace.Depth{Ready: 5})
		_, err = d.fleet.Scale(d.Context(), fleet.By(1))
		must(t, err)
		synctest.Wait()
		d.equal("left", d.depth(), millrace.Depth{})
	})
}

func TestIdleReplicasLeaveFirstAndBusyOnesFinishTheirTasks(t *testing.T) {
	inBubble(t, []int{1, 1, 2}, func(d *depot) {
		d.ask(2) // at least two are idle, wherever
		busy := map[string]int{}
		for _, h := range d.workers {
			busy[h.id()] = h.Status().Busy
		}
		s, err := d.fleet.Scale(d.Context(), fleet.By(-2))
		must(t, err)
		d.equal("finish a task first", s.Leaving(), 0)
		for _, h := range d.workers {
			d.equal("still busy", h.Status().Busy, busy[h.id()])
		}
		start := time.Now()
		s, err = d.fleet.Scale(d.Context(), fleet.To(0))
		must(t, err)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		d.equal("finish a task first", fmt.Sprint(s.Leaving(), s.After), "2 0")
		r := d.report()
		d.equal("still busy", fmt.Sprint(r.Busy(), r.Size()), "2 0")
		close(d.release)
		synctest.Wait()
		d.equal("left in the queue", d.depth(), millrace.Depth{})
	})
}

func TestTwoWhoScaleAtTheSameTimeDoNotUndoEachOthersWork(t *testing.T) {
	inBubble(t, []int{1, 1}, func(d *depot) {
		d.twoAtOnce(func(f *fleet.Fleet) error {
			_, err := f.Scale(d.Context(), fleet.By(+3))
			return err
		})
		sizes := d.sizes()
		d.equal("replicas", sizes[0]+sizes[1], 8)
	})
}

// One of two workers has changed by itself, and refuses: only its part is done again.
func TestAWorkerThatRefusesIsLookedAtAgain(t *testing.T) {
	inBubble(t, []int{1, 1}, func(d *depot) {
		changes := d.workers[1]
		d.line.arrives(func(_ string, body []byte) int {
			if op, to := orderTo(body); op == control.Scale && to == changes.id() && len(changes.Status().Replicas) == 1 {
				must(d, changes.Scale(d.Context(), 2))
			}
			return 1
		})
		s, err := d.fleet.Scale(d.Context(), fleet.By(+4))
		must(t, err)
		d.equal("scaled", fmt.Sprint(s.Before, s.After), "2 7")
		d.equal("replicas", sum(d.sizes()), 7)
	})
}

// A worker dies after it was looked at: the others change, and the difference is told.
func TestAWorkerThatDiesInTheMiddleIsNamed(t *testing.T) {
	inBubble(t, []int{1, 1}, func(d *depot) {
		dies := d.workers[0]
		d.line.arrives(func(_ string, body []byte) int {
			if op, to := orderTo(body); op == control.Scale && to == dies.id() {
				dies.die()
			}
			return 1
		})
		start := time.Now()
		s, err := d.fleet.Scale(d.Context(), fleet.By(+2))
		d.unconfirmed("not confirmed", err, dies.id())
		d.fails("it says", err, err, "was told to have 2 replicas in place of 1")
		d.equal("scaled", fmt.Sprint(s.Before, s.After, len(s.Changes)), "2 3 1")
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
		s, err = d.fleet.Scale(d.Context(), fleet.To(3))
		must(t, err)
		d.equal("scaled again", fmt.Sprint(s.Before, s.After), "2 3")
	})
}

// The order reaches its worker when nobody counts on it any more.
func TestAnOrderThatComesTooLateIsRefused(t *testing.T) {
	inBubble(t, []int{1, 2}, func(d *depot) {
		cut := d.workers[0]
		var late [][]byte
		d.line.arrives(func(_ string, body []byte) int {
			if op, to := orderTo(body); op != control.Report && to == cut.id() {
				late = append(late, body)
				return 0
			}
			return 1
		})
		_, err := d.fleet.Scale(d.Context(), fleet.By(+3))
		d.unconfirmed("scale", err, cut.id())
		_, err = d.fleet.Scale(d.Context(), fleet.By(-1)) // by the other one, which has more
		must(t, err)
		d.equal("sizes", d.sizes(), "[1 2]")
		for _, body := range late {
			must(t, d.broker.Publish(d.Context(), control.Topic(queue), millrace.Message{Body: body}))
		}
		d.equal("sizes after the late order", d.sizes(), "[1 2]")
		if len(late) < 5 {
			t.Errorf("it was said %d times", len(late))
		}
	})
}

func TestScaleEndsWithItsContext(t *testing.T) {
	inBubble(t, []int{1, 1}, func(d *depot) {
		d.line.arrives(func(_ string, body []byte) int {
			if _, to := orderTo(body); to == d.workers[0].id() {
				return 0
			}
			return 1
		})
		ctx, cancel := context.WithTimeout(d.Context(), 2*time.Second)
		defer cancel()
		s, err := d.fleet.Scale(ctx, fleet.By(+2))
		d.fails("scale", err, context.DeadlineExceeded, "")
		d.equal("changed", len(s.Changes), 1)
	})
}
