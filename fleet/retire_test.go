package fleet_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/fleet"
	"github.com/millrace/millrace/internal/control"
)

func sum(sizes []int) (n int) {
	for _, size := range sizes {
		n += size
	}
	return n
}

func TestRetireTakesExactlyOneHoweverOftenItIsSaid(t *testing.T) {
	inBubble(t, []int{2, 3, 2}, func(d *depot) {
		d.line.arrives(func(string, []byte) int { return 3 })
		for left := 6; left >= 0; left-- {
			r, err := d.fleet.Retire(d.Context())
			must(t, err)
			if r.Finishes || r.Worker.ID == "" || r.Replica.Serial == 0 {
				t.Errorf("retired %+v", r)
			}
			time.Sleep(time.Minute)
			d.equal("left", sum(d.sizes()), left)
		}
		_, err := d.fleet.Retire(d.Context())
		d.fails("of none", err, fleet.ErrNoReplica, "")
	})
}

// The same order again, long after the number has been given to another replica.
func TestARepeatedPillDoesNotHitWhoHasTheNumberNow(t *testing.T) {
	inBubble(t, []int{1}, func(d *depot) {
		var pill []byte
		d.line.arrives(func(_ string, body []byte) int {
			if op, _ := orderTo(body); op == control.Retire {
				pill = body
			}
			return 1
		})
		_, err := d.fleet.Retire(d.Context())
		must(t, err)
		_, err = d.fleet.Scale(d.Context(), fleet.By(1))
		must(t, err)
		must(t, d.broker.Publish(d.Context(), control.Topic(queue), millrace.Message{Body: pill}))
		d.equal("left", d.sizes(), "[1]")
	})
}

func TestRetirePrefersAnIdleReplicaElseItFinishesItsTask(t *testing.T) {
	inBubble(t, []int{2, 1}, func(d *depot) {
		d.ask(2)
		r, err := d.fleet.Retire(d.Context())
		must(t, err)
		if r.Finishes || r.Replica.Busy {
			t.Errorf("a busy one was retired: %+v", r.Replica)
		}
		synctest.Wait()
		r, err = d.fleet.Retire(d.Context())
		must(t, err)
		if !r.Finishes || r.Replica.Task == "" || !r.Replica.Leaving {
			t.Errorf("retired %+v", r.Replica)
		}
		report := d.report()
		d.equal("busy", report.Busy(), 2)
		d.equal("left", sum(d.sizes()), 1)
		close(d.release)
		synctest.Wait()
		d.equal("tasks begun", d.began.Load(), 2)
		d.equal("left in the queue", d.depth(), millrace.Depth{})
	})
}

func TestTwoWhoRetireAtTheSameTimeRetireTwo(t *testing.T) {
	inBubble(t, []int{2, 1}, func(d *depot) {
		d.twoAtOnce(func(f *fleet.Fleet) error {
			_, err := f.Retire(d.Context())
			return err
		})
		d.equal("left", sum(d.sizes()), 1)
	})
}

// Who is told may have obeyed and died, so nobody else is told in its place.
func TestAPillWithoutAConfirmationIsGivenToNobodyElse(t *testing.T) {
	inBubble(t, []int{2, 1}, func(d *depot) {
		told := map[string]bool{}
		d.line.arrives(func(_ string, body []byte) int {
			if op, to := orderTo(body); op == control.Retire {
				told[to] = true
				return 0
			}
			return 1
		})
		r, err := d.fleet.Retire(d.Context())
		d.unconfirmed("retire", err, d.workers[0].id())
		d.equal("meant", r.Worker.ID, d.workers[0].id())
		d.equal("told", len(told), 1)
		d.equal("left", d.sizes(), "[2 1]")
	})
}
