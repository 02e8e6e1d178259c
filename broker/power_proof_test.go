package broker_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

var lives = flag.Int("lives", 3, "how many random lives the proofs lead, each")

// moments of a random life that are looked at after a power loss: about so many.
const moments = 60

// A broker leads a random life: several topics, channels that are made, paused, emptied
// and deleted, deferrals, compaction, restarts. The power goes before calls that change
// the disk, and whatever was promised by then holds.
func TestPowerLossInRandomLives(t *testing.T) {
	for seed := range uint64(*lives) { //nolint:gosec // few
		t.Run(fmt.Sprint(seed), func(t *testing.T) { powerLosses(t, seed, nil) })
	}
}

// powerLosses leads one life and looks at what its power losses leave.
func powerLosses(t *testing.T, seed uint64, f *outage) {
	r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // the same each time
	if f != nil {
		f.from = 1 + r.IntN(400)
		f.to = f.from + 1
		if f.stays || f.fills {
			f.to += 1 + r.IntN(150)
		}
		f.room = int64(r.IntN(400))
	}
	var taken []crash
	var w *wild
	calls, over := 0, false
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		if f != nil {
			f.disk = disk
		}
		w = newWild(t, seed, broker.Options{Dir: "data", Logger: quiet()}.WithSegments(crashSegment))
		w.fault = f
		const steps = 150
		w.opts = w.opts.On(vfs.Inject(disk, func(op vfs.Op) error {
			var err error
			if f != nil {
				err = f.before(op)
			}
			w.know(func(cs claims) {
				if !changes(op.Kind) || over {
					return
				}
				calls++
				if r.IntN(4*steps/moments) > 0 {
					return
				}
				what := fmt.Sprint("call ", calls, ", ", op, "\nwhat failed:", f.log(), "\n", strings.Join(w.story[max(0, len(w.story)-60):], "\n"))
				day := rand.New(rand.NewPCG(seed, uint64(calls))) //nolint:gosec // the same each time
				taken = append(taken, crash{what, time.Now(), cs.clone(), []*vfs.Mem{disk.Crash(), disk.CrashKeeping(day)}})
			})
			return err
		}))
		w.live(steps)
		w.know(func(claims) { over = true })
		if f != nil {
			f.end()
		}
		if f != nil && w.b == nil { // it recovers by itself; so does one that is opened again
			w.step()
		}
		if w.b != nil {
			time.Sleep(2 * time.Second)
			w.claims.clone().verifyLive(t, w.b)
			if t.Failed() {
				t.Logf("what was done:\n%s\nwhat failed:%s", strings.Join(w.story[max(0, len(w.story)-60):], "\n"), f.log())
			}
			if err := w.b.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	for _, c := range taken {
		c.verifyAll(t)
	}
	t.Logf("%d calls that change the disk, %d power losses", calls, len(taken))
}

// verifyAll is verify, and says what was done before.
func (c crash) verifyAll(t *testing.T) {
	for i, disk := range c.disks {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(c.at)) // every bubble begins at the same time
			disk.SetFree(plenty)         // if it was full
			if c.claims.verify(t, disk); t.Failed() {
				t.Fatalf("disk %d of the power loss before %s", i, c.before)
			}
		})
	}
}
