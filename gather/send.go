package gather

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace"
)

// The most of requests and bytes that are published together.
const (
	sendBatch      = 4096
	sendBatchBytes = 1 << 20
)

// send publishes what is admitted until the job is over. While one batch is under
// way the next one gathers, so batches are as large as the broker is slow.
func (j *job) send() {
	var (
		batch    []request
		messages messages
	)
	for {
		j.mu.Lock()
		batch, j.pending = j.pending, batch[:0]
		over := j.err != nil
		j.mu.Unlock()
		if over {
			return
		}
		if len(batch) == 0 {
			select {
			case <-j.toSend:
				continue
			case <-j.ctx.Done():
				j.end(context.Cause(j.ctx))
				return
			}
		}
		j.client.count.submitted.Add(firstTimes(batch))
		if err := j.publish(&messages, batch); err != nil {
			j.end(err)
			return
		}
		clear(batch)
	}
}

// firstTimes returns how many of the requests were not published before.
func firstTimes(batch []request) (n int64) {
	for i := range batch {
		if !batch[i].again {
			n++
		}
	}
	return n
}

// publish publishes requests, in batches of a limited size. A request that is too
// large for the broker is answered with an error; every other error is returned.
func (j *job) publish(m *messages, batch []request) error {
	for len(batch) > 0 {
		n := m.fill(j, batch)
		err := j.client.broker.Publish(j.ctx, j.client.queue, m.list...)
		if errors.Is(err, millrace.ErrTooLarge) {
			err = j.publishEach(m.list, batch[:n])
		}
		if err != nil {
			return fmt.Errorf("gather: publish requests to %s: %w", j.client.queue, err)
		}
		j.noteSent(batch[n-1].index)
		batch = batch[n:]
		clear(m.list) // the payloads belong to the requests
	}
	return nil
}

// noteSent says that the request, and all before it, were published.
func (j *job) noteSent(index int64) {
	j.mu.Lock()
	j.sent = max(j.sent, index+1)
	j.mu.Unlock()
}

// publishEach publishes requests one by one, to find out which are too large.
func (j *job) publishEach(list []millrace.Message, batch []request) error {
	for i := range list {
		err := j.client.broker.Publish(j.ctx, j.client.queue, list[i])
		if errors.Is(err, millrace.ErrTooLarge) {
			j.fail(batch[i].index, KindTooLarge, err)
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// messages is a batch of messages, made in memory that is used again: Publish keeps
// nothing of it.
type messages struct {
	list    []millrace.Message
	headers millrace.Headers // of all of them, one after the other
}

// fill makes messages of the first requests, and returns of how many.
func (m *messages) fill(j *job, batch []request) (n int) {
	m.list, m.headers = m.list[:0], m.headers[:0]
	for size := 0; n < len(batch) && n < sendBatch && size < sendBatchBytes; n++ {
		r := &batch[n]
		start := len(m.headers)
		m.headers = appendHeaders(m.headers, j.id, r.index, j.client.common)
		m.list = append(m.list, millrace.Message{Headers: m.headers[start:len(m.headers):len(m.headers)], Body: r.payload})
		size += len(r.payload)
	}
	return n
}
