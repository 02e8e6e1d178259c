package broker_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// A crash is one moment of a life.
type crash struct {
	before string // what was about to be done
	at     time.Time
	claims claims
	disks  []*vfs.Mem
}

// verify holds what the power loss has left to what was promised by then.
func (c crash) verify(t *testing.T) {
	for i, disk := range c.disks {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(c.at)) // every bubble begins at the same time
			c.claims.verify(t, disk)
			if t.Failed() {
				t.Logf("disk %d of the crash before %s; claimed was %v", i, c.before, c.claims)
			}
		})
	}
}

// Before each call that changes the disk the power goes: whatever was promised by then
// holds when the broker is opened again.
func TestPowerLossAtAnyMomentKeepsWhatWasPromised(t *testing.T) {
	var crashes []crash
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		l := &life{t: t, claims: claims{}}
		l.wholeLife(broker.Options{Dir: "data"}.WithSegments(crashSegment).On(vfs.Inject(disk, func(op vfs.Op) error {
			if changes(op.Kind) {
				l.know(func(cs claims) {
					r := rand.New(rand.NewPCG(1, uint64(len(crashes))))
					crashes = append(crashes, crash{
						op.String(), time.Now(), cs.clone(),
						[]*vfs.Mem{disk.Crash(), disk.CrashKeeping(r), disk.CrashKeeping(r)},
					})
				})
			}
			return nil
		})))
	})
	if len(crashes) < 100 {
		t.Errorf("only %d moments to crash at", len(crashes))
	}
	for i, c := range crashes {
		t.Run(fmt.Sprint(i), c.verify)
	}
}

func changes(kind vfs.OpKind) bool {
	switch kind {
	case vfs.OpOpen, vfs.OpList, vfs.OpRead, vfs.OpSize, vfs.OpClose:
		return false
	}
	return true
}
