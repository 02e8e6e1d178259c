package main

import (
	"testing"
	"time"
)

func TestTheProgressBarTellsHowFarAndHowLong(t *testing.T) {
	begun := time.Unix(1000, 0)
	for _, c := range []struct {
		tally tally
		after time.Duration
		width int
		want  string
	}{
		{tally{total: 1000, done: 400, failed: 2, busy: 3, workers: 4}, 4 * time.Second, 80, "[==========>              ] 400/1000 40%, 2 failed, 3 of 4 busy, 100/s, ETA 0:06"},
		{tally{total: 1000, done: 400, failed: 2, busy: 3, workers: 4}, 4 * time.Second, 60, "400/1000 40%, 2 failed, 3 of 4 busy, 100/s, ETA 0:06"},
		{tally{total: 1000, done: 400}, 4 * time.Second, 20, "400/1000 40%, 100/s,"},
		{tally{total: 10, done: 10}, 100 * time.Second, 79, "[========================================] 10/10 100%, 6.0/min, 1:40"},
		{tally{total: 10}, time.Second, 40, "[>                  ] 0/10 0%, 0/s, 0:01"},
		{tally{total: -1, read: 7, done: 5, busy: 2, workers: 2}, 2 * time.Second, 80, "5 done of 7 read, 2 of 2 busy, 2.5/s, 0:02"},
		{tally{total: 0}, time.Second, 80, "0/0 100%, 0/s, 0:01"},
		{tally{total: 100, done: 1}, 2 * time.Hour, 30, "1/100 1%, 0.5/h, ETA 198:00:00"},
	} {
		got := statusLine(c.tally, newPace(begun), begun.Add(c.after), c.width)
		if len(got) > c.width || got != c.want {
			t.Errorf("%+v in %d columns:\n%q, want\n%q", c.tally, c.width, got, c.want)
		}
	}
}

func TestTheRateIsThatOfTheLastSeconds(t *testing.T) {
	now := time.Unix(1000, 0)
	p := newPace(now)
	done := int64(0)
	run := func(d time.Duration, perSecond int64) (rate float64) {
		for range int(d / time.Second) {
			now = now.Add(time.Second)
			done += perSecond
			rate = p.perSecond(now, done)
		}
		return rate
	}
	if rate := run(time.Minute, 100); rate < 99 || rate > 101 {
		t.Errorf("%v/s, want 100", rate)
	}
	if rate := run(30*time.Second, 10); rate < 9 || rate > 11 {
		t.Errorf("%v/s half a minute after it went down to 10", rate)
	}
	// Few tasks in a long time: the window grows, and the rate does not jump to zero.
	for range 20 {
		now = now.Add(time.Minute)
		done++
		p.perSecond(now, done)
	}
	if rate := p.perSecond(now.Add(30*time.Second), done) * 60; rate < 0.5 || rate > 2 {
		t.Errorf("%v/min, want 1", rate)
	}
}
