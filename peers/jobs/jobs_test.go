package jobs_test

import "testing"

// claim is one of what must hold on every broker.
type claim struct {
	name string
	test func(t *testing.T, on *system)
}

var claims = []claim{
	{"every task has one result whatever happens to workers", survivesWorkers},
	{"every task has one result whatever happens to the broker", survivesBroker},
}

// TestJobs has every claim hold on every broker, one after the other; the brokers run side
// by side.
func TestJobs(t *testing.T) {
	for _, one := range systems {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			on := one.start(t)
			on.kind = one.name
			for _, c := range claims {
				t.Run(c.name, func(t *testing.T) { c.test(t, on) })
			}
		})
	}
}
