package broker_test

import (
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/millrace/millrace/internal/vfs"
)

// Calls of the file system fail for a while besides, and its users go on: no promise that
// was made before, meanwhile or after is broken, neither in the broker that goes on nor in
// one that is opened after a power loss.
func TestPowerLossInRandomLivesOnAFailingDisk(t *testing.T) {
	for seed := range uint64(*lives) { //nolint:gosec // few
		for name, kind := range map[string]faultKind{
			"no space": {err: syscall.ENOSPC, hits: takesSpace, stays: true},
			"no sync":  {err: syscall.EIO, hits: func(k vfs.OpKind) bool { return k == vfs.OpSync || k == vfs.OpSyncDir }, stays: true},
			"no call":  {err: syscall.EIO, hits: anyCall, stays: true},
			"one call": {err: syscall.EIO, hits: anyCall},
			// The disk itself has no room: a write writes what fits, and removing makes room.
			"full": {err: syscall.ENOSPC, hits: takesSpace, fills: true},
		} {
			t.Run(fmt.Sprintf("%d %s", seed, name), func(t *testing.T) {
				powerLosses(t, seed, &outage{faultKind: kind})
			})
		}
	}
}

// An outage makes calls of the file system fail from one to another.
type outage struct {
	faultKind
	from, to int // which of the calls that it hits

	mu     sync.Mutex // guards what follows
	calls  int
	over   bool
	failed string
	disk   *vfs.Mem
	room   int64 // of a disk that fills up
}

func (o *outage) before(op vfs.Op) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.hits(op.Kind) {
		return nil
	}
	if o.calls++; o.over || o.calls < o.from || o.calls >= o.to {
		return nil
	}
	o.failed += "\n" + op.String()
	if !o.fills {
		return o.err
	}
	if o.calls == o.from {
		o.disk.SetFree(o.room)
	} else if o.calls == o.to-1 {
		o.disk.SetFree(plenty)
	}
	return nil
}

// end makes everything work again.
func (o *outage) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over = true; o.fills {
		o.disk.SetFree(plenty)
	}
}

const plenty = 1 << 30

// log says what has failed.
func (o *outage) log() string {
	if o == nil {
		return " nothing"
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}
