package fleet

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/control"
)

// Report is a queue and its workers at one moment.
type Report struct {
	Queue string
	Time  time.Time
	// Workers are those that have answered, and those that did before and are silent now,
	// by host, process and id.
	Workers []Worker
	// Depth is what the queue holds. DepthErr is why it is not, or not all of it, known.
	Depth    millrace.Depth
	DepthErr error
	// Paused says that the queue is paused.
	Paused bool
	// Done and Failed are how many tasks were answered, with a value or an error, each
	// second since the Report before this one. They are negative when that is not known:
	// there was none before, or the same workers are not there.
	Done, Failed float64
}

// Size is how many replicas there are that are not leaving. Those of silent workers do not
// count.
func (r *Report) Size() (n int) {
	for i := range r.Workers {
		if w := &r.Workers[i]; w.Silent == 0 {
			n += w.Size
		}
	}
	return n
}

// Busy is how many replicas run a task. Those of silent workers do not count.
func (r *Report) Busy() (n int) {
	for i := range r.Workers {
		if w := &r.Workers[i]; w.Silent == 0 {
			n += w.Busy
		}
	}
	return n
}

// Answered is how many workers have answered.
func (r *Report) Answered() (n int) {
	for i := range r.Workers {
		if r.Workers[i].Silent == 0 {
			n++
		}
	}
	return n
}

// Report calls the roll. It returns when the workers that were known have answered and no
// other one follows, half a second after the last the first time, and after two seconds at
// most. That there is no worker is no error: Answered is 0 then. Returns the cause of ctx,
// or what the broker says.
func (f *Fleet) Report(ctx context.Context) (Report, error) {
	r := Report{Queue: f.queue}
	var around sync.WaitGroup
	bounded, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	around.Go(func() { r.Depth, r.DepthErr = f.broker.Depth(bounded, f.queue, millrace.WorkChannel) })
	around.Go(func() { r.Paused = f.isPaused(bounded) })
	err := f.call(ctx, control.Report, anyAnswer)
	around.Wait()
	if err != nil {
		return Report{}, err
	}
	r.Time = time.Now()
	r.Workers = f.workers(r.Time)
	r.Done, r.Failed = f.rates(&r)
	return r, nil
}

// isPaused says whether the queue is paused, as far as that can be seen.
func (f *Fleet) isPaused(ctx context.Context) bool {
	_, err := f.broker.Depth(ctx, control.PausedTopic(f.queue), control.PausedChannel)
	return err == nil
}

// workers are those that are known, and have not ended.
func (f *Fleet) workers(now time.Time) (all []Worker) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		if m.ended {
			continue
		}
		w := fromWire(&m.Worker, m.heard)
		if m.silent {
			w.Silent = max(now.Sub(m.heard), 1)
		}
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b Worker) int {
		return cmp.Or(strings.Compare(a.Host, b.Host), cmp.Compare(a.PID, b.PID), strings.Compare(a.ID, b.ID))
	})
	return all
}

// steerable are the workers that have answered to a roll call just now and can be told to
// change. Returns ErrNoWorker when there is none.
func (f *Fleet) steerable(ctx context.Context) ([]Worker, error) {
	if err := f.call(ctx, control.Report, anyAnswer); err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(f.workers(time.Now()), func(w Worker) bool { return w.Silent > 0 || w.Draining })
	if len(all) == 0 {
		return nil, ErrNoWorker
	}
	return all, nil
}

// totals are what workers had answered, by their ids, at one moment.
type totals struct {
	at           time.Time
	done, failed map[string]int64
}

// rates compares a report with the one before it.
func (f *Fleet) rates(r *Report) (done, failed float64) {
	now := totals{at: r.Time, done: make(map[string]int64), failed: make(map[string]int64)}
	f.mu.Lock()
	before := f.last
	f.last = now
	f.mu.Unlock()
	known := false
	for i := range r.Workers {
		w := &r.Workers[i]
		now.done[w.ID], now.failed[w.ID] = w.Done, w.Failed
		if was, ok := before.done[w.ID]; ok {
			known = true
			done += float64(w.Done - was)
			failed += float64(w.Failed - before.failed[w.ID])
		}
	}
	seconds := r.Time.Sub(before.at).Seconds()
	if !known || seconds <= 0 {
		return -1, -1
	}
	return max(0, done/seconds), max(0, failed/seconds)
}
