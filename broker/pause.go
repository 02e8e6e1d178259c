package broker

import (
	"errors"
	"fmt"
)

// Pause makes the channel deliver nothing until Unpause, also after a restart. What is in
// flight can be settled, and what a consumer is being given at the moment still arrives.
// Returns ErrNoSpace, ErrClosed, wrapped; then it is not paused.
func (ch *Channel) Pause() error { return ch.setPaused(true) }

// Unpause makes the channel deliver again. Returns what Pause does; then it still is
// paused.
func (ch *Channel) Unpause() error { return ch.setPaused(false) }

// Paused says whether the channel is paused.
func (ch *Channel) Paused() bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.paused
}

func (ch *Channel) setPaused(paused bool) error {
	t := ch.topic
	defer t.takeTurn()()
	before, err := ch.changePaused(paused)
	if err == nil && before != paused && ch.journal.kept() {
		if err = ch.journal.rewrite(ch); err != nil {
			_, _ = ch.changePaused(before)
			t.broker.house.tell(t) // the file may say something else now
		}
	}
	if err != nil {
		return ch.errorf(fmt.Errorf("change whether it is paused: %w", explain(err)))
	}
	return nil
}

// changePaused changes it in memory, and returns what it was.
func (ch *Channel) changePaused(paused bool) (before bool, err error) {
	ch.mu.Lock()
	if ch.ended != nil {
		ch.mu.Unlock()
		return false, ch.ended
	}
	before, ch.paused = ch.paused, paused
	next := ch.passOn()
	ch.mu.Unlock()
	next.wakeUp()
	return before, nil
}

// Pause keeps what is published from now on in the topic itself until Unpause, also after
// a restart. The channels deliver what they have got already. Returns ErrNoSpace,
// ErrClosed, wrapped; then it is not paused.
func (t *Topic) Pause() error { return t.setPaused(true) }

// Unpause gives the channels what has waited in the topic. Returns what Pause does; then
// it still is paused.
func (t *Topic) Unpause() error { return t.setPaused(false) }

// Paused says whether the topic is paused.
func (t *Topic) Paused() bool { return t.state().paused }

func (t *Topic) setPaused(paused bool) error {
	defer t.takeTurn()()
	t.mu.Lock()
	ended, before := t.ended, t.paused
	t.paused = paused || before // released stands still before it is written down
	s := released{t.released, paused}
	t.mu.Unlock()
	err := ended
	if err == nil && (before != paused || t.saved.found) {
		err = t.saveState(s)
	}
	if err != nil {
		paused = before
		if ended == nil {
			_ = t.saveState(released{s.cursor, before}) // in case that half of it was done
		}
	}
	t.mu.Lock()
	t.paused = paused
	t.mu.Unlock()
	if ended == nil {
		t.committed(t.log.End())
		t.survey()
	}
	if err != nil {
		return fmt.Errorf("change whether topic %s is paused: %w", t.name, explain(err))
	}
	return nil
}

// saveState makes safe what the topic's releasedFile says. The turn is held.
func (t *Topic) saveState(s released) error {
	if t.dir == "" {
		return nil
	}
	if t.saved.exists {
		return t.saved.write(s)
	}
	err := t.saved.create(s)
	if err == nil {
		err = t.broker.opts.fs.SyncDir(t.dir)
		t.saved.exists = err == nil
	}
	return err
}

// Empty takes out of the topic what waits in itself, because it has no channel or is
// paused. What its channels have got stays. Returns ErrNoSpace, ErrClosed, wrapped; then
// some of the channels may not get what was to go, and after a restart they may.
func (t *Topic) Empty() error {
	defer t.takeTurn()()
	if err := t.empty(); err != nil {
		return fmt.Errorf("empty topic %s: %w", t.name, explain(err))
	}
	return nil
}

func (t *Topic) empty() error {
	if ended := t.ending(); ended != nil {
		return ended
	}
	end := t.log.End()
	t.mu.Lock()
	from, paused, channels := t.released, t.paused, t.channels
	t.mu.Unlock()
	if from >= end || !paused && len(channels) > 0 {
		return nil
	}
	var errs []error
	for _, ch := range channels {
		ch.mu.Lock()
		ch.ledger.Exclude(from, end)
		ch.mu.Unlock()
		errs = append(errs, ch.persistNow())
	}
	errs = append(errs, t.saveState(released{end, paused}))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	t.mu.Lock()
	t.emptied += t.log.Count(from, end)
	t.released = end
	t.mu.Unlock()
	for _, ch := range channels {
		ch.extend(end)
	}
	t.broker.house.tell(t) // segments may be removable now
	return nil
}

// Empty makes the channel done with all that it has got, whatever its state: waiting,
// deferred, or in flight, whose leases end. Returns ErrNoSpace, ErrClosed, wrapped; then
// after a restart some of it may be there again.
func (ch *Channel) Empty() error {
	defer ch.topic.takeTurn()()
	var roomy []*Consumer
	ch.mu.Lock()
	if ch.ended != nil {
		ch.mu.Unlock()
		return ch.errorf(fmt.Errorf("empty it: %w", ch.ended))
	}
	ch.ledger.Empty(ch.limit)
	for _, c := range ch.consumers {
		c.held = 0
		if c.full {
			c.full = false
			roomy = append(roomy, c)
		}
	}
	ch.touch()
	ch.mu.Unlock()
	for _, c := range roomy {
		c.wakeUp()
	}
	if err := ch.persistNow(); err != nil {
		return ch.errorf(fmt.Errorf("empty it: %w", explain(err)))
	}
	return nil
}
