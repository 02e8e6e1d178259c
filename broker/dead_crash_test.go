package broker_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// burying is a life in which all messages but the even ones are refused until they are
// dead letters. promised is what a crash must not lose.
type burying struct {
	mu       sync.Mutex // guards promised: a crash is taken in whatever goroutine writes
	promised map[string]bool
}

const buryingAttempts = 2

func (l *burying) live(t *testing.T, opts broker.Options) {
	b, err := broker.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for i := range 4 {
		bodies := numbers(5*i, 5*i+5)
		if err := b.Publish("t", messages(bodies...)); err != nil {
			t.Fatal(err)
		}
		l.mu.Lock()
		for _, body := range bodies {
			l.promised[body] = true
		}
		l.mu.Unlock()
		l.refuseOdd(t, b)
	}
}

// refuseOdd acks what is even, and gives the rest back until nothing comes any more.
func (l *burying) refuseOdd(t *testing.T, b *broker.Broker) {
	c, err := b.Subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var buf [3]millrace.Delivery
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		n, err := c.Receive(ctx, buf[:])
		cancel()
		if err != nil {
			return
		}
		for _, d := range buf[:n] {
			if i, _ := strconv.Atoi(string(d.Body)); i%2 == 0 {
				l.mu.Lock()
				delete(l.promised, string(d.Body))
				l.mu.Unlock()
				ack(t, c, d)
			} else if err := c.Nack(t.Context(), 0, d); err != nil {
				t.Error(err)
			}
		}
	}
}

// verifyBuried goes on with what a crash has left, until all is over: what was promised
// is a dead letter then, and a crash has made at most one twice.
func verifyBuried(t *testing.T, disk *vfs.Mem, promised map[string]bool) {
	b := open(t, broker.Options{Dir: "data", MaxAttempts: buryingAttempts, Logger: quiet()}.On(disk))
	(&burying{promised: map[string]bool{}}).refuseOdd(t, b.Broker)
	letters := map[string]int{}
	c := b.deadLetters("t")
	for {
		var buf [10]millrace.Delivery
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		n, err := c.Receive(ctx, buf[:])
		cancel()
		if err != nil {
			break
		}
		for _, d := range buf[:n] {
			letters[string(d.Body)]++
			if n, _ := strconv.Atoi(d.Headers.Text(millrace.HeaderAttempts)); n < buryingAttempts {
				t.Errorf("the letter of %s says that it was delivered %d times", d.Body, n)
			}
		}
	}
	if d := b.depth("t", "c"); d != (millrace.Depth{}) {
		t.Errorf("there is more in the channel: %+v", d)
	}
	for body := range promised {
		if i, _ := strconv.Atoi(body); i%2 == 1 && letters[body] == 0 {
			t.Errorf("message %s is lost", body)
		}
	}
	for body, n := range letters {
		if n > 2 {
			t.Errorf("%d letters of message %s", n, body)
		}
	}
}

// Before each call that changes the disk the power goes: every message that was published
// and not acked is delivered again, or is a dead letter.
func TestPowerLossWhileLettersAreWrittenLosesNoMessage(t *testing.T) {
	type loss struct {
		before   string
		at       time.Time
		disk     *vfs.Mem
		promised map[string]bool
	}
	var losses []loss
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		l := &burying{promised: map[string]bool{}}
		opts := broker.Options{Dir: "data", MaxAttempts: buryingAttempts}.WithSegments(crashSegment)
		l.live(t, opts.On(vfs.Inject(disk, func(op vfs.Op) error {
			if changes(op.Kind) {
				l.mu.Lock()
				defer l.mu.Unlock()
				r := rand.New(rand.NewPCG(2, uint64(len(losses))))
				for _, left := range []*vfs.Mem{disk.Crash(), disk.CrashKeeping(r), disk.CrashKeeping(r)} {
					losses = append(losses, loss{op.String(), time.Now(), left, maps.Clone(l.promised)})
				}
			}
			return nil
		})))
	})
	if len(losses) < 300 {
		t.Errorf("only %d moments to lose power at", len(losses)/3)
	}
	for i, x := range losses {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(x.at)) // every bubble begins at the same time
				verifyBuried(t, x.disk, x.promised)
				if t.Failed() {
					t.Logf("the power went before %s", x.before)
				}
			})
		})
	}
}

// A call of the file system fails while letters are written, each in turn, once or for
// some time: when all is well again every message is a dead letter.
func TestACallThatFailsWhileLettersAreWrittenLosesNoMessage(t *testing.T) {
	for name, kind := range map[string]faultKind{
		"no space once":     {err: syscall.ENOSPC, hits: takesSpace},
		"no space for long": {err: syscall.ENOSPC, hits: takesSpace, stays: true},
		"one call fails":    {err: syscall.EIO, hits: anyCall},
		"all calls fail":    {err: syscall.EIO, hits: anyCall, stays: true},
	} {
		t.Run(name, func(t *testing.T) { eachInTurn(t, kind, buryWith) })
	}
}

func buryWith(t *testing.T, f *fault) {
	var burying atomic.Bool
	disk := vfs.Inject(vfs.NewMem(), func(op vfs.Op) error {
		if burying.Load() {
			return f.before(op)
		}
		return nil
	})
	b := open(t, broker.Options{Dir: "data", MaxAttempts: buryingAttempts, Logger: quiet()}.WithSegments(crashSegment).On(disk))
	bodies := numbers(0, 6)
	b.publish("t", bodies...)
	c := b.subscribe("t", "c", millrace.SubscribeOptions{})
	refuse(t, c, len(bodies), buryingAttempts)
	burying.Store(true)
	receiving, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		var buf [10]millrace.Delivery
		for receiving.Err() == nil { // also after an error: what cannot be read
			if n, _ := c.Receive(receiving, buf[:]); n > 0 {
				t.Errorf("%s came once too often", describe(buf[:n]))
			}
		}
	}()
	time.Sleep(15 * time.Second)
	burying.Store(false)
	time.Sleep(time.Minute)
	letters := map[string]bool{}
	for _, body := range drain(t, b.Broker, "t.dead", millrace.DeadChannel) {
		letters[body] = true
	}
	if len(letters) != len(bodies) {
		t.Errorf("there are letters of %v", letters)
	}
	if d := b.depth("t", "c"); d != (millrace.Depth{}) {
		t.Errorf("there is more in the channel: %+v", d)
	}
}
