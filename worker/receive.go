package worker

import (
	"context"
	"fmt"

	"github.com/millrace/millrace"
)

// receiveBatch is how many tasks are received together at the most.
const receiveBatch = 1024

// receive puts tasks into the replicas' channel until ctx ends. The channel has no
// limit of its own: the subscription holds no more than flow allows.
func (w *Worker) receive(ctx context.Context) error {
	var (
		buf    = make([]millrace.Delivery, receiveBatch)
		items  = make([]*item, 0, receiveBatch)
		reader envelopes
	)
	for {
		n, err := w.tasks.Receive(ctx, buf)
		if err != nil {
			return fmt.Errorf("worker: receive from %s: %w", w.queue, err)
		}
		slab := newSlab(buf[:n])
		clear(buf[:n]) // what was delivered is not kept alive
		items = items[:0]
		size := 0
		for i := range slab.items {
			it := &slab.items[i]
			if it.unfit = reader.read(it); it.unfit == nil {
				it.unfit = w.hopeless(it)
			}
			size += it.delivery.Size()
			items = append(items, it)
		}
		w.holdings.add(slab)
		w.flow.received(n, size)
		w.meetClients(ctx, items)
		if _, err := w.ready.SendAll(ctx, items); err != nil {
			return err // closed: what is held is given back when the worker ends
		}
		if w.flow.idle() {
			w.giveBackReady()
		}
	}
}

// envelopes reads envelopes one after the other. Most have the reply topic of the one
// before, whose name need not be checked again, nor kept once more.
type envelopes struct{ replyTo string }

// read opens the item's envelope, and returns why it cannot be run, if so.
func (r *envelopes) read(it *item) *refusal {
	unfit := it.open(it.delivery.Headers)
	if it.replyTo != r.replyTo && it.replyTo != "" {
		if err := millrace.CheckName(it.replyTo); err != nil {
			it.replyTo = ""
			return foreign("header %s: %v", millrace.HeaderReplyTo, err)
		}
		r.replyTo = it.replyTo
	}
	if it.replyTo != "" {
		it.replyTo = r.replyTo
	}
	return unfit
}
