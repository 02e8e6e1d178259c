package jobs_test

import (
	"testing"

	"github.com/millrace/millrace"
)

// claim is one of what must hold on every broker.
type claim struct {
	name string
	test func(t *testing.T, on *system)
}

var claims = []claim{
	{"a client may die", diesUnseen}, // and what is left of it goes while the others run
	{"requests wait for workers", keepsEarlyRequests},
	{"each client gathers its own", gatherTheirOwn},
	{"who leaves cancels", leaversCancel},
	{"the messages of other programs are run, or kept", runsForeignMessages},
	{"examples/rpc runs", runsTheExample},
	{"what a lost worker had runs again in time", runAgain},
	{"every task has one result whatever happens to workers", survivesWorkers},
	{"every task has one result whatever happens to the broker", survivesBroker},
	{"nothing is left of a client that died", diedUnseen},
}

// TestJobs has every claim hold on every broker, one after the other; the brokers run side
// by side.
func TestJobs(t *testing.T) {
	for _, one := range systems {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			on := one.start(t)
			on.kind, on.t = one.name, t
			if err := on.open(t).Declare(t.Context(), againQueue, millrace.WorkChannel); err != nil {
				t.Fatal(err)
			}
			for _, c := range claims {
				t.Run(c.name, func(t *testing.T) { c.test(t, on) })
			}
		})
	}
}
