package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/ledger"
)

// A channel has no more than some deferred messages in memory: those that are due first.
// The others it spills into runs, which are files, and loads block by block as their time
// comes near. When there are many runs, some are merged into one. All this is done in the
// topic's turn, by the housekeeper mostly, and never with the channel's lock held.
//
// A run is safe before the journal says that the messages are in it, and a file goes after
// the journal is safe that needs it no more. So whatever a crash leaves of the journal, the
// messages that it says to be in a run are there. Where a disk has damaged a run, those
// that stood there become ready: better early than never; and of what was published with
// a delay the log still knows until when it is to wait.

const (
	// nearMost is how many deferred messages a channel has in memory, more or less: 1.5 MB.
	nearMost = 64 << 10
	// loadAhead is how long before it is due a block is loaded.
	loadAhead = 2 * time.Second
	// giveUpAfter is how long after its time a block is tried to be read that cannot be.
	giveUpAfter = time.Minute
	// mergeFrom is how many runs there are before some are merged. Each is read in blocks of
	// some hundred messages, which must fit into memory all at once.
	mergeFrom = 16
	// mergeRuns is how many are merged at a time, and mergeBlocks how many blocks they may
	// have: a fraction of a second's work.
	mergeRuns   = 8
	mergeBlocks = 8 << 10
)

// laterFiles are the files of a channel's runs. They belong to whoever has the topic's turn.
type laterFiles struct {
	ids    []uint64 // of all files that there are
	strays bool     // some messages may be in no run any more
}

// keepLater puts on the disk what is deferred for long, and loads what is due soon. The
// turn is held.
func (ch *Channel) keepLater() error {
	if ch.topic.dir == "" {
		return nil // it stays in memory, as its messages do
	}
	err := errors.Join(ch.spill(), ch.load())
	if ch.later.strays {
		err = errors.Join(err, ch.findStrays())
	}
	err = errors.Join(err, ch.merge())
	if err != nil {
		return fmt.Errorf("keep deferred messages on the disk: %w", err)
	}
	return nil
}

// crowded says whether many more deferred messages are in memory than should be, so that
// whoever brings more waits until they are spilled.
func (ch *Channel) crowded() bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.ended == nil && ch.ledger.Near() >= 4*ch.nearMost()
}

func (ch *Channel) nearMost() int { return ch.topic.broker.opts.nearMost }

// relieve keeps whoever publishes faster with a delay than the housekeeper comes from
// filling the memory.
func (t *Topic) relieve() {
	for _, ch := range t.Channels() {
		if t.dir != "" && ch.crowded() {
			giveBack := t.takeTurn()
			// The housekeeper says why not. The journal has gathered as much.
			if ch.ending() == nil && ch.spill() == nil {
				_ = ch.keepJournal()
			}
			giveBack()
		}
	}
}

// spill makes a run of the half that is due last, if there are too many. The turn is held.
func (ch *Channel) spill() error {
	var ds []ledger.Deferral
	ch.mu.Lock()
	if ch.topic.dir != "" && ch.ended == nil && ch.ledger.Near() >= ch.nearMost() {
		ds = ch.ledger.AppendNear(ds)
	}
	ch.mu.Unlock()
	if len(ds) == 0 {
		return nil
	}
	slices.SortFunc(ds, ledger.Deferral.Compare)
	ds = ds[ch.nearMost()/2:]
	w, id, err := ch.newRun()
	if err != nil {
		return err
	}
	for _, d := range ds {
		if err := w.add(d); err != nil {
			w.abandon()
			return err
		}
	}
	blocks, due, err := w.finish()
	if err != nil {
		return err
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.ledger.Spilled(ledger.Run{ID: id, Left: blocks, Due: due}, ds)
	ch.touch()
	ch.arm(ch.now())
	return nil
}

// newRun begins the file of a run.
func (ch *Channel) newRun() (*laterWriter, uint64, error) {
	id := uint64(ch.now()) //nolint:gosec // after 1970
	for _, other := range ch.later.ids {
		id = max(id, other+1)
	}
	w, err := newLater(ch.topic.broker.opts.fs, ch.laterPath(id), id)
	if err != nil {
		return nil, 0, err
	}
	ch.later.ids = append(ch.later.ids, id)
	return w, id, nil
}

func (ch *Channel) laterPath(id uint64) string {
	return filepath.Join(ch.topic.dir, laterName(ch.name, id))
}

// load loads the blocks that are due soon, as far as there is room. The turn is held.
func (ch *Channel) load() error {
	open := openRuns{ch: ch}
	defer open.close()
	for {
		r, ok := ch.toLoad()
		if !ok {
			return nil
		}
		if err := ch.loadBlock(&open, r); err != nil {
			return err
		}
	}
}

// toLoad returns the run of which a block is to be loaded now. If it is not time yet, it
// sets the alarm. What is due and has no room, because consumers are slow, is loaded when
// they come: each time that they take something, the housekeeper comes too.
func (ch *Channel) toLoad() (ledger.Run, bool) {
	at := ch.now()
	ch.mu.Lock()
	l := ch.ledger
	l.NextRedelivery(at) // moves what is due
	next := ch.passOn()
	r, ok := l.NextRun()
	ok = ok && ch.ended == nil
	ready := l.Counts().Ready >= ch.nearMost()/2
	soon := ok && r.Due <= after(at, loadAhead)
	// What is due at once has more room than what is not.
	room := l.Near() < ch.nearMost() || r.Due <= at && l.Near() < 2*ch.nearMost()
	ch.called = soon && ready
	ch.arm(at)
	ch.mu.Unlock()
	next.wakeUp()
	return r, soon && !ready && room
}

func (ch *Channel) loadBlock(open *openRuns, r ledger.Run) error {
	var ds []ledger.Deferral
	var next int64
	reader, err := open.run(r.ID)
	if errors.Is(err, errDamaged) {
		ch.drop(r.ID)
		return nil
	}
	if err == nil {
		ds, next, err = reader.block(r.At)
	}
	if err != nil {
		if !errors.Is(err, errDamaged) && ch.now() < after(r.Due, giveUpAfter) {
			return err
		}
		ch.topic.damaged(laterName(ch.name, r.ID))(laterHeaders+int64(r.At)*laterBlock, laterBlock) //nolint:gosec // far below 2^63
		ch.later.strays = true
		ds, next = nil, r.Due
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.ledger.Loaded(r.ID, ds, next)
	ch.touch()
	return nil
}

// drop does without a run whose file is not there or cannot be read at all.
func (ch *Channel) drop(id uint64) {
	ch.topic.damaged(laterName(ch.name, id))(0, 0)
	ch.later.strays = true
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.ledger.Merged(ledger.Run{}, id)
	ch.touch()
}

// openRuns are the files of runs that are being read.
type openRuns struct {
	ch      *Channel
	readers map[uint64]*laterReader
}

func (o *openRuns) run(id uint64) (*laterReader, error) {
	if r := o.readers[id]; r != nil {
		return r, nil
	}
	if o.readers == nil {
		o.readers = make(map[uint64]*laterReader)
	}
	t := o.ch.topic
	r, err := openLater(t.broker.opts.fs, o.ch.laterPath(id), id, t.damaged(laterName(o.ch.name, id)))
	if err == nil {
		o.readers[id] = r
	}
	return r, err
}

func (o *openRuns) close() {
	for _, r := range o.readers {
		r.close()
	}
}

// block returns those messages of a block that it means.
func (o *openRuns) block(id, at uint64) ([]ledger.Deferral, error) {
	r, err := o.run(id)
	if err != nil {
		return nil, err
	}
	ds, _, err := r.block(at)
	if err != nil {
		return nil, err
	}
	o.ch.mu.Lock()
	defer o.ch.mu.Unlock()
	return o.ch.ledger.KeepFar(id, ds), nil
}

// runs returns the channel's runs.
func (ch *Channel) runs() []ledger.Run {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.ledger.Runs()
}

// findStrays makes ready what is in no run any more. The turn is held.
func (ch *Channel) findStrays() error {
	open := openRuns{ch: ch}
	defer open.close()
	ch.mu.Lock()
	census, runs := ch.ledger.Census(), ch.ledger.Runs() // nobody else changes these
	ch.mu.Unlock()
	for _, r := range runs {
		if _, err := open.run(r.ID); errors.Is(err, errDamaged) {
			ch.drop(r.ID)
			continue
		}
		for at := r.At; at < r.At+r.Left; at++ {
			ds, err := open.block(r.ID, at)
			if err != nil && !errors.Is(err, errDamaged) {
				return err
			}
			census.Found(ds)
		}
	}
	ch.mu.Lock()
	n := ch.ledger.Abandon(census)
	ch.touch()
	next := ch.passOn()
	ch.mu.Unlock()
	next.wakeUp()
	ch.later.strays = false
	ch.topic.broker.opts.Logger.Warn("it was lost until when messages are deferred; they are ready",
		"topic", ch.topic.name, "channel", ch.name, "messages", n)
	return nil
}

// sweep removes the files of runs that the journal does not need any more, which is safe
// before. The turn is held, and the journal was written.
func (ch *Channel) sweep() error {
	runs := ch.runs()
	unneeded := func(id uint64) bool {
		return !slices.ContainsFunc(runs, func(r ledger.Run) bool { return r.ID == id })
	}
	if !slices.ContainsFunc(ch.later.ids, unneeded) {
		return nil
	}
	if ch.journal.kept() {
		if err := ch.journal.sync(); err != nil {
			return err
		}
	}
	return ch.removeRuns(unneeded)
}

// findRuns takes stock of the files that there are when the channel is loaded. The next
// sweep takes those away that the journal does not know.
func (ch *Channel) findRuns(ids []uint64) {
	ch.later.ids = ids
	for _, r := range ch.runs() {
		if !slices.Contains(ids, r.ID) {
			ch.drop(r.ID)
		}
	}
}

// removeRuns removes the files that are named, as far as it can.
func (ch *Channel) removeRuns(named func(id uint64) bool) error {
	var errs []error
	ch.later.ids = slices.DeleteFunc(ch.later.ids, func(id uint64) bool {
		if !named(id) {
			return false
		}
		err := ch.topic.broker.opts.fs.Remove(ch.laterPath(id))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		errs = append(errs, err)
		return err == nil
	})
	return errors.Join(errs...)
}
