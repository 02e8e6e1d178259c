package main

import (
	"encoding/json"
	"io"
	"time"

	"github.com/millrace/millrace/fleet"
)

// The report as it is printed with --json. Durations are in seconds.
type (
	topJSON struct {
		Queue      string       `json:"queue"`
		Time       time.Time    `json:"time"`
		Paused     bool         `json:"paused"`
		Ready      int64        `json:"ready"`
		InFlight   int64        `json:"in_flight"`
		Deferred   int64        `json:"deferred"`
		DepthError string       `json:"depth_error,omitempty"`
		Size       int          `json:"size"`
		Busy       int          `json:"busy"`
		Done       *float64     `json:"done_per_second,omitempty"`
		Failed     *float64     `json:"failed_per_second,omitempty"`
		Workers    []workerJSON `json:"workers"`
	}
	workerJSON struct {
		ID        string        `json:"id"`
		Host      string        `json:"host"`
		PID       int           `json:"pid"`
		Cores     int           `json:"cores"`
		Age       float64       `json:"age_seconds"`
		TTL       float64       `json:"ttl_seconds"`
		Lease     float64       `json:"lease_seconds"`
		Silent    float64       `json:"silent_seconds,omitempty"`
		Paused    bool          `json:"paused"`
		Draining  bool          `json:"draining"`
		Refused   string        `json:"refused,omitempty"`
		Size      int           `json:"size"`
		Busy      int           `json:"busy"`
		Waiting   int           `json:"waiting"`
		Abandoned int           `json:"abandoned"`
		Done      int64         `json:"done"`
		Failed    int64         `json:"failed"`
		Retried   int64         `json:"retried"`
		Lost      int64         `json:"lost"`
		Cancelled int64         `json:"cancelled"`
		Replicas  []replicaJSON `json:"replicas"`
	}
	replicaJSON struct {
		Number   int     `json:"number"`
		State    string  `json:"state"`
		Leaving  bool    `json:"leaving"`
		Busy     bool    `json:"busy"`
		Task     string  `json:"task,omitempty"`
		Running  float64 `json:"running_seconds,omitempty"`
		LastBeat float64 `json:"heartbeat_seconds"`
		Restarts uint64  `json:"restarts"`
	}
)

// printJSON prints a report as one line.
func printJSON(out io.Writer, r *fleet.Report) error {
	t := topJSON{
		Queue: r.Queue, Time: r.Time, Paused: r.Paused, Ready: r.Depth.Ready, InFlight: r.Depth.InFlight,
		Deferred: r.Depth.Deferred, Size: r.Size(), Busy: r.Busy(), Workers: []workerJSON{},
	}
	if r.DepthErr != nil {
		t.DepthError = explain(r.DepthErr)
	}
	if r.Done >= 0 {
		t.Done, t.Failed = &r.Done, &r.Failed
	}
	for i := range r.Workers {
		t.Workers = append(t.Workers, asJSON(&r.Workers[i]))
	}
	return json.NewEncoder(out).Encode(t)
}

func asJSON(w *fleet.Worker) workerJSON {
	j := workerJSON{
		ID: w.ID, Host: w.Host, PID: w.PID, Cores: w.Cores,
		Age: w.Age.Seconds(), TTL: w.TTL.Seconds(), Lease: w.Lease.Seconds(), Silent: w.Silent.Seconds(),
		Paused: w.Paused, Draining: w.Draining, Refused: w.Refused,
		Size: w.Size, Busy: w.Busy, Waiting: w.Waiting, Abandoned: w.Abandoned,
		Done: w.Done, Failed: w.Failed, Retried: w.Retried, Lost: w.Lost, Cancelled: w.Cancelled,
		Replicas: []replicaJSON{},
	}
	for _, r := range w.Replicas {
		j.Replicas = append(j.Replicas, replicaJSON{
			Number: r.Number, State: r.State, Leaving: r.Leaving, Busy: r.Busy, Task: r.Task,
			Running: r.Running.Seconds(), LastBeat: r.LastBeat.Seconds(), Restarts: r.Restarts,
		})
	}
	return j
}
