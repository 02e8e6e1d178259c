package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace"
)

const (
	probeName = "PROBE" + tempSuffix
	// probeSize is more than what a nearly full disk has left here and there.
	probeSize = 64 << 10
	// probeEvery is how long what a probe has found is taken for true.
	probeEvery = time.Second
)

// health knows whether a publish would fail.
type health struct {
	broker *Broker
	failed atomic.Bool   // the last publish met an error of the disk
	turn   chan struct{} // holds a token while somebody probes the disk

	mu   sync.Mutex // guards what follows
	at   time.Time  // of the last probe
	says error
}

func (h *health) start(b *Broker) { h.broker, h.turn = b, make(chan struct{}, 1) }

// note is told how each publish went. One that worked proves more than a probe.
func (h *health) note(err error) {
	if err == nil {
		if h.failed.Load() {
			h.failed.Store(false)
		}
	} else if !errors.Is(explain(err), millrace.ErrClosed) {
		h.failed.Store(true)
	}
}

// Health returns nil, or why a publish would fail: ErrClosed, ErrNoSpace, or what the disk
// says, wrapped. It tries, by writing and syncing a small file at most once a second; so a
// disk that works again is noticed although nobody publishes.
func (b *Broker) Health() error {
	if err := b.closedError(); err != nil {
		return err
	}
	if b.opts.fs == nil {
		// In the last hundredth some small messages may fit, which others would not.
		if held := b.memory.Load(); held >= b.opts.MaxMemory-b.opts.MaxMemory/100 {
			return fmt.Errorf("the broker holds %d bytes of messages in memory, of at most %d: %w", held, b.opts.MaxMemory, millrace.ErrNoSpace)
		}
		return nil
	}
	if err := b.water.check(); err != nil {
		return err
	}
	h := &b.health
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	h.mu.Lock()
	at, says := h.at, h.says
	h.mu.Unlock()
	fresh := time.Since(at) < probeEvery && !at.IsZero()
	if fresh && (says != nil || !h.failed.Load()) {
		return says
	}
	return h.probe()
}

// probe writes to the disk and remembers how that went. The turn is held.
func (h *health) probe() error {
	fsys, path := h.broker.opts.fs, filepath.Join(h.broker.opts.Dir, probeName)
	err := fsys.Remove(path) // one that a crash has left
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		file, createErr := fsys.Create(path)
		if err = createErr; err == nil {
			if _, err = file.WriteAt(make([]byte, probeSize), 0); err == nil {
				err = file.Sync()
			}
			err = errors.Join(err, file.Close(), fsys.Remove(path))
		}
	}
	if err != nil {
		err = fmt.Errorf("the data directory cannot be written to: %w", explain(err))
	} else {
		h.failed.Store(false)
	}
	h.mu.Lock()
	h.at, h.says = time.Now(), err
	h.mu.Unlock()
	return err
}
