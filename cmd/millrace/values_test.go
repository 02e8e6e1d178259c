package main

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTheNumberOfJobsMayDependOnTheCores(t *testing.T) {
	for s, want := range map[string]int{
		"1": 1, "8": 8, "100%": 4, "50%": 2, "250%": 10, "1%": 1, "+2": 6, "-1": 3, "-9": 1, "+0": 4,
	} {
		if got, err := parseJobs(s, 4); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "x", "1.5", "-5%", "0%", "NaN%", "10001", "1e3"} {
		if got, err := parseJobs(s, 4); err == nil {
			t.Errorf("%q is %d", s, got)
		}
	}
}

func TestATimeIsSecondsOrADuration(t *testing.T) {
	for s, want := range map[string]time.Duration{"10": 10 * time.Second, "0.5": 500 * time.Millisecond, "1m30s": 90 * time.Second} {
		var d duration
		if err := d.Set(s); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %v, %v", s, time.Duration(d), err)
		}
	}
	for _, s := range []string{"", "0", "-1", "x", "NaN", "10 s"} {
		var d duration
		if err := d.Set(s); err == nil {
			t.Errorf("%q is %v", s, time.Duration(d))
		}
	}
}

func TestALongTimeCanBeInDays(t *testing.T) {
	const day = 24 * time.Hour
	for s, want := range map[string]time.Duration{"0": 0, "90m": 90 * time.Minute, "1d": day, "7d12h": 7*day + 12*time.Hour, "0.5d": day / 2, "-1d": -day} {
		var d span
		if err := d.Set(s); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %v, %v", s, time.Duration(d), err)
		}
	}
	for _, s := range []string{"", "1", "d", "1w", "1dd", "1d1", "NaNd", "Infd", "200000d", "1e300d"} {
		var d span
		if err := d.Set(s); err == nil || !strings.Contains(err.Error(), "write a time such as 90m, 24h or 7d") {
			t.Errorf("%q is %v, %v", s, time.Duration(d), err)
		}
	}
}

// A shell is asked what it takes the quoted command line for.
func TestAQuotedCommandLineIsWhatAShellTakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		argv := rapid.SliceOfN(rapid.StringMatching(`[ -~\n\té]{0,8}`), 1, 4).Draw(t, "argv")
		out, err := exec.Command("sh", "-c", `for a in `+quote(argv)+`; do printf '%s\0' "$a"; done`).Output()
		if want := strings.Join(argv, "\x00") + "\x00"; err != nil || string(out) != want {
			t.Fatalf("%s is %q, %v", quote(argv), out, err)
		}
	})
}
