package worker

import (
	"os"
	"runtime"
	"time"

	"github.com/millrace/millrace/internal/control"
	"github.com/millrace/millrace/supervise"
)

// describe is what the worker says of itself to those who ask from elsewhere.
func (w *Worker) describe() control.Worker {
	s := w.Status()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	d := control.Worker{
		ID: w.id, Host: control.Clip(host), PID: os.Getpid(), Cores: runtime.GOMAXPROCS(0),
		Age: control.Millis(time.Since(w.born)), TTL: control.Millis(w.cfg.TTL), Lease: control.Millis(w.cfg.Lease),
		Paused: s.Paused, Draining: s.Draining,
		Size: w.replicas.Size(), Busy: s.Busy, Waiting: s.Waiting, Abandoned: len(s.Abandoned),
		Done: s.Done, Failed: s.Failed, Retried: s.Retried, Lost: s.Lost, Cancelled: s.Cancelled,
	}
	if s.Refused != nil {
		d.Refused = control.Clip(s.Refused.Error())
	}
	for _, r := range s.Replicas[:min(len(s.Replicas), control.MaxListed)] {
		one := control.Replica{
			Number: r.Number, Serial: r.Serial, State: r.State.String(), Task: control.Clip(r.Task),
			Busy: !r.Since.IsZero(), Beat: control.Millis(r.LastBeat), Restarts: r.Restarts, Leaving: r.Leaving,
		}
		if one.Busy {
			one.Running = control.Millis(time.Since(r.Since))
		}
		d.Replicas = append(d.Replicas, one)
	}
	return d
}

// lastBeat is how long ago a replica gave a sign of life, 0 where nobody expects one: it is
// idle, or has no TTL, so that its sign of life is that its task runs.
func (w *Worker) lastBeat(s supervise.Status, running bool) time.Duration {
	if w.cfg.TTL == 0 || !running {
		return 0
	}
	return s.LastBeat
}
