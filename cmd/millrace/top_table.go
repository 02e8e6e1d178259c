package main

import (
	"fmt"
	"io"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/millrace/millrace/fleet"
)

// topTask is how many characters of a task's id are shown.
const topTask = 32

// topText is a report in lines.
func topText(r *fleet.Report) string {
	var b strings.Builder
	b.WriteString(topHeading(r) + "\n")
	if len(r.Workers) == 0 {
		return b.String()
	}
	rows := []string{"HOST\tPID\tREPLICA\tSTATE\tTASK\tRUNNING\tHEARTBEAT\tRESTARTS"}
	for i := range r.Workers {
		rows = append(rows, topRows(&r.Workers[i])...)
	}
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = io.WriteString(table, strings.Join(rows, "\n")+"\n") // to memory
	_ = table.Flush()
	for i := range r.Workers {
		b.WriteString(topTrouble(&r.Workers[i]))
	}
	return b.String()
}

// topRows are the rows of a worker: one for each replica.
func topRows(w *fleet.Worker) (rows []string) {
	name := fmt.Sprintf("%s\t%d", plain(w.Host), w.PID)
	if len(w.Replicas) == 0 {
		rows = append(rows, fmt.Sprintf("%s\t-\t%s\t-\t-\t-\t-", name, topState(w, nil)))
	}
	for i := range w.Replicas {
		r := &w.Replicas[i]
		task, running, beat := "-", "-", "-"
		if r.Busy {
			task, running = orText(excerpt([]byte(r.Task), topTask), "-"), age(r.Running+w.Silent)
			beat = age(r.LastBeat + w.Silent)
		}
		rows = append(rows, fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%s\t%d", name, r.Number, topState(w, r), task, running, beat, r.Restarts))
	}
	if more := w.Size - len(w.Replicas); more > 0 {
		rows = append(rows, fmt.Sprintf("%s\t…\t%d more\t-\t-\t-\t-", name, more))
	}
	return rows
}

// topHeading is the queue in one line.
func topHeading(r *fleet.Report) string {
	parts := []string{fmt.Sprintf("%s: %d ready, %d in flight, %d deferred", r.Queue, r.Depth.Ready, r.Depth.InFlight, r.Depth.Deferred)}
	if r.DepthErr != nil {
		parts[0] += " (" + explain(r.DepthErr) + ")"
	}
	parts = append(parts, fmt.Sprintf("%s, %s, %d busy",
		count(r.Answered(), "worker", "workers"), count(r.Size(), "replica", "replicas"), r.Busy()))
	if r.Done >= 0 {
		parts = append(parts, fmt.Sprintf("%.1f/s done, %.1f/s failed", r.Done, r.Failed))
	}
	if r.Paused {
		parts = append(parts, "PAUSED")
	}
	return strings.Join(parts, " | ")
}

// topState is what a replica does; of a worker without any, what that does.
func topState(w *fleet.Worker, r *fleet.Replica) string {
	switch {
	case w.Silent > 0:
		return "silent " + age(w.Silent)
	case r != nil && r.Leaving:
		return "leaving"
	case w.Draining:
		return "draining"
	case w.Paused && (r == nil || !r.Busy):
		return "paused"
	case r != nil:
		return plain(r.State)
	}
	return "no replicas"
}

// topTrouble are lines about what is wrong with a worker; "" when nothing is.
func topTrouble(w *fleet.Worker) (lines string) {
	if w.Refused != "" {
		lines += fmt.Sprintf("%s: the broker does not take its results: %s\n", plain(w.Name()), plain(w.Refused))
	}
	if w.Abandoned > 0 {
		lines += fmt.Sprintf("%s: %s left behind that ignore their contexts\n", plain(w.Name()), count(w.Abandoned, "goroutine is", "goroutines are"))
	}
	return lines
}

// plain is a text of somebody else's that a terminal cannot take for more.
func plain(s string) string { return excerpt([]byte(s), 200) }

// age is a duration in about three characters.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "-"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// drawTop puts the lines in place of those there were on the terminal, as many as it has
// room for.
func drawTop(out io.Writer, text string) error {
	width, height, err := term.GetSize(syscall.Stdout)
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) >= height {
		hidden := len(lines) - height + 2
		lines = append(lines[:max(1, height-2)], fmt.Sprintf("… %d more", hidden))
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for _, line := range lines {
		if runes := []rune(line); len(runes) > width {
			line = string(runes[:width])
		}
		b.WriteString(line + "\x1b[K\r\n")
	}
	b.WriteString("\x1b[J")
	_, err = io.WriteString(out, b.String())
	return err
}
