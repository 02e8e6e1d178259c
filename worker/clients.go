package worker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/control"
)

const (
	// lookForClients is how often a worker looks which clients are still there.
	lookForClients = 10 * time.Second
	// goneAfter is how many such looks in a row must miss a client before it counts as
	// gone: a client whose connection broke has come back before. Its reply topic is
	// removed then, and again at every look up to forgetAfter, should another worker, who
	// did not know, have published to it in between.
	goneAfter, forgetAfter = 3, 9
	// maxClients is how many clients a worker remembers.
	maxClients = 4096
)

// clients are those who ask the workers of the queue, by their reply topics. A client
// removes its reply topic itself, unless it is killed: then the workers do it.
type clients struct {
	anyGone atomic.Bool // until then isGone needs no lock

	mu    sync.Mutex             // protects known; never held while waiting or calling
	known map[string]knownClient // by reply topic
}

type knownClient struct {
	missed   int       // how many looks in a row have missed it
	seen     time.Time // when it was last known to be there; zero: never
	answered bool      // since it was last looked for
}

// came notes that the client has said that it is there.
func (c *clients) came(replyTo string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep(replyTo, knownClient{seen: now, answered: c.known[replyTo].answered})
}

// note remembers a client that is answered, and returns when it was last known to be there.
// If it is gone it will be looked for again: the answer may make a topic.
func (c *clients) note(replyTo string) (seen time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.known[replyTo]
	k.missed = min(k.missed, goneAfter)
	k.answered = true
	c.keep(replyTo, k)
	return k.seen
}

// keep remembers what is known of a client. The caller holds mu.
func (c *clients) keep(replyTo string, k knownClient) {
	if c.known == nil {
		c.known = make(map[string]knownClient)
	}
	if _, ok := c.known[replyTo]; !ok && len(c.known) >= maxClients {
		for other := range c.known { // any
			delete(c.known, other)
			break
		}
	}
	c.known[replyTo] = k
	if k.missed >= goneAfter {
		c.anyGone.Store(true)
	}
}

// knows says whether the client was heard of.
func (c *clients) knows(replyTo string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, known := c.known[replyTo]
	return known
}

// isGone says whether nobody waits for what is sent to the topic.
func (c *clients) isGone(replyTo string) bool {
	if !c.anyGone.Load() || replyTo == "" {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[replyTo].missed >= goneAfter
}

func (c *clients) all() []string {
	return c.those(func(knownClient) bool { return true })
}

// those returns the reply topics of the clients that are so.
func (c *clients) those(so func(knownClient) bool) (topics []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, k := range c.known {
		if so(k) {
			topics = append(topics, topic)
		}
	}
	return topics
}

// looked notes whether the client was there, and returns whether its reply topic is to be
// removed.
func (c *clients) looked(replyTo string, there bool, now time.Time) (remove bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if there {
		c.keep(replyTo, knownClient{seen: now})
		return false
	}
	k := c.known[replyTo]
	k.answered = false
	if k.missed++; k.missed > forgetAfter {
		delete(c.known, replyTo)
		return true
	}
	c.keep(replyTo, k)
	return k.missed >= goneAfter
}

// gone notes that the client has removed its reply topic.
func (c *clients) gone(replyTo string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep(replyTo, knownClient{missed: goneAfter})
}

// meetClients makes sure that clients of whom nothing was heard before are there. They may have
// left while their tasks waited for a worker, and cancelled them when nobody could hear that. However
// many there are, a broker that does not answer holds the tasks up for answerWithin at the most.
func (w *Worker) meetClients(ctx context.Context, items []*item) {
	until, last := time.Now().Add(answerWithin), ""
	for _, it := range items {
		if it.replyTo == last {
			continue
		}
		last = it.replyTo
		if _, ok := control.ClientOf(last); ok && !w.clients.knows(last) {
			w.meet(ctx, last, until)
		}
	}
}

func (w *Worker) meet(ctx context.Context, replyTo string, until time.Time) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	switch _, err := w.broker.Depth(ctx, replyTo, control.ReplyChannel); {
	case errors.Is(err, millrace.ErrNotFound):
		w.clients.gone(replyTo)
	case err == nil:
		w.clients.came(replyTo, time.Now())
	default:
		w.clients.came(replyTo, time.Time{}) // who knows: it is asked for again before it is answered
	}
}

// watchClients looks again and again which clients are still there, until ctx ends.
func (w *Worker) watchClients(ctx context.Context) {
	ticker := time.NewTicker(lookForClients)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			w.removeLateTopics()
			return
		}
		for _, replyTo := range w.clients.all() {
			w.lookForClient(ctx, replyTo)
		}
	}
}

// removeLateTopics removes, as the last thing a worker does, the topics that it has made by
// answering clients which had just left. There is no later look that would do it.
func (w *Worker) removeLateTopics() {
	ctx, cancel := context.WithTimeout(w.brokerCtx, answerWithin)
	defer cancel()
	for _, replyTo := range w.clients.those(func(k knownClient) bool { return k.answered }) {
		w.removeUnwanted(ctx, replyTo)
	}
}

// lookForClient looks once. A broker that cannot be asked says nothing about a client.
func (w *Worker) lookForClient(ctx context.Context, replyTo string) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	id, _ := control.ClientOf(replyTo)
	_, err := w.broker.Depth(ctx, control.Topic(w.queue), control.ClientChannel(id))
	missing := errors.Is(err, millrace.ErrNotFound)
	if err != nil && !missing {
		return
	}
	switch remove := w.clients.looked(replyTo, !missing, time.Now()); {
	case remove:
		_ = w.broker.Delete(ctx, replyTo, "") // else the next look does it, or another worker
	case missing:
		w.removeUnwanted(ctx, replyTo)
	}
}

// isWanted says whether somebody waits for what is about to be published to the topic. It asks
// the broker when it has not known for a whole lease that the client is there, as when this
// process was stopped: then others have answered the tasks, the client may be done, and
// publishing would make a topic that nobody ever reads.
func (w *Worker) isWanted(ctx context.Context, topic string) bool {
	if _, ok := control.ClientOf(topic); !ok {
		return true
	}
	now := time.Now()
	if now.Sub(w.clients.note(topic)) < w.cfg.Lease {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := w.broker.Depth(ctx, topic, control.ReplyChannel)
	switch {
	case err == nil:
		w.clients.looked(topic, true, now)
	case errors.Is(err, millrace.ErrNotFound):
		w.clients.gone(topic)
		return false
	}
	return true
}

// longPublish is how long publishing takes when a connection has broken meanwhile, or this
// process was stopped: a client may have left since it was asked for.
const longPublish = time.Second

// removeUnwanted removes the topic if its client has left before something was published to
// it: it lacks the channel, which only a client makes.
func (w *Worker) removeUnwanted(ctx context.Context, topic string) {
	if _, ok := control.ClientOf(topic); !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if _, err := w.broker.Depth(ctx, topic, control.ReplyChannel); errors.Is(err, millrace.ErrNotFound) {
		w.clients.gone(topic)
		_ = w.broker.Delete(ctx, topic, "") // else the next look does it
	}
}
