package door

import (
	"context"
	"slices"
	"sync"

	"github.com/millrace/millrace/broker"
)

// births are the topics that are being created.
type births struct {
	mu     sync.Mutex
	topics map[string]chan struct{} // closed when the topic is there, or could not be made
}

// Topic returns the topic of that name, and creates it if need be: see broker.Broker.Topic.
// A new topic first gets the channels that it has elsewhere in the fleet, as nsqlookupd
// knows them, so that what is published here from now on reaches them all. Nobody gets the
// topic before.
func (d *Door) Topic(name string) (*broker.Topic, error) {
	if d.registrar.alone() {
		return d.broker.Topic(name)
	}
	for {
		t := d.broker.Lookup(name)
		born, mine := d.births.enter(name, t != nil)
		switch {
		case mine:
			return d.create(name)
		case born == nil:
			return t, nil
		}
		<-born
	}
}

// enter returns what to wait for if somebody creates the topic now; otherwise, unless it
// exists, the caller is to create it, and to call leave.
func (b *births) enter(name string, exists bool) (born chan struct{}, mine bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if born := b.topics[name]; born != nil || exists {
		return born, false
	}
	if b.topics == nil {
		b.topics = make(map[string]chan struct{})
	}
	b.topics[name] = make(chan struct{})
	return nil, true
}

func (b *births) leave(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.topics[name])
	delete(b.topics, name)
}

func (d *Door) create(name string) (*broker.Topic, error) {
	defer d.births.leave(name)
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.HTTPClientRequestTimeout)
	defer cancel()
	channels := d.registrar.channels(ctx, name)
	t, err := d.broker.Topic(name)
	if err != nil {
		return nil, err
	}
	for _, channel := range channels {
		if _, err := t.Channel(channel); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// names returns the broker's topics, each with channel "" and with each of its channels,
// sorted.
func (d *Door) names() []channelName {
	var names []channelName
	for _, t := range d.broker.Topics() {
		names = append(names, channelName{topic: t.Name()})
		for _, ch := range t.Channels() {
			names = append(names, channelName{t.Name(), ch.Name()})
		}
	}
	slices.SortFunc(names, channelName.compare)
	return names
}
