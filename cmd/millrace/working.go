package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/millrace/millrace/task"
	"github.com/millrace/millrace/worker"
)

// errToldToStop ends what runs when this process was asked to stop for the second time, or
// the grace is over.
var errToldToStop = errors.New("told to stop")

// runWork answers tasks until this process is told to stop.
func runWork(ctx context.Context, o workOptions) (err error) {
	if err := checkShared(o.broker); err != nil {
		return err
	}
	command, err := task.New(o.command, task.Config{Stdin: o.stdin})
	if err != nil {
		return err
	}
	if err := command.Check(); err != nil {
		return errors.New(explainStart(o.command[0], err.Error()))
	}
	signals := catchSignals()
	defer signals.release()
	ctx, kill := context.WithCancelCause(ctx)
	defer kill(nil)
	log := newLogger(os.Stderr, "", slog.LevelInfo)
	slog.SetDefault(log) // for the drivers
	broker, err := openOrStop(ctx, o.broker, signals)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, broker.Close()) }()
	w, err := worker.New(broker, o.queue, command, worker.Config{
		Replicas: o.jobs, Lease: o.ttl, Timeout: o.timeout, Retries: o.retries, Logger: log,
	})
	if err != nil {
		return err
	}
	return serveUntilTold(ctx, kill, w, o, signals, log)
}

// serveUntilTold runs the worker. The first signal drains it, the second one, or the end
// of the grace, kills what it runs.
func serveUntilTold(ctx context.Context, kill context.CancelCauseFunc, w *worker.Worker, o workOptions, signals *signals, log *slog.Logger) error {
	served := make(chan error, 1)
	go func() { served <- w.Serve(ctx) }()
	log.Info("working", "queue", o.queue, "replicas", o.jobs, "host", hostname(), "pid", os.Getpid())
	drained := make(chan error, 1)
	var over <-chan time.Time
	stopping, unbegun := false, false
	for {
		select {
		case s := <-signals.stop:
			if stopping {
				kill(errToldToStop)
				continue
			}
			stopping = true
			log.Info("stopping: running tasks finish, nothing new is taken", "signal", s.String(), "running", w.Status().Busy, "grace", o.grace)
			over = time.After(o.grace)
			go func() { drained <- w.Drain(ctx) }()
		case <-over:
			log.Warn("what still runs is killed and given back", "running", w.Status().Busy)
			kill(errToldToStop)
		case err := <-drained:
			if errors.Is(err, worker.ErrNotServing) {
				unbegun = true
				kill(errToldToStop)
			}
		case err := <-served:
			if unbegun {
				err = nil // it waited for the broker, and had nothing yet
			}
			return ended(err, w.Status().Counts, log)
		}
	}
}

// ended says how the worker ended.
func ended(err error, c worker.Counts, log *slog.Logger) error {
	log.Info("stopped", "done", c.Done, "failed", c.Failed, "retried", c.Retried, "lost", c.Lost, "cancelled", c.Cancelled)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errToldToStop):
		return errors.New("stopped before the running tasks had finished; they were given back")
	}
	return fmt.Errorf("the worker ended: %w", err)
}
