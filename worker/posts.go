package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/millrace/millrace"
)

// posts are messages to be published, by topic.
type posts struct {
	headers millrace.Headers // of many messages, one after the other
	topics  []topicPosts     // those in use first
	used    int
	index   map[string]int // of topics, by name
	last    int            // index of the topic that was used last
}

type topicPosts struct {
	topic    string
	posts    []post
	messages []millrace.Message
	tooLarge []tooLarge
}

// tooLarge is a post whose message the broker will never take.
type tooLarge struct {
	post
	err error
}

// post is what a message is for.
type post struct {
	outcome *outcome
	kind    postKind
}

type postKind uint8

const (
	value postKind = iota
	retryCopy
	errorResult
	deadLetter
	smallest // in place of one of the two before
)

func (p *posts) begin() int { return len(p.headers) }

func (p *posts) header(key, value string) { p.headers = p.headers.Append(key, value) }

// since returns the headers that were written since start.
func (p *posts) since(start int) millrace.Headers {
	return p.headers[start:len(p.headers):len(p.headers)]
}

// add posts a message to a topic. Most go to the same as the one before.
func (p *posts) add(topic string, what post, m millrace.Message) {
	if p.last >= p.used || p.topics[p.last].topic != topic {
		p.last = p.find(topic)
	}
	t := &p.topics[p.last]
	t.posts = append(t.posts, what)
	t.messages = append(t.messages, m)
}

func (p *posts) find(topic string) int {
	if i, ok := p.index[topic]; ok {
		return i
	}
	if p.index == nil {
		p.index = make(map[string]int)
	}
	if p.used == len(p.topics) {
		p.topics = append(p.topics, topicPosts{})
	}
	p.topics[p.used].topic = topic
	p.index[topic] = p.used
	p.used++
	return p.used - 1
}

func (p *posts) empty() bool {
	for i := range p.topics[:p.used] {
		if len(p.topics[i].posts) > 0 {
			return false
		}
	}
	return true
}

// maxTopicsAtOnce is how many topics are published to at the same time.
const maxTopicsAtOnce = 64

// publish publishes what is posted, to all topics at the same time. What was
// published, or is too large, is no longer posted afterwards; the rest is, with the
// error that tells why.
func (p *posts) publish(ctx context.Context, broker millrace.Broker) error {
	if p.used == 1 {
		return p.topics[0].publish(ctx, broker)
	}
	var (
		all   sync.WaitGroup
		slots = make(chan struct{}, maxTopicsAtOnce)
		errs  = make([]error, p.used)
	)
	for i := range p.topics[:p.used] {
		slots <- struct{}{}
		all.Go(func() {
			errs[i] = p.topics[i].publish(ctx, broker)
			<-slots
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (t *topicPosts) publish(ctx context.Context, broker millrace.Broker) error {
	if len(t.posts) == 0 {
		return nil
	}
	err := broker.Publish(ctx, t.topic, t.messages...)
	if errors.Is(err, millrace.ErrTooLarge) {
		err = t.publishEach(ctx, broker)
	}
	if err != nil {
		return fmt.Errorf("to %s: %w", t.topic, err)
	}
	t.drop(len(t.posts))
	return nil
}

// publishEach publishes the messages one by one, to find out which are too large.
func (t *topicPosts) publishEach(ctx context.Context, broker millrace.Broker) error {
	for i := range t.posts {
		switch err := broker.Publish(ctx, t.topic, t.messages[i]); {
		case errors.Is(err, millrace.ErrTooLarge):
			t.tooLarge = append(t.tooLarge, tooLarge{t.posts[i], err})
		case err != nil:
			t.drop(i)
			return err
		}
	}
	return nil
}

// drop takes the first n messages out of what is posted.
func (t *topicPosts) drop(n int) {
	t.posts = slices.Delete(t.posts, 0, n)
	t.messages = slices.Delete(t.messages, 0, n)
}

// takeTooLarge returns what was found to be too large since it was last called.
func (p *posts) takeTooLarge() (all []tooLarge) {
	for i := range p.topics[:p.used] {
		t := &p.topics[i]
		all = append(all, t.tooLarge...)
		t.tooLarge = nil
	}
	return all
}

// reset forgets the batch, of which everything was published.
func (p *posts) reset() {
	p.headers, p.used = p.headers[:0], 0
	clear(p.index)
}
