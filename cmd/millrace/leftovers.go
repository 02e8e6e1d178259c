package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace"
)

const (
	// localQueue is the queue of a job that nobody gave a name, in a broker that only
	// this process can use. It is always the same, so that what a run leaves there when
	// it is killed is found by the next one. Nobody else should use it: it is deleted.
	localQueue = "millrace.map"
	// replyPrefix begins the names of the topics to which gather has tasks answered.
	replyPrefix = "reply."
	// soonest is how long a sweep waits for what the broker says is there.
	soonest = time.Second
)

// brokerIsOurs says whether only this process can use the broker. Whoever waited for an
// answer there is then dead.
func (o *mapOptions) brokerIsOurs() bool { return o.broker == "" || oneProcess(o.broker) }

// dropLeftovers takes from the queue what earlier runs left there, which were killed:
// run now, it would be run by another command, for nobody. It says so.
func (m *mapping) dropLeftovers(ctx context.Context) error {
	tasks, runs, err := m.sweep(ctx)
	if err != nil {
		return fmt.Errorf("tasks of an earlier run cannot be dropped: %w", err)
	}
	if tasks > 0 {
		of := "an earlier run that was killed"
		if runs > 1 {
			of = fmt.Sprintf("%d earlier runs that were killed", runs)
		}
		m.say("dropped %d unfinished tasks of %s, from the queue %s in %s", tasks, of, m.queue, m.mapOptions.broker)
	}
	return nil
}

// sweep drops the tasks of the queue that were to be answered to a client like ours,
// with the topics of these clients, and leaves all others where they are: nobody waits
// for those, so they are there to be run. It returns how many tasks of how many clients
// were dropped.
func (m *mapping) sweep(ctx context.Context) (tasks, clients int, err error) {
	depth, err := m.broker.Depth(ctx, m.queue, millrace.WorkChannel)
	held := depth.Ready + depth.InFlight + depth.Deferred
	if errors.Is(err, millrace.ErrNotFound) || err == nil && held == 0 {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	sub, err := m.broker.Subscribe(ctx, m.queue, millrace.WorkChannel, millrace.SubscribeOptions{Prefetch: int(held)})
	if err != nil {
		return 0, 0, err
	}
	replyTopics := make(map[string]bool)
	tasks, err = dropAnswered(ctx, sub, held, replyTopics)
	err = errors.Join(err, sub.Close()) // which gives back the others
	for topic := range replyTopics {
		err = errors.Join(err, m.broker.Delete(ctx, topic, ""))
	}
	return tasks, len(replyTopics), err
}

// dropAnswered acks those of the next deliveries that ask for an answer, and notes
// where. It ends when it has seen as many as there are, those that wait to be tried
// again among them, or no more come.
func dropAnswered(ctx context.Context, sub millrace.Subscription, there int64, replyTopics map[string]bool) (dropped int, err error) {
	buf := make([]millrace.Delivery, 256)
	for seen := int64(0); seen < there; {
		wait, cancel := context.WithTimeout(ctx, maxRetryDelay+soonest)
		n, err := sub.Receive(wait, buf)
		cancel()
		if wait.Err() != nil && n == 0 {
			return dropped, context.Cause(ctx)
		}
		if err != nil {
			return dropped, err
		}
		seen += int64(n)
		drop := make([]millrace.Delivery, 0, n)
		for _, d := range buf[:n] {
			if to := d.Headers.Text(millrace.HeaderReplyTo); strings.HasPrefix(to, replyPrefix) && millrace.CheckName(to) == nil {
				replyTopics[to] = true
				drop = append(drop, d)
			}
		}
		if len(drop) == 0 {
			continue
		}
		if err := sub.Ack(ctx, drop...); err != nil {
			return dropped, err
		}
		dropped += len(drop)
	}
	return dropped, nil
}
