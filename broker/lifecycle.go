package broker

import (
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/ledger"
)

// A channel is made durable before anybody can see it, and cannot be seen any more
// before its file goes. All this happens one after the other in the topic's turn, so
// that what is deleted and made again under the same name never shares a file.

// takeTurn waits for the topic's turn and returns what gives it back.
func (t *Topic) takeTurn() (giveBack func()) {
	t.turn <- struct{}{}
	return func() { <-t.turn }
}

// Channel returns the channel of that name, and creates it if need be: the first one
// of a topic gets all that waits in it, a later one only what is published from now on.
// Returns ErrBadName, ErrNoSpace, ErrClosed, wrapped.
func (t *Topic) Channel(name string) (*Channel, error) {
	if ch := t.Lookup(name); ch != nil && ch.ending() == nil {
		return ch, nil
	}
	if err := millrace.CheckName(name); err != nil {
		return nil, err
	}
	defer t.takeTurn()()
	if ended := t.ending(); ended != nil {
		return nil, ended
	}
	if ch := t.Lookup(name); ch != nil {
		return ch, nil // somebody else was faster
	}
	ch := newChannel(t, name, ledger.New(t.releasedTo()))
	if err := ch.save(); err != nil {
		return nil, fmt.Errorf("create channel %s of topic %s: %w", name, t.name, explain(err))
	}
	delete(t.remains, name) // its file was replaced
	t.add(ch)
	return ch, nil
}

// save makes a new channel durable. The turn is held.
func (ch *Channel) save() error {
	t := ch.topic
	if t.dir == "" {
		return nil
	}
	// When the topic's last channel goes, the disk may be full: what is to be written
	// then gets its place now.
	if err := t.saved.create(t.state()); err != nil {
		return err
	}
	return ch.journal.create(ch)
}

// add lets the topic's messages flow to the channel. The turn is held.
func (t *Topic) add(ch *Channel) {
	t.mu.Lock()
	ch.limit = t.released
	t.channels = append(t.channels[:len(t.channels):len(t.channels)], ch)
	t.mu.Unlock()
	ch.base = t.arrived()
	t.committed(t.log.End()) // what waited in the topic waits in its first channel now
	t.survey()
	t.broker.changes.announce()
}

// DeleteChannel removes the channel. Its consumers get ErrClosed. Deleting one that
// does not exist is no error. With an error it delivers nothing any more, but may be there
// again after a restart, unless it is deleted again.
func (t *Topic) DeleteChannel(name string) error {
	defer t.takeTurn()()
	ch := t.Lookup(name)
	if ch == nil {
		ch = t.remains[name]
	}
	if ch == nil || t.ending() != nil {
		return nil
	}
	ch.end(errChannelGone)
	if err := t.remove(ch); err != nil {
		return fmt.Errorf("delete channel %s of topic %s: %w", name, t.name, explain(err))
	}
	return nil
}

// deleteIdle removes an ephemeral channel, unless it has got another consumer.
func (t *Topic) deleteIdle(ch *Channel) {
	defer t.takeTurn()()
	if !ch.endIdle(errChannelGone) {
		return
	}
	if err := t.remove(ch); err != nil {
		t.broker.opts.Logger.Error("an ephemeral channel is not gone from the disk", "topic", t.name, "channel", ch.name, "error", err)
	}
}

// remove takes away a channel that has ended. The turn is held.
func (t *Topic) remove(ch *Channel) error {
	rest := t.drop(ch)
	defer t.broker.changes.announce()
	if len(rest) == 0 && millrace.Ephemeral(t.name) {
		return t.deleteNow()
	}
	t.broker.house.tell(t) // segments may be removable now
	err := t.saveReleased(rest)
	if err == nil {
		err = ch.journal.remove()
	}
	if err == nil {
		err = ch.removeRuns(func(uint64) bool { return true })
	}
	if err == nil {
		delete(t.remains, ch.name)
	} else {
		if t.remains == nil {
			t.remains = make(map[string]*Channel)
		}
		t.remains[ch.name] = ch
	}
	return err
}

// drop takes a channel out of the list and returns those that are left.
func (t *Topic) drop(ch *Channel) []*Channel {
	t.mu.Lock()
	defer t.mu.Unlock()
	rest := make([]*Channel, 0, len(t.channels))
	for _, c := range t.channels {
		if c != ch {
			rest = append(rest, c)
		}
	}
	t.channels = rest
	return rest
}

// saveReleased writes the released cursor down, if there is no journal from which a
// restart could tell that the messages before it have gone to a channel.
func (t *Topic) saveReleased(channels []*Channel) error {
	if t.dir == "" || slices.ContainsFunc(channels, func(ch *Channel) bool { return ch.journal.kept() }) {
		return nil
	}
	return t.saved.write(t.state())
}

// delete ends the topic and removes what it has on disk.
func (t *Topic) delete() error {
	defer t.takeTurn()()
	if ended := t.ending(); ended != nil {
		if errors.Is(ended, errTopicGone) {
			return nil // somebody else was faster
		}
		return ended
	}
	return t.deleteNow()
}

// deleteNow is delete for who holds the turn.
func (t *Topic) deleteNow() error {
	for _, ch := range t.end(errTopicGone) {
		ch.journal.letGo()
	}
	_ = t.log.Close() // what cannot be written any more was to go anyway
	var err error
	if t.dir != "" {
		err = t.broker.removeTopicDir(t)
	}
	t.broker.forgetDeleted(t, err != nil)
	close(t.deleted)
	t.broker.changes.announce()
	return err
}

// end makes the topic take nothing any more, ends its channels and returns them. The
// turn is held.
func (t *Topic) end(why error) []*Channel {
	t.again.cancel()
	t.mu.Lock()
	t.ended = why
	channels, bytes := t.channels, t.bytes
	t.channels, t.bytes = nil, 0
	t.mu.Unlock()
	t.broker.memory.Add(-bytes)
	for _, ch := range channels {
		ch.end(why)
	}
	return channels
}

// close ends the topic and keeps what it has on disk.
func (t *Topic) close() error {
	if t.ready() != nil {
		return nil
	}
	defer t.takeTurn()()
	if t.ending() != nil {
		return nil
	}
	channels := t.end(millrace.ErrClosed)
	errs := []error{t.log.Close()}
	for _, ch := range channels {
		errs = append(errs, ch.journal.close(ch))
	}
	if len(channels) > 0 {
		// If they all are ephemeral, they are no more when the topic is opened again.
		errs = append(errs, t.saveReleased(channels))
	}
	return errors.Join(errs...)
}
