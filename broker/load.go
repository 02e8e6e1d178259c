package broker

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/seglog"
)

// load opens the topic's log and its channels, or makes a new topic.
func (t *Topic) load() error {
	opts := seglog.Options{OnCommit: t.committed, SegmentSize: t.broker.opts.segmentSize}
	if t.dir == "" {
		log, err := seglog.Open(opts)
		t.log = log
		return err
	}
	b := t.broker
	opts.FS, opts.Dir, opts.Name, opts.Committer, opts.Tail = b.opts.fs, t.dir, t.name, b.committer, b.tail
	opts.OnDamage = func(d seglog.Damage) {
		b.damaged(filepath.Join(t.dir, d.File), d.Offset, d.Bytes, d.Err)
	}
	if err := b.removeRemains(t); err != nil {
		return err
	}
	if err := makeDir(opts.FS, t.dir); err != nil {
		_ = opts.FS.Remove(t.dir) // which fails unless it is empty
		b.noteRemains(t.name)     // nobody knows yet whether it is gone for good
		return err
	}
	log, err := seglog.Open(opts)
	if errors.Is(err, seglog.ErrNewerVersion) {
		err = newerLog{err}
	}
	if err != nil {
		return err
	}
	t.log = log
	if err = t.loadChannels(); err != nil {
		for _, ch := range t.channels {
			ch.end(err)
			ch.journal.letGo()
		}
		_ = log.Close()
	}
	return err
}

// newerLog is ErrNewerVersion, said by package seglog.
type newerLog struct{ error }

func (e newerLog) Unwrap() []error { return []error{ErrNewerVersion, e.error} }

// loadChannels reads the topic's journals, or if there are none, where its first channel
// will start.
func (t *Topic) loadChannels() error {
	fsys := t.broker.opts.fs
	names, err := fsys.List(t.dir)
	if err == nil {
		// A process may have died between making a channel and making that safe.
		err = fsys.SyncDir(t.dir)
	}
	if err != nil {
		return err
	}
	runs := make(map[string][]uint64) // by channel
	for _, base := range names {
		if channel, id, ok := parseLaterName(base); ok {
			runs[channel] = append(runs[channel], id)
			continue
		}
		if strings.HasSuffix(base, tempSuffix) {
			_ = fsys.Remove(filepath.Join(t.dir, base)) // it will be replaced anyway
			continue
		}
		name, ok := strings.CutSuffix(base, ledgerSuffix)
		if !ok || millrace.CheckName(name) != nil {
			continue // not ours
		}
		if err := t.loadChannel(name); err != nil {
			return err
		}
	}
	end := t.log.End()
	saved, err := t.saved.load(t.damaged(releasedName))
	if err != nil {
		return fmt.Errorf("%s: %w", t.saved.path, err)
	}
	t.released, t.paused = min(saved.cursor, end), saved.paused
	if len(t.channels) > 0 && !t.paused {
		t.released = end
	}
	for _, ch := range t.channels {
		ch.findRuns(runs[ch.name])
		delete(runs, ch.name)
		ch.mu.Lock() // what is overdue rings at once
		ch.limit = max(t.released, ch.ledger.Cursor())
		at := t.broker.now()
		ch.ledger.NextRedelivery(at) // moves what became due meanwhile
		ch.arm(at)
		ch.mu.Unlock()
	}
	for channel, ids := range runs { // one that is no more
		for _, id := range ids {
			_ = fsys.Remove(filepath.Join(t.dir, laterName(channel, id)))
		}
	}
	t.survey()
	t.start()
	return nil
}

func (t *Topic) loadChannel(name string) error {
	j := &journal{fs: t.broker.opts.fs, path: journalPath(t.dir, name)}
	end := t.log.End()
	l, paused, err := j.load(end, t.damaged(name+ledgerSuffix))
	if err != nil {
		return fmt.Errorf("%s: %w", j.path, err)
	}
	ch := newChannel(t, name, l)
	ch.journal, ch.paused = j, paused
	t.channels = append(t.channels, ch)
	return nil
}

// damaged returns what reports damage in one of the topic's files.
func (t *Topic) damaged(base string) func(offset, bytes int64) {
	return func(offset, bytes int64) {
		t.broker.damaged(filepath.Join(t.dir, base), offset, bytes, errDamaged)
	}
}
