package worker

import (
	"context"
	"log/slog"
	"time"
)

// EventKind says what an Event reports.
type EventKind int

const (
	// TaskRetried says that an attempt failed, and the task is tried again after Delay.
	TaskRetried EventKind = iota
	// TaskDead says that a task was answered with an error and kept as a dead letter.
	TaskDead
	// TaskLost says that a task's lease ended, or its replica died or was silent. It runs
	// again, here or elsewhere; nothing of this attempt counts.
	TaskLost
	// TaskCancelled says that nobody waits for the task any more. It is not answered.
	TaskCancelled
	// ReplicaStarted says that a replica was started, for the first time or again.
	ReplicaStarted
	// ReplicaSilent says that a replica gave no sign of life for the TTL and is replaced.
	ReplicaSilent
	// ReplicaFailed says that a replica ended with an error and is replaced.
	ReplicaFailed
	// ReplicaAbandoned says that the goroutine of a replica ignores its context. Err has its
	// stack. It no longer counts.
	ReplicaAbandoned
	// BrokerRefuses says that the broker does not take results. They are held, no new task is
	// begun, and publishing is tried again after Delay.
	BrokerRefuses
	// BrokerAccepts says that publishing works again.
	BrokerAccepts
	// Told says that somebody gave the worker an Order, see package fleet. Err is set when
	// it was refused.
	Told
	// Paused says that the queue is paused: the worker takes no tasks until Resumed.
	Paused
	// Resumed says that the queue is not paused any more.
	Resumed
)

var eventNames = [...]string{
	"task retried", "task dead", "task lost", "task cancelled",
	"replica started", "replica silent", "replica failed", "replica abandoned",
	"broker refuses", "broker accepts", "told", "paused", "resumed",
}

// String returns the kind in lower case.
func (k EventKind) String() string {
	if k < 0 || int(k) >= len(eventNames) {
		return "unknown"
	}
	return eventNames[k]
}

// Event is something that happened in a worker. Answered tasks are not events.
type Event struct {
	Kind    EventKind
	Time    time.Time
	Queue   string
	Task    string        // the request id; "" when it has none or no task is concerned
	Replica int           // the number of the replica; 0 when none is concerned
	Attempt int           // of the task
	Order   string        // what the worker was told; "" when it was not
	Err     error         // why
	Delay   time.Duration // before it is tried again
}

// tell passes an event on. The caller holds no lock.
func (w *Worker) tell(e Event) {
	if w.cfg.OnEvent == nil && w.cfg.Logger == nil {
		return
	}
	e.Time, e.Queue = time.Now(), w.queue
	if w.cfg.OnEvent != nil {
		w.cfg.OnEvent(e)
	}
	if w.cfg.Logger != nil {
		w.cfg.Logger.LogAttrs(context.Background(), e.level(), e.Kind.String(), e.attrs()...)
	}
}

func (e *Event) level() slog.Level {
	switch e.Kind {
	case ReplicaStarted, TaskCancelled, BrokerAccepts, Told, Paused, Resumed:
		return slog.LevelInfo
	case ReplicaAbandoned, BrokerRefuses:
		return slog.LevelError
	default:
		return slog.LevelWarn
	}
}

func (e *Event) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("queue", e.Queue)}
	if e.Task != "" {
		attrs = append(attrs, slog.String("task", e.Task))
	}
	if e.Replica != 0 {
		attrs = append(attrs, slog.Int("replica", e.Replica))
	}
	if e.Attempt != 0 {
		attrs = append(attrs, slog.Int("attempt", e.Attempt))
	}
	if e.Order != "" {
		attrs = append(attrs, slog.String("order", e.Order))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("err", e.Err.Error()))
	}
	if e.Delay != 0 {
		attrs = append(attrs, slog.Duration("delay", e.Delay))
	}
	return attrs
}
