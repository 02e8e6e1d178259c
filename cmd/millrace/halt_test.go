package main

import "testing"

func TestHaltRulesMeanWhatTheyMeanInGNUParallel(t *testing.T) {
	type count struct{ succeeded, failed int64 }
	for rule, c := range map[string]struct {
		now          bool
		before, when count // the last state in which it goes on, the first in which it does not
	}{
		"now,fail=1":     {true, count{9, 0}, count{9, 1}},
		"soon,fail=3":    {false, count{9, 2}, count{0, 3}},
		"soon,success=2": {false, count{1, 9}, count{2, 0}},
		"now,done=4":     {true, count{2, 1}, count{2, 2}},
		"soon,fail=50%":  {false, count{2, 1}, count{2, 2}},
		"now,fail=100%":  {true, count{0, 2}, count{0, 3}},
		"10%":            {false, count{10, 1}, count{9, 1}},
	} {
		parsed, err := parseHalt(rule)
		if err != nil || parsed.now != c.now {
			t.Errorf("%s: %+v, %v", rule, parsed, err)
		}
		if parsed.reached(c.before.succeeded, c.before.failed) || !parsed.reached(c.when.succeeded, c.when.failed) {
			t.Errorf("%s: %v at %v, %v at %v", rule, parsed.reached(c.before.succeeded, c.before.failed), c.before,
				parsed.reached(c.when.succeeded, c.when.failed), c.when)
		}
	}
	never, err := parseHalt("never")
	if err != nil || never.reached(1000, 1000) {
		t.Errorf("never: %v", err)
	}
}

func TestWhatIsNoHaltRuleIsRefused(t *testing.T) {
	for _, s := range []string{"", "now", "later,fail=1", "now,fail", "now,fail=", "now,fail=0", "now,fail=-1", "now,fail=x", "now,crash=1", "soon,fail=0%", "soon,fail=101%", "soon,fail=NaN%", "soon,done=5%", "3"} {
		if rule, err := parseHalt(s); err == nil {
			t.Errorf("%q is %+v", s, rule)
		}
	}
}
