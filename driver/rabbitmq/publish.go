package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace/millrace"
)

const (
	// maxSize is the largest message, as with the other drivers. A server may be told to take
	// less: see Broker.tooLarge.
	maxSize = 64 << 20
	// A batch is published in parts, of which each is confirmed before the next.
	partLetters, partBytes = 1024, 8 << 20
	// patience is how often something is tried again that the server does not let through without
	// saying that it never will.
	patience = 6
	// fullFor is how long messages are offered that the server refuses to keep: a quorum queue
	// does while it has no leader, and any queue that is full.
	fullFor = 30 * time.Second
)

// letter is a message and where it goes.
type letter struct {
	exchange, key string
	message       amqp.Publishing
	returned      bool // the server could not route it, the last time
}

// Publish publishes the messages, and returns when the server has confirmed all of them. An
// answer goes straight to the queue that its request names, as other languages' programs do
// it; when that has gone, so has whoever asked.
func (b *Broker) Publish(ctx context.Context, topic string, msgs ...millrace.Message) error {
	if err := b.publish(ctx, topic, msgs); err != nil {
		return fmt.Errorf("rabbitmq: publish to %s: %w", topic, err)
	}
	return nil
}

func (b *Broker) publish(ctx context.Context, topic string, msgs []millrace.Message) (err error) {
	if b.ctx.Err() != nil {
		return millrace.ErrClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	queue, isAnswer := b.replies.queue(topic)
	isAnswer = isAnswer && !b.known.has(topic) // else some task wants its answer where others' tasks are
	where, key, prepare := letter{key: queue}, queueKey(queue), errIsGone
	if !isAnswer {
		if err := checkTopic(topic); err != nil {
			return err
		}
		where, key = letter{exchange: topic}, topicKey(topic)
		prepare = func(ctx context.Context) error { return b.declareTopic(ctx, topic) }
	}
	letters, delayed, err := b.letters(where, key, msgs)
	if err != nil || len(letters) == 0 {
		return err
	}
	makeTopic := prepare
	if delayed {
		prepare = func(ctx context.Context) error {
			if err := makeTopic(ctx); err != nil && !errors.Is(err, errGone) {
				return err
			}
			return b.makeDelays(ctx, letters)
		}
	}
	if delayed || !isAnswer && !b.known.has(topic) {
		if err := prepare(ctx); err != nil {
			return err
		}
	}
	if delayed {
		defer func() {
			if err == nil {
				b.deferrals.note(key, msgs)
			}
		}()
	}
	for len(letters) > 0 {
		n, size := 0, 0
		for n < len(letters) && n < partLetters && size < partBytes {
			size += len(letters[n].message.Body)
			n++
		}
		if err := b.send(ctx, letters[:n], prepare); err != nil && !errors.Is(err, errGone) {
			return err
		}
		letters = letters[n:]
	}
	return nil
}

// letters makes what is published of messages. Nothing in it shares memory with them: a
// connection that is stuck may still write it when Publish has given up. It also says whether
// some are delayed, which then come out of the delays with key.
func (b *Broker) letters(where letter, key string, msgs []millrace.Message) (letters []letter, delayed bool, err error) {
	size := 0
	for i := range msgs {
		if err := b.tooLarge(&msgs[i]); err != nil {
			return nil, false, err
		}
		if err := msgs[i].Headers.Check(); err != nil {
			return nil, false, err
		}
		size += len(msgs[i].Body)
	}
	bodies := make([]byte, 0, size)
	letters = make([]letter, len(msgs))
	now := time.Now()
	for i := range msgs {
		m, l := &msgs[i], &letters[i]
		*l = where
		l.message.DeliveryMode = amqp.Persistent
		l.message.Timestamp = now
		write(&l.message, b.replies.original(m.Headers))
		start := len(bodies)
		bodies = append(bodies, m.Body...)
		l.message.Body = bodies[start:len(bodies):len(bodies)]
		if m.Delay > 0 {
			delayed = true
			delay(l, key, m.Delay, now)
		}
	}
	return letters, delayed, nil
}

// tooLarge returns an error that wraps millrace.ErrTooLarge for a message that will be refused.
// The headers, possibly twice, must fit into one frame.
func (b *Broker) tooLarge(m *millrace.Message) error {
	limit := int(b.maxSize.Load())
	if m.Size() > limit {
		return fmt.Errorf("%w: it has %d bytes, at most %d are allowed", millrace.ErrTooLarge, m.Size(), limit)
	}
	if limit := int(b.maxHeaders.Load()); len(m.Headers) > limit {
		return fmt.Errorf("%w: its headers have %d bytes, at most %d are allowed", millrace.ErrTooLarge, len(m.Headers), limit)
	}
	return nil
}

// send publishes letters, and returns when all are confirmed. What cannot be routed, because
// its exchange or all its queues have gone, is tried again after prepare. When that returns
// errGone, what cannot be routed is dropped, and errGone is returned in the end.
func (b *Broker) send(ctx context.Context, letters []letter, prepare func(context.Context) error) (gone error) {
	var room refusal
	for try := 0; ; {
		o, err := b.sendOnce(ctx, letters)
		if err != nil {
			return err
		}
		letters = o.left
		switch {
		case len(letters) == 0:
			return gone
		case o.returned || hasCode(o.why, amqp.NotFound):
			err := prepare(ctx)
			if errors.Is(err, errGone) {
				gone, err = err, nil
				letters = slices.DeleteFunc(letters, func(l letter) bool { return l.returned })
			}
			if err != nil || len(letters) == 0 {
				return errors.Join(err, gone)
			}
			try++
		case o.refused:
			if err := room.wait(ctx, &o); err != nil {
				return err
			}
			continue
		case fromServer(o.why):
			if err := b.learnSize(o.why); err != nil {
				return err
			}
			try++
		case endsConnection(o.why):
			try++ // it may have been for one of these letters
		default:
			continue // the connection was lost; the next one is waited for
		}
		if hasCode(o.why, amqp.AccessRefused) || try >= patience {
			return o.reason()
		}
		sleep(ctx, backoff(try))
	}
}

// refusal is a time in which the server refuses to keep messages.
type refusal struct {
	since time.Time
	tries int
}

// wait waits for a moment before messages are offered again that were refused. Returns the reason
// when that has gone on for too long.
func (r *refusal) wait(ctx context.Context, o *outcome) error {
	if r.tries == 0 {
		r.since = time.Now()
	}
	if time.Since(r.since) >= fullFor {
		return o.reason()
	}
	sleep(ctx, backoff(r.tries))
	r.tries++
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), o.reason())
	}
	return nil
}

// learnSize returns an error when the server has ended the channel because of a message's size, and
// remembers which size it takes.
func (b *Broker) learnSize(why error) error {
	var size, limit int64
	if why == nil {
		return nil
	}
	if _, text, found := strings.Cut(why.Error(), "message size "); found {
		if _, err := fmt.Sscanf(text, "%d is larger than configured max size %d", &size, &limit); err == nil && limit > 0 {
			b.maxSize.Store(min(b.maxSize.Load(), limit))
			return fmt.Errorf("%w: it has %d bytes, the server takes at most %d", millrace.ErrTooLarge, size, limit)
		}
	}
	return nil
}

// outcome is what became of letters.
type outcome struct {
	left     []letter // not confirmed, or returned; in their order
	returned bool     // some were
	refused  bool     // some the server could not keep
	why      error    // why the channel ended, if it did
}

func (o *outcome) reason() error {
	switch {
	case o.why != nil:
		return o.why
	case o.refused:
		return fmt.Errorf("RabbitMQ refuses %d messages: is a queue at its max-length, or without a leader?", len(o.left))
	}
	return fmt.Errorf("RabbitMQ returns %d messages: no queue takes them", len(o.left))
}

// sendOnce publishes letters on the channel that there is, and waits for all confirmations, or
// for the end of the channel.
func (b *Broker) sendOnce(ctx context.Context, letters []letter) (o outcome, err error) {
	s, err := b.publisher(ctx)
	if err != nil {
		return o, err
	}
	defer b.left(s)
	p := &part{letters: letters, done: make(chan struct{})}
	select {
	case s.parts <- p:
	case <-s.ended:
		return outcome{left: letters, why: s.why}, nil
	case <-ctx.Done():
		return o, s.conn.late(ctx)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return o, s.conn.late(ctx)
	}
	for _, c := range p.confirms {
		select {
		case <-c.Done():
		case <-ctx.Done():
			return o, s.conn.late(ctx)
		}
	}
	if o = s.judge(p); o.refused {
		// RabbitMQ's channel does not look for another node of a quorum queue when the one that it
		// has found first, its leader, is dead. The next channel does.
		s.retire()
	}
	return o, nil
}

// late says what ctx was too short for, while messages are on their way.
func (c *conn) late(ctx context.Context) error {
	if b := c.block.Load(); b != nil {
		return fmt.Errorf("%w, while RabbitMQ takes no messages because it is %s", context.Cause(ctx), b.reason)
	}
	return fmt.Errorf("%w, while waiting for %s to confirm", context.Cause(ctx), c.name)
}

// unblocked waits until the server takes messages.
func (c *conn) unblocked(ctx context.Context) error {
	for {
		now := c.block.Load()
		if now == nil {
			return nil
		}
		select {
		case <-now.over:
		case <-ctx.Done():
			return c.late(ctx)
		}
	}
}

// judge says what became of a part whose confirmations have all come, or whose channel has ended.
func (s *session) judge(p *part) (o outcome) {
	if s.ch.IsClosed() {
		<-s.ended // it is about to be known why
		o.why = s.why
	} else {
		o.why = p.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range p.letters {
		tag, l := p.from+uint64(i), &p.letters[i] //nolint:gosec // an index
		_, l.returned = s.returned[tag]
		delete(s.returned, tag)
		acked := i < len(p.confirms) && p.confirms[i].Acked()
		switch {
		case l.returned:
			o.returned = true
		case acked:
			continue
		case o.why == nil:
			o.refused = true
		}
		o.left = append(o.left, *l)
	}
	return o
}

// tagOf reads the number that a letter was given when it was written.
func tagOf(id string) uint64 {
	_, digits, _ := strings.Cut(id, "-")
	tag, _ := strconv.ParseUint(digits, 10, 64)
	return tag
}
