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

func TestDrainEndsEveryWorkerAfterItsTasks(t *testing.T) {
	inBubble(t, []int{1, 2, 1}, func(d *depot) {
		d.ask(3)
		time.AfterFunc(time.Hour, func() { close(d.release) })
		watcher, err := fleet.Open(d.Context(), d.broker, queue)
		must(t, err)
		defer func() { must(t, watcher.Close(context.Background())) }()
		drained := make(chan fleet.Drained, 1)
		start := time.Now()
		go func() {
			got, err := d.fleet.Drain(d.Context())
			if err != nil {
				t.Error(err)
			}
			drained <- got
		}()
		time.Sleep(30 * time.Minute)
		d.ask(2)
		r, err := watcher.Report(d.Context())
		must(t, err)
		busy, draining := r.Busy(), 0
		for _, w := range r.Workers {
			if w.Draining {
				draining++
			}
		}
		if busy != 3 || draining != len(r.Workers) || draining == 0 {
			t.Errorf("in the middle %d of %d drain, %d busy", draining, len(r.Workers), busy)
		}
		got := <-drained
		if took := time.Since(start); took < time.Hour || took > time.Hour+time.Minute {
			t.Errorf("it took %v", took)
		}
		d.equal("ended", fmt.Sprint(len(got.Ended), len(got.Draining)), "3 0")
		for _, h := range d.workers {
			d.equal("Serve", <-h.served, nil)
			h.served <- nil
		}
		d.equal("left in the queue", d.depth(), millrace.Depth{Ready: 2})
	})
}

func TestWhoStopsWaitingForADrainIsToldHowFarItGot(t *testing.T) {
	inBubble(t, []int{1, 0}, func(d *depot) {
		d.ask(1)
		ctx, cancel := context.WithTimeout(d.Context(), time.Minute)
		defer cancel()
		got, err := d.fleet.Drain(ctx)
		d.fails("drain", err, context.DeadlineExceeded, "")
		d.equal("drained", fmt.Sprint(len(got.Ended), len(got.Draining)), "1 1")
		close(d.release)
		synctest.Wait()
		d.equal("Serve", <-d.workers[0].served, nil)
		d.workers[0].served <- nil
	})
}

func TestAWorkerThatDiesWhileItDrainsIsNamed(t *testing.T) {
	inBubble(t, []int{1, 1}, func(d *depot) {
		d.ask(1)
		time.AfterFunc(time.Minute, func() {
			for _, h := range d.workers {
				h.die()
			}
		})
		busy := d.workers[0]
		if busy.Status().Busy == 0 {
			busy = d.workers[1]
		}
		id := busy.id()
		start := time.Now()
		got, err := d.fleet.Drain(d.Context())
		d.unconfirmed("drain", err, id)
		d.equal("ended", len(got.Ended), 1)
		if took := time.Since(start); took > 2*time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAWorkerThatIsNotReachedIsNotDrained(t *testing.T) {
	inBubble(t, []int{1, 1}, func(d *depot) {
		d.line.arrives(func(_ string, body []byte) int {
			if _, to := orderTo(body); to == d.workers[1].id() {
				return 0
			}
			return 1
		})
		got, err := d.fleet.Drain(d.Context())
		d.unconfirmed("drain", err, d.workers[1].id())
		d.equal("ended", len(got.Ended), 1)
	})
}

func TestPausedWorkersBeginNothingAndFinishWhatRuns(t *testing.T) {
	inBubble(t, []int{1, 1}, func(d *depot) {
		d.ask(1)
		confirmed, err := d.fleet.Pause(d.Context())
		must(t, err)
		d.equal("paused", len(confirmed), 2)
		d.ask(3)
		close(d.release)
		time.Sleep(time.Hour)
		d.equal("begun", d.began.Load(), 1)
		d.equal("waiting", d.depth(), millrace.Depth{Ready: 3})
		r := d.report()
		if !r.Paused || !r.Workers[0].Paused || !r.Workers[1].Paused {
			t.Errorf("the report says %v, %v, %v", r.Paused, r.Workers[0].Paused, r.Workers[1].Paused)
		}
		confirmed, err = d.fleet.Resume(d.Context())
		must(t, err)
		d.equal("resumed", len(confirmed), 2)
		synctest.Wait()
		d.equal("begun", d.began.Load(), 4)
		r = d.report()
		d.equal("paused", r.Paused, false)
		if d.raw.Lookup(control.PausedTopic(queue)) != nil {
			t.Error("the mark of the pause is left")
		}
	})
}

func TestAWorkerThatJoinsLaterIsPausedFromTheBeginning(t *testing.T) {
	inBubble(t, nil, func(d *depot) {
		start := time.Now()
		confirmed, err := d.fleet.Pause(d.Context()) // although nobody is there
		must(t, err)
		d.equal("confirmed", fmt.Sprint(len(confirmed), time.Since(start)), "0 2s")
		d.ask(2)
		h := d.hire(2)
		time.Sleep(time.Hour)
		d.equal("begun", fmt.Sprint(d.began.Load(), h.Status().Paused), "0 true")
		_, err = d.fleet.Resume(d.Context())
		must(t, err)
		synctest.Wait()
		d.equal("begun", d.began.Load(), 2)
	})
}

func TestAPausedWorkerThatIsNotToldToResumeFindsOut(t *testing.T) {
	inBubble(t, []int{1}, func(d *depot) {
		_, err := d.fleet.Pause(d.Context())
		must(t, err)
		d.line.arrives(func(string, []byte) int { return 0 })
		_, err = d.fleet.Resume(d.Context())
		d.unconfirmed("resume", err, d.workers[0].id())
		d.ask(1)
		d.equal("begun at once", d.began.Load(), 0)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		d.equal("begun", d.began.Load(), 1)
	})
}

// Of several nodes of a broker, one may know what another does not yet.
func TestAWorkerThatDoesNotSeeThePauseAtOnceIsToldAgain(t *testing.T) {
	inBubble(t, []int{1}, func(d *depot) {
		d.workers[0].line.lags.Store(2)
		confirmed, err := d.fleet.Pause(d.Context())
		must(t, err)
		d.equal("confirmed", len(confirmed), 1)
		d.equal("paused", d.workers[0].Status().Paused, true)
	})
}

// An order to pause is heard after the queue was resumed.
func TestAPauseThatComesLateChangesNothing(t *testing.T) {
	inBubble(t, []int{1}, func(d *depot) {
		order := control.Order{ID: "late", Op: control.Pause}.Encode()
		must(t, d.broker.Publish(d.Context(), control.Topic(queue), order))
		synctest.Wait()
		d.equal("paused", d.workers[0].Status().Paused, false)
	})
}

// Between the pause and its end tasks are received, given back and received again.
func TestPausingAndResumingLosesNoTask(t *testing.T) {
	inBubble(t, []int{3, 3}, func(d *depot) {
		close(d.release)
		for range 20 {
			_, err := d.fleet.Pause(d.Context())
			must(t, err)
			d.ask(50)
			_, err = d.fleet.Resume(d.Context())
			must(t, err)
			d.ask(50)
		}
		synctest.Wait()
		d.equal("begun", d.began.Load(), 2000)
		d.equal("left", d.depth(), millrace.Depth{})
	})
}
