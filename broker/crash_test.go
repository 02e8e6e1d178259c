package broker_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
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
	handles := map[string]int{} // open files
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		l := &life{t: t, claims: claims{}}
		l.wholeLife(broker.Options{Dir: "data"}.WithSegments(crashSegment).On(vfs.Inject(disk, func(op vfs.Op) error {
			l.know(func(claims) {
				switch op.Kind {
				case vfs.OpOpen, vfs.OpCreate:
					handles[op.Name]++
				case vfs.OpClose:
					handles[op.Name]--
				}
			})
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
	for name, n := range handles {
		// FORMAT and RELEASED are tried to be opened before they are there.
		if n != 0 && (strings.HasSuffix(name, ".seg") || strings.Contains(name, ".ledger")) {
			t.Errorf("%s is %d times open", name, n)
		}
	}
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

// The process died after it had made a directory, and before that was safe.
func TestWhatAKilledProcessLeftUnsafeIsMadeSafe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		closed(open(t, broker.Options{Dir: "data"}.On(disk)), disk)
		if err := disk.MkdirAll("data/topics/t.topic"); err != nil {
			t.Fatal(err)
		}
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		b.publish("t", "a")
		b = open(t, broker.Options{Dir: "data"}.On(disk.Crash()))
		wantDeliveries(t, receive(t, b.subscribe("t", "c", millrace.SubscribeOptions{}), 1), "a@1")
	})
}
