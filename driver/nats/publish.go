package nats

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	natsio "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace"
)

const (
	// window is how many messages, and bytes, of one Publish are under way together.
	window      = 2048
	windowBytes = 8 << 20
)

// publisher sends messages and waits until the streams have acknowledged them. Each batch
// has a number and each of its messages an index, which make the subject to which its
// acknowledgement goes.
type publisher struct {
	link   *link
	prefix string // of those subjects, with the dot
	sender string // of the ids of the messages

	mu      sync.Mutex // guards all below, and the batches' states
	batches map[uint64]*batch
	last    uint64 // number of a batch
	lastID  uint64 // number of a message
}

// batch are messages that are published together.
type batch struct {
	number  uint64
	firstID uint64
	done    []bool
	left    int   // how many are not yet done
	refused error // why one will never be done, or not before something else happens
	stirred chan struct{}
	heard   time.Time // when the last answer came
}

func newPublisher(l *link) (*publisher, error) {
	p := &publisher{
		link:    l,
		prefix:  l.nc.NewInbox() + ".",
		sender:  rand.Text()[:12],
		batches: map[uint64]*batch{},
	}
	acks, err := l.nc.Subscribe(p.prefix+"*.*", p.acknowledged)
	if err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements: %w", err)
	}
	return p, acks.SetPendingLimits(-1, -1) // they are as many as messages are under way
}

// publish publishes to a topic in windows.
func (b *broker) publish(ctx context.Context, topic string, msgs []millrace.Message) error {
	if err := b.link.fits(msgs); err != nil {
		return err
	}
	for len(msgs) > 0 {
		n, size := 1, msgs[0].Size()
		for n < len(msgs) && n < window && size+msgs[n].Size() <= windowBytes {
			size += msgs[n].Size()
			n++
		}
		if err := b.publishWindow(ctx, topic, msgs[:n]); err != nil {
			return err
		}
		msgs = msgs[n:]
	}
	return nil
}

// fits returns an error that wraps millrace.ErrTooLarge when a message is larger than the
// servers take.
func (l *link) fits(msgs []millrace.Message) error {
	most := l.nc.MaxPayload()
	if most <= 0 {
		return nil // there has never been a connection
	}
	h := natsio.Header{}
	for i := range msgs {
		if int64(3*msgs[i].Size()+1024) <= most {
			continue // however much there is to escape
		}
		// The id's length is what it can be at the most.
		size := enclose(h, &msgs[i], strings.Repeat("x", 12+13)) + len(msgs[i].Body)
		if int64(size) > most {
			return fmt.Errorf("%w: message %d has %d bytes with its headers, and max_payload of %s is %d", millrace.ErrTooLarge, i, size, l.hosts, most)
		}
	}
	return nil
}

// publishWindow publishes messages until the stream has acknowledged them all. What is
// not acknowledged is sent again, in order, under the same ids.
func (b *broker) publishWindow(ctx context.Context, topic string, msgs []millrace.Message) error {
	p := b.publisher
	w := p.begin(len(msgs))
	defer p.end(w)
	for n := 0; ; n++ {
		if err := b.keep(ctx, topic); err != nil {
			return err
		}
		session, err := b.link.ready(ctx)
		if err != nil {
			return err
		}
		err = p.send(ctx, session, w, Subject(topic), msgs)
		if err == nil || !passes(err) {
			return err
		}
		b.forgotten(topic) // it may have been deleted, by anybody
		if err := b.link.sleep(ctx, n, err); err != nil {
			return err
		}
	}
}

func (p *publisher) begin(n int) *batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	w := &batch{number: p.last, firstID: p.lastID, done: make([]bool, n), left: n, stirred: make(chan struct{}, 1)}
	p.lastID += uint64(n) //nolint:gosec // a length
	p.batches[w.number] = w
	return w
}

func (p *publisher) end(w *batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.batches, w.number)
}

// send sends what the batch lacks, and waits for the answers.
func (p *publisher) send(ctx, session context.Context, w *batch, subject string, msgs []millrace.Message) error {
	for _, i := range p.lacking(w) {
		if err := p.sendOne(w, i, subject, &msgs[i]); err != nil {
			return err
		}
	}
	silence := time.NewTimer(requestTimeout)
	defer silence.Stop()
	for {
		left, heard, refused := p.progress(w)
		switch {
		case refused != nil:
			return refused
		case left == 0:
			return nil
		}
		silence.Reset(requestTimeout - time.Since(heard))
		select {
		case <-w.stirred:
		case <-ctx.Done():
			return p.link.gaveUp(ctx, nil)
		case <-session.Done(): // answers may be lost
			return context.Cause(session)
		case <-silence.C:
			if _, heard, _ := p.progress(w); time.Since(heard) >= requestTimeout {
				return p.link.denied(heard, natsio.ErrTimeout)
			}
		}
	}
}

// lacking lists the messages that are not yet acknowledged. Their answers are awaited
// from now on.
func (p *publisher) lacking(w *batch) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.refused, w.heard = nil, time.Now()
	list := make([]int, 0, w.left)
	for i, done := range w.done {
		if !done {
			list = append(list, i)
		}
	}
	return list
}

func (p *publisher) progress(w *batch) (left int, heard time.Time, refused error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.left, w.heard, w.refused
}

func (p *publisher) sendOne(w *batch, i int, subject string, m *millrace.Message) error {
	id := strconv.AppendUint([]byte(p.sender), w.firstID+uint64(i), 36)
	reply := strconv.AppendUint([]byte(p.prefix), w.number, 36)
	reply = strconv.AppendInt(append(reply, '.'), int64(i), 36)
	msg := natsio.Msg{Subject: subject, Reply: string(reply), Header: natsio.Header{}, Data: m.Body}
	enclose(msg.Header, m, string(id))
	switch err := p.link.nc.PublishMsg(&msg); {
	case errors.Is(err, natsio.ErrMaxPayload): // it has become smaller since we looked
		return fmt.Errorf("%w (%w)", millrace.ErrTooLarge, err)
	case errors.Is(err, natsio.ErrConnectionClosed):
		return fmt.Errorf("%w (%w)", millrace.ErrClosed, err)
	default:
		return err
	}
}

// acknowledged is called with each answer, one after the other.
func (p *publisher) acknowledged(m *natsio.Msg) {
	numbers := strings.TrimPrefix(m.Subject, p.prefix)
	number, index, _ := strings.Cut(numbers, ".")
	n, err1 := strconv.ParseUint(number, 36, 64)
	i, err2 := strconv.ParseInt(index, 36, 32)
	if err1 != nil || err2 != nil {
		return
	}
	refused := refusalOf(m)
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.batches[n]
	if w == nil || int(i) >= len(w.done) || w.done[i] {
		return // nobody waits for it any more
	}
	w.heard = time.Now()
	if refused != nil {
		if w.refused == nil || passes(w.refused) { // what does not pass is what counts
			w.refused = refused
		}
	} else {
		w.done[i] = true
		w.left--
	}
	if w.left == 0 || refused != nil {
		select {
		case w.stirred <- struct{}{}:
		default: // it will look anyway
		}
	}
}

// refusalOf returns why a message was not accepted; nil when it was.
func refusalOf(m *natsio.Msg) error {
	if len(m.Data) == 0 {
		return natsio.ErrNoResponders // status 503: there is no stream, or it has no leader
	}
	if !bytes.Contains(m.Data, []byte(`"error"`)) {
		return nil // the common case need not be parsed
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fmt.Errorf("the answer to a publish cannot be read: %w", err)
	}
	if answer.Error == nil {
		return nil
	}
	if passing(answer.Error) {
		return answer.Error
	}
	return published(answer.Error)
}
