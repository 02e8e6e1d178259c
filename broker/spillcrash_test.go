package broker_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/vfs"
)

// deferrals are what a life with much that is deferred was promised: messages by body, and
// before when none may come. What was acked is not among them.
type deferrals struct {
	mu  sync.Mutex // guards due
	due map[string]time.Time
}

func (d *deferrals) set(body string, due time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.due[body] = due
}

func (d *deferrals) clone() map[string]time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.due)
}

// deferAndConsume publishes messages for later and for now, gives some of these back for
// later, and consumes what is due, so that there are always some runs, and some are merged.
func (d *deferrals) deferAndConsume(t *testing.T, b bench) {
	c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 100})
	for i := range 120 {
		delay := time.Duration((i*37)%120+1) * time.Minute
		body := strconv.Itoa(i)
		b.publishLater("t", delay, body)
		d.set(body, time.Now().Add(delay))
		if i%4 == 0 {
			body := fmt.Sprint("back ", i)
			b.publish("t", body)
			d.set(body, time.Now())
			b.must(c.Nack(t.Context(), delay, receive(t, c, 1)...))
			d.set(body, time.Now().Add(delay))
		}
		time.Sleep(200 * time.Millisecond)
	}
	for range 40 {
		ds := receiveWithin(t, time.Hour, c, 1)
		ack(t, c, ds...)
		d.mu.Lock()
		delete(d.due, string(ds[0].Body))
		d.mu.Unlock()
	}
	time.Sleep(time.Second)
}

// Before each call that changes the disk the power goes: what was deferred comes, and not
// before its time.
func TestPowerLossAtAnyMomentLeavesWhatIsDeferredDeferred(t *testing.T) {
	type moment struct {
		before string
		at     time.Time
		due    map[string]time.Time
		disks  []*vfs.Mem
	}
	var mu sync.Mutex
	var moments []moment
	merged := false
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		d := &deferrals{due: map[string]time.Time{}}
		d.deferAndConsume(t, open(t, fewNear().WithNear(6).On(vfs.Inject(disk, func(op vfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if changes(op.Kind) {
				r := rand.New(rand.NewPCG(1, uint64(len(moments))))
				moments = append(moments, moment{op.String(), time.Now(), d.clone(), []*vfs.Mem{disk.Crash(), disk.CrashKeeping(r)}})
			}
			if names, _ := disk.List("data/topics/t.topic"); len(names) > 20 {
				merged = true
			}
			return nil
		}))))
	})
	if !merged {
		t.Error("there were too few runs to be merged")
	}
	for i, m := range moments {
		if i%8 != 0 && (raceDetector || !strings.Contains(m.before, ".later")) {
			continue // journals and segments are written much more often
		}
		for _, disk := range m.disks {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(m.at))
				comeInTime(t, open(t, fewNear().WithNear(6).On(disk)), m.due)
				if t.Failed() {
					t.Fatalf("after a crash before %s", m.before)
				}
			})
		}
	}
}

// comeInTime receives all that is due, which may be more than that, and none too early.
func comeInTime(t *testing.T, b bench, due map[string]time.Time) {
	t.Helper()
	b.channel("t", "c")
	c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 100})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Hour)
	defer cancel()
	missing := maps.Clone(due)
	for {
		buf := make([]millrace.Delivery, 10)
		n, err := c.Receive(ctx, buf)
		if err != nil {
			break
		}
		for _, d := range buf[:n] {
			if early := time.Until(due[string(d.Body)]); early > 0 {
				t.Errorf("%s comes %v too early", d.Body, early)
			}
			delete(missing, string(d.Body))
		}
		ack(t, c, buf[:n]...)
	}
	if len(missing) > 0 {
		t.Errorf("missing are %v", slices.Sorted(maps.Keys(missing)))
	}
	b.wantDepth("c", millrace.Depth{})
}
