package broker_test

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
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

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// A fault makes one call of the file system fail, or from then on all until it is healed.
type fault struct {
	faultKind

	mu     sync.Mutex
	at     int // which call
	calls  int
	healed bool
	failed string
}

type faultKind struct {
	err   syscall.Errno
	hits  func(vfs.OpKind) bool
	stays bool
	fills bool // see outage
}

func (f *fault) before(op vfs.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.hits(op.Kind) {
		return nil
	}
	f.calls++
	if f.calls == f.at || f.stays && f.calls > f.at && !f.healed {
		f.failed += "\n" + op.String()
		return f.err
	}
	return nil
}

func (f *fault) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.healed = true
}

// eachInTurn runs try, in virtual time, with a fault of the kind at the first call, at the
// second, and so on, until there are not so many calls.
func eachInTurn(t *testing.T, kind faultKind, try func(t *testing.T, f *fault)) {
	for at := 1; ; at++ {
		now := fault{faultKind: kind, at: at}
		synctest.Test(t, func(t *testing.T) { try(t, &now) })
		if t.Failed() {
			t.Fatalf("call %d failed:%s", at, now.failed)
		}
		if now.failed == "" {
			t.Logf("%d calls, each in turn", at-1)
			return
		}
	}
}

func takesSpace(kind vfs.OpKind) bool {
	return slices.Contains([]vfs.OpKind{vfs.OpCreate, vfs.OpWrite, vfs.OpMkdirAll, vfs.OpRename}, kind)
}

func anyCall(kind vfs.OpKind) bool { return kind != vfs.OpClose }

// A call of the file system fails, each in turn: nothing that was promised is broken,
// neither in the broker that goes on nor for the one that is opened after a power loss.
func TestAnyCallThatFailsBreaksNoPromise(t *testing.T) {
	for name, kind := range map[string]faultKind{
		"one write finds no space":        {err: syscall.ENOSPC, hits: takesSpace},
		"the disk is full for some time":  {err: syscall.ENOSPC, hits: takesSpace, stays: true},
		"one call fails":                  {err: syscall.EIO, hits: anyCall},
		"the disk is gone for some time":  {err: syscall.EIO, hits: anyCall, stays: true},
		"no sync succeeds for some time":  {err: syscall.EIO, hits: func(k vfs.OpKind) bool { return k == vfs.OpSync }, stays: true},
		"no removal succeeds for a while": {err: syscall.EIO, hits: func(k vfs.OpKind) bool { return k == vfs.OpRemove || k == vfs.OpRemoveAll }, stays: true},
	} {
		t.Run(name, func(t *testing.T) { eachInTurn(t, kind, liveWith) })
	}
}

func liveWith(t *testing.T, f *fault) {
	disk := vfs.NewMem()
	l := &life{t: t, claims: claims{}, mayFail: true}
	opts := broker.Options{Dir: "data", Logger: quiet()}.WithSegments(crashSegment)
	err := l.lead(opts.On(vfs.Inject(disk, f.before)))
	if err != nil && !errors.Is(err, f.err) {
		t.Errorf("the error does not tell its cause: %v", err)
	}
	if err != nil && f.err == syscall.ENOSPC && !errors.Is(err, millrace.ErrNoSpace) {
		t.Errorf("the error is not ErrNoSpace: %v", err)
	}
	f.heal()
	crashed := disk.Crash()
	claims := l.claims.clone()
	if l.b != nil {
		time.Sleep(2 * time.Second) // what could not be read or written is tried again
		claims.verifyLive(t, l.b)
		if err := l.b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	claims.verify(t, crashed)
}

// A message that was given back and whose file cannot be read is kept back for a second,
// not for a lease, and the others come.
func TestAMessageThatCannotBeReadComesALittleLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		b := open(t, broker.Options{Dir: "data"}.On(disk))
		b.publish("t", "a", "b")
		receive(t, b.subscribe("t", "c", millrace.SubscribeOptions{}), 2)
		closed(b, disk)
		var broken atomic.Bool
		b = open(t, broker.Options{Dir: "data"}.On(vfs.Inject(disk, func(op vfs.Op) error {
			if broken.Load() && op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".seg") {
				return syscall.EIO
			}
			return nil
		})))
		c := b.subscribe("t", "c", millrace.SubscribeOptions{Prefetch: 2, Lease: time.Hour})
		broken.Store(true)
		var buf [2]millrace.Delivery
		if n, err := c.Receive(t.Context(), buf[:]); n != 0 || !errors.Is(err, syscall.EIO) {
			t.Errorf("%d, %v", n, err)
		}
		broken.Store(false)
		start := time.Now()
		wantDeliveries(t, receive(t, c, 2), "a@3 b@3")
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("they came after %v", waited)
		}
	})
}
