package fleet

import (
	"fmt"
	"strconv"
	"strings"
)

// Change is how Scale changes how many replicas there are. Get one from By, To or
// ParseChange.
type Change struct {
	n  int
	to bool // else by
}

// By is so many more replicas, or fewer when n is negative.
func By(n int) Change { return Change{n: n} }

// To is so many replicas in all.
func To(n int) Change { return Change{n: n, to: true} }

// ParseChange reads a change as people write it: +2, -1 or =5.
func ParseChange(s string) (Change, error) {
	if len(s) > 1 {
		n, err := strconv.Atoi(s[1:])
		if err == nil && n >= 0 && s[1] != '+' && s[1] != '-' {
			switch s[0] {
			case '+':
				return By(n), nil
			case '-':
				return By(-n), nil
			case '=':
				return To(n), nil
			}
		}
	}
	hint := "+2, -1 or =5"
	if n := strings.TrimSpace(s); n != "" && strings.Trim(n, "0123456789") == "" {
		hint = "=" + n + " for that many in all, +" + n + " for that many more"
	}
	return Change{}, fmt.Errorf("fleet: %q does not say how many replicas: write %s", s, hint)
}

// String is what ParseChange reads.
func (c Change) String() string {
	if c.to {
		return fmt.Sprintf("=%d", c.n)
	}
	return fmt.Sprintf("%+d", c.n)
}

// from is how many replicas the change makes of so many.
func (c Change) from(have int) int {
	if c.to {
		return c.n
	}
	return have + c.n
}
