package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// parseJobs reads the argument of -j for a machine with that many cores: a number, or
// as in GNU Parallel a part of the cores ("50%") or some more or fewer than them ("+2",
// "-1"). There is always at least one.
func parseJobs(s string, cores int) (int, error) {
	bad := fmt.Errorf("%q is not a number of tasks to run at the same time: write 8, 50%%, +2 or -1 (of %d cores)", s, cores)
	if part, ok := strings.CutSuffix(s, "%"); ok {
		percent, err := strconv.ParseFloat(part, 64)
		if err != nil || !(percent > 0 && percent <= 100_000) {
			return 0, bad
		}
		return max(1, int(float64(cores)*percent/100)), nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n > maxJobs {
		return 0, bad
	}
	if strings.HasPrefix(s, "+") || strings.HasPrefix(s, "-") {
		return max(1, cores+n), nil
	}
	if n == 0 {
		return 0, bad
	}
	return n, nil
}

// maxJobs is where a number of processes is a slip of the finger.
const maxJobs = 10_000

// duration is a flag's value: a number of seconds, as in GNU Parallel, or what
// time.ParseDuration reads.
type duration time.Duration

func (d *duration) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

func (d *duration) Type() string { return "duration" }

func (d *duration) Set(s string) error {
	parsed, err := time.ParseDuration(s)
	if err != nil {
		var seconds float64
		seconds, err = strconv.ParseFloat(s, 64)
		parsed = time.Duration(seconds * float64(time.Second))
	}
	if err != nil || parsed <= 0 {
		return fmt.Errorf("write seconds, or a duration such as 500ms, 30s or 2h")
	}
	*d = duration(parsed)
	return nil
}

// span is a flag's value: what time.ParseDuration reads, or days, as in 7d or 1d12h.
type span time.Duration

func (s *span) String() string { return time.Duration(*s).String() }

func (s *span) Type() string { return "duration" }

func (s *span) Set(text string) error {
	const maxDays = 100_000
	number, rest, inDays := strings.Cut(text, "d")
	if !inDays {
		number, rest = "0", text
	}
	days, err := strconv.ParseFloat(number, 64)
	var more time.Duration
	if err == nil && (rest != "" || !inDays) {
		more, err = time.ParseDuration(rest)
	}
	if err != nil || !(math.Abs(days) <= maxDays) || more.Hours() > 24*maxDays {
		return errors.New("write a time such as 90m, 24h or 7d")
	}
	*s = span(days*float64(24*time.Hour)) + span(more)
	return nil
}

// orText is the text, or the other one when it is empty.
func orText(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// quote writes a command line as a shell would take it.
func quote(argv []string) string {
	var b strings.Builder
	for i, arg := range argv {
		if i > 0 {
			b.WriteByte(' ')
		}
		if arg != "" && strings.Trim(arg, safe) == "" {
			b.WriteString(arg)
			continue
		}
		b.WriteString("'" + strings.ReplaceAll(arg, "'", `'\''`) + "'")
	}
	return b.String()
}

// safe are the characters that no shell reads in a way of its own.
const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_-+:,./="
