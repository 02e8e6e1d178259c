package broker

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace"
)

// lookEvery is how long what the disk had free is taken for true.
const lookEvery = 250 * time.Millisecond

// lowWater refuses messages while the disk has less free than Options.DiskLowWater, so
// that there always is room for what is not refused: journals, and whoever else uses the
// disk. It looks at most every lookEvery, and only when somebody wants to know; what is
// published in between may take the disk below the mark by as much.
type lowWater struct {
	broker *Broker
	free   atomic.Int64 // bytes, at the last look; -1 when that failed
	due    atomic.Int64 // when to look again
}

func (w *lowWater) start(b *Broker) {
	w.broker = b
	w.free.Store(math.MaxInt64) // for those who come while the first one looks
}

// check returns ErrNoSpace, wrapped, while the disk has too little free.
func (w *lowWater) check() error {
	opts := &w.broker.opts
	if opts.DiskLowWater <= 0 || opts.fs == nil {
		return nil
	}
	if free := w.look(); free >= 0 && free < opts.DiskLowWater {
		return fmt.Errorf("the disk of the data directory has %d bytes free, less than the %d of --disk-low-water: %w", free, opts.DiskLowWater, millrace.ErrNoSpace)
	}
	return nil
}

// look returns how many bytes the disk has free, or had a moment ago; -1 when it does not
// say. That must not refuse messages: a disk that is full does so itself.
func (w *lowWater) look() int64 {
	at, due := w.broker.now(), w.due.Load()
	// Whoever comes first looks; the others go by what was there.
	if at < due || !w.due.CompareAndSwap(due, after(at, lookEvery)) {
		return w.free.Load()
	}
	opts := &w.broker.opts
	free, err := opts.fs.Free(opts.Dir)
	if err != nil {
		free = -1
	}
	if before := w.free.Swap(free); free < 0 && before >= 0 && opts.DiskLowWater > 0 {
		opts.Logger.Warn("how much the disk has free cannot be told; --disk-low-water has no effect", "error", err)
	}
	return free
}
