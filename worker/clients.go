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

	mu     sync.Mutex     // protects missed; never held while waiting or calling
	missed map[string]int // by reply topic: how many looks in a row have missed the client
}

// note remembers whose reply topic it is. One that is to be removed is removed later.
func (c *clients) note(replyTo string) {
	if _, ok := control.ClientOf(replyTo); !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	missed, known := c.missed[replyTo]
	switch {
	case known:
		c.missed[replyTo] = min(missed, goneAfter)
		return
	case c.missed == nil:
		c.missed = make(map[string]int)
	case len(c.missed) >= maxClients:
		for other := range c.missed { // any
			delete(c.missed, other)
			break
		}
	}
	c.missed[replyTo] = 0
}

// isGone says whether nobody waits for what is sent to the topic.
func (c *clients) isGone(replyTo string) bool {
	if !c.anyGone.Load() || replyTo == "" {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.missed[replyTo] >= goneAfter
}

func (c *clients) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	topics := make([]string, 0, len(c.missed))
	for topic := range c.missed {
		topics = append(topics, topic)
	}
	return topics
}

// looked notes whether the client was there, and returns whether its reply topic is to be
// removed.
func (c *clients) looked(replyTo string, there bool) (remove bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	missed := c.missed[replyTo] + 1
	switch {
	case there:
		missed = 0
	case missed > forgetAfter:
		delete(c.missed, replyTo)
		return true
	}
	c.missed[replyTo] = missed
	if missed < goneAfter {
		return false
	}
	c.anyGone.Store(true)
	return true
}

// watchClients looks again and again which clients are still there, until ctx ends.
func (w *Worker) watchClients(ctx context.Context) {
	ticker := time.NewTicker(lookForClients)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for _, replyTo := range w.clients.all() {
			w.lookForClient(ctx, replyTo)
		}
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
	if w.clients.looked(replyTo, !missing) {
		_ = w.broker.Delete(ctx, replyTo, "") // else the next look does it, or another worker
	}
}
