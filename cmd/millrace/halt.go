package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/millrace/millrace/task"
	"github.com/millrace/millrace/worker"
)

// haltRule says when a job ends before all its inputs are done, as --halt of GNU
// Parallel does. The zero value is never.
type haltRule struct {
	now     bool // kill what is running; else let it finish
	why     string
	count   int64
	percent float64 // of the tasks that have finished; 0 says that count holds
}

// percentFrom is how many tasks must have finished before a percentage says anything,
// as in GNU Parallel.
const percentFrom = 3

const haltForms = "write never, or now or soon, a comma, and fail=N, fail=N%, success=N, success=N% or done=N; for example now,fail=1"

// parseHalt reads the forms of GNU Parallel: "never", "now,fail=1", "soon,done=10",
// "soon,fail=30%", and the short "30%" for the latter.
func parseHalt(s string) (haltRule, error) {
	bad := fmt.Errorf("%q is not a rule: %s", s, haltForms)
	if s == "never" {
		return haltRule{}, nil
	}
	if strings.HasSuffix(s, "%") && !strings.Contains(s, ",") {
		s = "soon,fail=" + s
	}
	when, rest, ok := strings.Cut(s, ",")
	why, value, ok2 := strings.Cut(rest, "=")
	if !ok || !ok2 || when != "now" && when != "soon" || why != "fail" && why != "success" && why != "done" {
		return haltRule{}, bad
	}
	rule := haltRule{now: when == "now", why: why}
	if number, isPercent := strings.CutSuffix(value, "%"); isPercent {
		percent, err := strconv.ParseFloat(number, 64)
		if err != nil || !(percent > 0 && percent <= 100) || why == "done" {
			return haltRule{}, bad
		}
		rule.percent = percent
		return rule, nil
	}
	count, err := strconv.ParseInt(value, 10, 64)
	if err != nil || count < 1 {
		return haltRule{}, bad
	}
	rule.count = count
	return rule, nil
}

// reached says whether the job ends when so many tasks have succeeded and failed.
func (r haltRule) reached(succeeded, failed int64) bool {
	if r.why == "" {
		return false
	}
	done := succeeded + failed
	n := map[string]int64{"fail": failed, "success": succeeded, "done": done}[r.why]
	if r.percent > 0 {
		return done >= percentFrom && float64(n)*100 >= r.percent*float64(done)
	}
	return n >= r.count
}

// halting is a handler that begins no more tasks once a rule is reached by what it has done. The
// results tell that too, but only when the next tasks have begun.
type halting struct {
	worker.Handler
	rule    haltRule
	retries int    // a task that fails is tried again
	halt    func() // called when the rule is reached

	mu                sync.Mutex // guards what follows
	succeeded, failed int64
	reached           bool
}

// Handle runs a task, or gives it back.
func (h *halting) Handle(ctx context.Context, t *worker.Task) ([]byte, error) {
	h.mu.Lock()
	over := h.reached
	h.mu.Unlock()
	if over {
		return nil, worker.Redeliver(errHalted)
	}
	value, err := h.Handler.Handle(ctx, t)
	if h.reaches(err) {
		h.halt()
	}
	return value, err
}

// reaches counts a task that has ended, and says whether that reaches the rule. Only a command that
// failed by itself is known to have failed for good: what else may be is left to the results.
func (h *halting) reaches(err error) bool {
	var exit *task.ExitError
	failed := h.retries <= 0 && errors.As(err, &exit) && exit.Signal == 0
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.reached || err != nil && !failed:
		return false
	case failed:
		h.failed++
	default:
		h.succeeded++
	}
	h.reached = h.rule.reached(h.succeeded, h.failed)
	return h.reached
}
