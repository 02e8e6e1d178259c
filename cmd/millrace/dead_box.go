package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

const (
	// deadWindow is the most letters that are held at a time: fewer than what a client of
	// nsqd may have in flight.
	deadWindow = 1000
	// deadLease is how long they are held. What is passed over is given back at the end,
	// or when there are so many that they have to be given back before.
	deadLease = time.Minute
	// deadPatience is how long a letter is waited for that the broker says is there.
	deadPatience = 2 * time.Second
)

// deadBox is the dead letters of a topic, from which they are taken one by one.
type deadBox struct {
	broker  millrace.Broker
	letters millrace.Subscription
	topic   string // in which they are
	there   int64  // how many there were, and are to be looked at
	held    []millrace.Delivery
	ours    map[uint64]bool // dealt with, but not acked: they come again
}

// openBox connects to the broker; a box that is not there is empty.
func (o *deadOptions) openBox(ctx context.Context) (*deadBox, error) {
	b, err := openBroker(ctx, o.broker)
	if err != nil {
		return nil, err
	}
	box := &deadBox{broker: b, topic: broker.DeadTopic(o.topic), ours: make(map[uint64]bool)}
	depth, err := b.Depth(ctx, box.topic, millrace.DeadChannel)
	switch {
	case errors.Is(err, millrace.ErrNotFound):
		return box, nil // subscribing would make one
	case err != nil:
		return nil, errors.Join(err, b.Close())
	}
	box.there = depth.Ready + depth.InFlight + depth.Deferred
	if box.there == 0 {
		return box, nil
	}
	box.letters, err = b.Subscribe(ctx, box.topic, millrace.DeadChannel,
		millrace.SubscribeOptions{Prefetch: deadWindow, Lease: deadLease})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return box, nil
}

// close gives back what is held.
func (b *deadBox) close() error {
	var err error
	if b.letters != nil {
		err = b.letters.Close()
	}
	return errors.Join(err, b.broker.Close())
}

// each hands over the letters that were there at the beginning, as many at a time as have
// come, until use says that it has enough. What comes while it runs, such as a letter
// that was tried again and died again, is not waited for.
func (b *deadBox) each(ctx context.Context, use func([]millrace.Delivery) (enough bool, err error)) error {
	buf := make([]millrace.Delivery, 100)
	for b.there > 0 {
		soon, cancel := context.WithTimeout(ctx, deadPatience)
		n, err := b.letters.Receive(soon, buf)
		cancel()
		switch {
		case err != nil && ctx.Err() == nil && soon.Err() != nil:
			return nil // somebody else has the rest, or it waits for its time
		case err != nil:
			return err
		}
		ds := buf[:min(int64(n), b.there)]
		b.there -= int64(len(ds))
		if enough, err := use(ds); enough || err != nil {
			return err
		}
	}
	return nil
}

// keep holds letters that are passed over, so that they do not come again.
func (b *deadBox) keep(ctx context.Context, ds []millrace.Delivery) error {
	for i := range ds {
		ds[i].Message = millrace.Message{} // the lease is enough
	}
	b.held = append(b.held, ds...)
	if len(b.held) <= deadWindow/2 {
		return nil
	}
	held := b.held
	b.held = nil
	err := b.letters.Nack(ctx, deadLease, held...)
	if errors.Is(err, millrace.ErrLeaseLost) {
		return nil
	}
	return err
}

// finish acks letters that were dealt with. Those whose leases have ended meanwhile come
// again, and are told by dealtWith.
func (b *deadBox) finish(ctx context.Context, ds []millrace.Delivery) error {
	err := b.letters.Ack(ctx, ds...)
	if !errors.Is(err, millrace.ErrLeaseLost) {
		return err
	}
	for _, d := range ds {
		b.ours[d.Seq] = d.Seq != 0
	}
	return nil
}

// dealtWith says whether the letter is one that finish could not take away.
func (b *deadBox) dealtWith(d *millrace.Delivery) bool { return b.ours[d.Seq] }

// take takes the letters away that the user means, in batches, each after use has done
// with it what is to be done, and returns how many.
func (o *deadOptions) take(ctx context.Context, use func(millrace.Broker, []millrace.Delivery) error) (taken int, err error) {
	box, err := o.openBox(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, box.close()) }()
	err = box.each(ctx, func(ds []millrace.Delivery) (bool, error) {
		var wanted, again, others []millrace.Delivery
		for _, d := range ds {
			switch {
			case len(o.ids) > 0 && d.Seq == 0:
				return false, errors.New("this broker does not number its messages: choose with -n or --channel in place of IDs")
			case box.dealtWith(&d):
				again = append(again, d)
			case o.wants(&d) && (o.count == 0 || taken+len(wanted) < o.count):
				wanted = append(wanted, d)
			default:
				others = append(others, d)
			}
		}
		if len(wanted) > 0 {
			if err := use(box.broker, wanted); err != nil {
				return false, err
			}
		}
		taken += len(wanted)
		if err := box.finish(ctx, append(wanted, again...)); err != nil {
			return false, err
		}
		enough := taken == o.count && o.count > 0 || taken == len(o.ids) && taken > 0
		return enough, box.keep(ctx, others)
	})
	if missing := len(o.ids) - taken; err == nil && missing > 0 && (o.count == 0 || taken < o.count) {
		err = fmt.Errorf("%d of the letters are not in %s, or somebody else is at them", missing, box.topic)
	}
	return taken, err
}
