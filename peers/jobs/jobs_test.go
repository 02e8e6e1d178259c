package jobs_test

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace"
)

// claim is one of what must hold on every broker.
type claim struct {
	name string
	test func(t *testing.T, on *system)
}

// claims come in three parts, one after the other; those of the second are looked into at once.
var claims = [3][]claim{
	{
		{"a client may die", diesUnseen}, // and what is left of it goes while the others run
	},
	{
		{"requests wait for workers", keepsEarlyRequests},
		{"each client gathers its own", gatherTheirOwn},
		{"who leaves cancels", leaversCancel},
		{"the messages of other programs are run, or kept", runsForeignMessages},
		{"what is wrong with a URL is said", refusesBadURLs},
		{"examples/rpc runs", runsTheExample},
		{"a job survives its network", survivesNetwork},
		{"what a lost worker had runs again in time", runAgain},
	},
	{
		{"and nothing is left of all that", leavesNothing},
		{"every task has one result whatever happens to workers", survivesWorkers},
		{"every task has one result whatever happens to the broker", survivesBroker},
		{"nothing is left of a client that died", diedUnseen},
	},
}

// TestJobs has every claim hold on every broker; the brokers run side by side.
func TestJobs(t *testing.T) {
	for _, one := range systems {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			on := one.start(t)
			on.kind, on.t = one.name, t
			if err := on.open(t).Declare(t.Context(), againQueue, millrace.WorkChannel); err != nil {
				t.Fatal(err)
			}
			for i, part := range claims {
				on.busy = i == 1
				t.Run(fmt.Sprint("part ", i+1), func(t *testing.T) {
					for _, c := range part {
						t.Run(c.name, func(t *testing.T) {
							if on.busy {
								t.Parallel()
							}
							c.test(t, on)
						})
					}
				})
			}
		})
	}
}

func leavesNothing(t *testing.T, on *system) {
	eventually(t, patience, "no reply topic is left", func() bool { return len(on.replyTopics(t)) == 0 })
}
