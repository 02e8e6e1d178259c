package nsq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace"
)

// Declare creates the topic and the channel on every node. A node that is not there gets
// them before anything is published to it. It waits until one node has them.
func (b *Broker) Declare(ctx context.Context, topic, channel string) error {
	names := []string{topic}
	if channel != "" {
		names = append(names, channel)
	}
	if err := b.may(ctx, names...); err != nil {
		return err
	}
	name := channelName{topic, channel}
	b.mu.Lock()
	if b.declared == nil {
		b.declared = make(map[channelName]struct{})
	}
	_, before := b.declared[name]
	b.declared[name] = struct{}{}
	b.mu.Unlock()
	err := b.onNodes(ctx, func(ctx context.Context, n *node) error {
		return b.api.create(ctx, n.at, topic, channel)
	})
	if err == nil {
		return nil
	}
	if !before {
		b.mu.Lock()
		delete(b.declared, name)
		b.mu.Unlock()
	}
	return fmt.Errorf("nsq: declare %s: %w", shown(topic, channel), err)
}

// declareAll creates on a node what was declared.
func (b *Broker) declareAll(ctx context.Context, n *node) error {
	b.mu.Lock()
	declared := slices.Collect(maps.Keys(b.declared))
	b.mu.Unlock()
	for _, name := range declared {
		if err := b.api.create(ctx, n.at, name.topic, name.channel); err != nil {
			return err
		}
	}
	return nil
}

// shown names a topic or channel in errors.
func shown(topic, channel string) string {
	if channel == "" {
		return "topic " + topic
	}
	return "channel " + topic + "/" + channel
}

// onNodes does something on all nodes at once. It succeeds when every node that is there
// has done it, and there is one; until then it tries again, until ctx ends. What a node
// refuses, and an HTTP API that does not answer though the node is there, ends it.
func (b *Broker) onNodes(ctx context.Context, do func(context.Context, *node) error) error {
	begun := time.Now()
	for try := 0; ; try++ {
		nodes, change := b.all()
		errs := make([]error, len(nodes))
		var doing sync.WaitGroup
		for i, n := range nodes {
			doing.Go(func() { errs[i] = do(ctx, n) })
		}
		doing.Wait()
		done, missing := 0, error(nil)
		for i, err := range errs {
			up, _ := nodes[i].state()
			switch {
			case err == nil:
				done++
			case !errors.Is(err, errNoAPI), up && time.Since(begun) > patience(err) && ctx.Err() == nil:
				return err
			case up || missing == nil:
				missing = err
			}
			if err != nil && up {
				done = -len(nodes) // it has to be done there
			}
		}
		switch {
		case b.ctx.Err() != nil:
			return millrace.ErrClosed
		case done > 0:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("waiting for a broker (%w): %w", missingOr(b.trouble(), missing), context.Cause(ctx))
		}
		wait, cancel := context.WithTimeout(ctx, maxBackoff)
		select {
		case <-change:
			pause(wait, minBackoff)
		case <-wait.Done():
		case <-b.ctx.Done():
		}
		cancel()
	}
}

func missingOr(err, other error) error {
	if err == nil {
		return other
	}
	return err
}

// Depth adds up what the nodes that answer hold. Messages of a node that does not are not
// to be had before it is there again.
func (b *Broker) Depth(ctx context.Context, topic, channel string) (sum millrace.Depth, err error) {
	if err := b.may(ctx); err != nil {
		return sum, err
	}
	what := shown(topic, channel)
	nodes, _ := b.all()
	all := make([]stats, len(nodes))
	errs := make([]error, len(nodes))
	var asking sync.WaitGroup
	for i, n := range nodes {
		asking.Go(func() { all[i], errs[i] = b.api.stats(ctx, n.at, topic, channel) })
	}
	asking.Wait()
	found, answered := false, false
	for i, s := range all {
		answered = answered || errs[i] == nil
		found = found || s.channel
		sum.Ready += s.depth.Ready
		sum.InFlight += s.depth.InFlight
		sum.Deferred += s.depth.Deferred
	}
	switch {
	case found:
		return sum, nil
	case b.ctx.Err() != nil:
		return sum, fmt.Errorf("nsq: depth of %s: %w", what, millrace.ErrClosed)
	case ctx.Err() != nil:
		return sum, fmt.Errorf("nsq: depth of %s: %w", what, context.Cause(ctx))
	case answered:
		return sum, fmt.Errorf("nsq: depth of %s: %w", what, millrace.ErrNotFound)
	}
	return sum, fmt.Errorf("nsq: depth of %s: %w", what, missingOr(oneLine(slices.DeleteFunc(errs, func(err error) bool { return err == nil })), b.trouble()))
}

// Delete removes the channel, or the topic, from every node, and ends this broker's
// subscriptions to it first; then the nsqlookupds forget it too, or they would go on to name it,
// and have the channels made again with the topic, should a late message make that. If one of
// several nodes is not there it is done with the others, and that is logged: that node has it
// when it comes back.
func (b *Broker) Delete(ctx context.Context, topic, channel string) error {
	if err := b.may(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	for name := range b.declared {
		if name.topic == topic && (channel == "" || name.channel == channel) {
			delete(b.declared, name)
		}
	}
	subs := b.subscriptions()
	b.mu.Unlock()
	var ending sync.WaitGroup
	for _, s := range subs {
		if s.topic == topic && (channel == "" || s.channel == channel) {
			ending.Go(func() { s.end(errDeleted) })
		}
	}
	ending.Wait()
	nodes, _ := b.all()
	errs := make([]error, len(nodes))
	var asking sync.WaitGroup
	for i, n := range nodes {
		asking.Go(func() { errs[i] = b.remove(ctx, n, topic, channel) })
	}
	asking.Wait()
	var failed, missing []error
	for i, err := range errs {
		if up, _ := nodes[i].state(); err != nil && !up && errors.Is(err, errNoAPI) {
			missing = append(missing, err)
		} else if err != nil {
			failed = append(failed, err)
		}
	}
	if len(missing) == len(nodes) {
		failed = append(failed, missing...)
	}
	if len(failed) > 0 {
		return fmt.Errorf("nsq: delete %s: %w", shown(topic, channel), oneLine(failed))
	}
	if len(missing) > 0 {
		slog.Warn("nsq: a node that is not there keeps what was deleted", "what", shown(topic, channel), "error", oneLine(missing))
	}
	for _, lookupd := range b.lookupd {
		if err := b.api.forget(ctx, lookupd, topic, channel); err != nil && b.ctx.Err() == nil {
			slog.Warn("nsq: an nsqlookupd goes on to name what was deleted", "what", shown(topic, channel), "error", err)
		}
	}
	return nil
}

// remove deletes a topic or channel from a node, which may be just starting again. One with
// a name that cannot be is not there.
func (b *Broker) remove(ctx context.Context, n *node, topic, channel string) error {
	begun := time.Now()
	for try := 0; ; try++ {
		err := b.api.remove(ctx, n.at, topic, channel)
		switch {
		case isStatus(err, http.StatusBadRequest) && millrace.CheckName(topic) != nil:
			return nil
		case !errors.Is(err, errNoAPI):
			return err
		case b.ctx.Err() != nil:
			return millrace.ErrClosed
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", err, context.Cause(ctx))
		case time.Since(begun) > patience(err) || !backoff(ctx, try):
			return err
		}
	}
}
