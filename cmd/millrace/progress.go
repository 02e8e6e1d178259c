package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// tally is how far a job is.
type tally struct {
	total         int64 // inputs there will be; -1 when that is not known
	read          int64 // inputs that were read
	done, failed  int64 // inputs that have a result; of them, those with an error
	busy, workers int   // replicas that run a task, and all; 0 when they are elsewhere
}

// pace measures how fast tasks are done: over the whole job at first, then over about
// the last ten seconds, or more as long as few tasks end in that time.
type pace struct {
	begun        time.Time
	older, newer mark
}

type mark struct {
	at   time.Time
	done int64
}

const (
	paceTime  = 10 * time.Second
	paceTasks = 10
)

func newPace(now time.Time) *pace {
	return &pace{begun: now, older: mark{at: now}, newer: mark{at: now}}
}

// perSecond returns the rate at now; 0 before the first task is done.
func (p *pace) perSecond(now time.Time, done int64) float64 {
	if now.Sub(p.newer.at) >= paceTime && done-p.newer.done >= paceTasks {
		p.older, p.newer = p.newer, mark{now, done}
	}
	elapsed := now.Sub(p.older.at).Seconds()
	if elapsed <= 0 {
		return 0
	}
	return float64(done-p.older.done) / elapsed
}

// statusLine is the progress bar, at most width columns of ASCII.
func statusLine(t tally, p *pace, now time.Time, width int) string {
	rate := p.perSecond(now, t.done)
	var b strings.Builder
	if t.total >= 0 {
		fmt.Fprintf(&b, "%d/%d %d%%", t.done, t.total, percent(t.done, t.total))
	} else {
		fmt.Fprintf(&b, "%d done of %d read", t.done, t.read)
	}
	if t.failed > 0 {
		fmt.Fprintf(&b, ", %d failed", t.failed)
	}
	if t.workers > 0 {
		fmt.Fprintf(&b, ", %d of %d busy", t.busy, t.workers)
	}
	b.WriteString(", " + rateText(rate))
	if left := t.total - t.done; left > 0 && rate > 0 {
		b.WriteString(", ETA " + clock(time.Duration(float64(left)/rate*float64(time.Second))))
	} else {
		b.WriteString(", " + clock(now.Sub(p.begun)))
	}
	line := b.String()
	if room := min(40, width-len(line)-3); t.total > 0 && room >= 10 {
		line = "[" + gauge(t.done, t.total, room) + "] " + line
	}
	return line[:min(len(line), width)]
}

func percent(part, whole int64) int64 {
	if whole <= 0 {
		return 100
	}
	return int64(float64(part) / float64(whole) * 100)
}

func gauge(part, whole int64, width int) string {
	full := min(width, int(float64(part)/float64(whole)*float64(width)))
	if full == width {
		return strings.Repeat("=", width)
	}
	return strings.Repeat("=", full) + ">" + strings.Repeat(" ", width-full-1)
}

func rateText(perSecond float64) string {
	switch {
	case perSecond >= 10 || perSecond == 0:
		return fmt.Sprintf("%.0f/s", perSecond)
	case perSecond >= 1:
		return fmt.Sprintf("%.1f/s", perSecond)
	case perSecond*60 >= 1:
		return fmt.Sprintf("%.1f/min", perSecond*60)
	default:
		return fmt.Sprintf("%.1f/h", perSecond*3600)
	}
}

// clock writes a time as 0:07, 12:34 or 1:02:03.
func clock(d time.Duration) string {
	seconds := int64(math.Round(min(d.Seconds(), 1e9)))
	if seconds < 3600 {
		return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", seconds/3600, seconds/60%60, seconds%60)
}
