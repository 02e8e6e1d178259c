package worker

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/replica"
	"github.com/millrace/millrace/supervise"
)

// runners finds the runner of a replica by its number. It is read for each task and
// written when a replica is started, so that the table is copied rather than locked.
type runners struct {
	mu    sync.Mutex // of those who change the table
	table atomic.Pointer[[]*runner]
}

func (rs *runners) all() []*runner {
	if t := rs.table.Load(); t != nil {
		return *t
	}
	return nil
}

func (rs *runners) set(number int, r *runner) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	table := slices.Clone(rs.all())
	for len(table) <= number {
		table = append(table, nil)
	}
	table[number] = r
	rs.table.Store(&table)
}

// runnerOf returns the runner of the generation that ctx was given to, and makes it
// when this is the generation's first task.
func (w *Worker) runnerOf(ctx context.Context) *runner {
	number := replica.Number(ctx)
	if all := w.runners.all(); number < len(all) {
		if r := all[number]; r != nil && r.base == ctx {
			return r
		}
	}
	r := &runner{worker: w, base: ctx, pulse: supervise.FromContext(ctx), number: number}
	r.renew()
	w.runners.set(number, r)
	return r
}

// interrupt ends the contexts of the running tasks for which match says so.
func (w *Worker) interrupt(cause error, match func(*item) bool) {
	for _, r := range w.runners.all() {
		if r != nil {
			r.interrupt(cause, match)
		}
	}
}

// giveUpStuck abandons, until ctx ends, replicas whose handlers ignore that they have
// to end.
func (w *Worker) giveUpStuck(ctx context.Context) {
	ticker := time.NewTicker(min(max(w.cfg.Grace/4, 10*time.Millisecond), time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, r := range w.runners.all() {
				if r != nil {
					r.giveUpStuck(now)
				}
			}
		}
	}
}
