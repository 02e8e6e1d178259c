package gather

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace"
)

// receiveBatch is how many results are taken, handed on and acked together.
const receiveBatch = 2048

// replyLease is how long results are held that are being taken, which is a moment. A broker
// that does not see a connection break delivers what was on its way only after that.
const replyLease = 5 * time.Second

// receive hands the results to their jobs until the client ends. It never waits for
// a reader: an answer has its place reserved, see room.
func (c *Client) receive() {
	buf := make([]millrace.Delivery, receiveBatch)
	for {
		n, err := c.replies.Receive(c.ctx, buf)
		if err == nil {
			c.handOn(buf[:n])
			err = c.replies.Ack(c.ctx, buf[:n]...)
			clear(buf[:n]) // what was delivered is not kept alive
		}
		if errors.Is(err, millrace.ErrClosed) && c.ctx.Err() == nil {
			// The broker is gone, or only the topic: somebody took the client for dead. What
			// was lost with it is published again, being forgotten.
			err = c.listen(c.ctx)
		}
		switch {
		case c.ctx.Err() != nil:
			return
		case err != nil && !errors.Is(err, millrace.ErrLeaseLost): // else they come again, and are dropped
			c.fail(fmt.Errorf("gather: receive results: %w", err))
			return
		}
	}
}

// handOn passes results to the jobs that asked for them. Those of one job tend to
// come together, so that its lock is taken once for many.
func (c *Client) handOn(results []millrace.Delivery) {
	for len(results) > 0 {
		id, _ := results[0].Headers.Get(millrace.HeaderID)
		name, _, ok := parseID(id)
		var j *job
		if ok {
			j = c.find(name)
		}
		if j == nil {
			results = results[1:]
			c.count.dropped.Add(1)
			continue
		}
		results = results[j.answer(results):]
	}
}

// answer takes results as long as they are for this job, and returns how many.
func (j *job) answer(results []millrace.Delivery) (taken int) {
	dropped := int64(0)
	j.mu.Lock()
	before := len(j.ready)
	for i := range results {
		d := &results[i]
		id, _ := d.Headers.Get(millrace.HeaderID)
		name, index, ok := parseID(id)
		if !ok || string(name) != j.id {
			break
		}
		taken++
		if !j.answerOne(answer{index: index, headers: d.Headers, body: d.Body}) {
			dropped++
		}
	}
	j.client.count.dropped.Add(dropped)
	news := before == 0 && len(j.ready) > 0
	j.mu.Unlock()
	if news {
		wake(j.toRead)
	}
	return taken
}

// resolve gives a call its answer, or the reason why there is none. It is called
// once for each call, with the job's lock held, and does not wait.
func (c *call) resolve(a answer, why error) {
	c.answer, c.err = a, why
	close(c.done)
}

// call is a request that somebody waits for alone.
type call struct {
	index  int64
	done   chan struct{} // closed when the two below are set
	answer answer
	err    error
}

func newCall() *call { return &call{done: make(chan struct{})} }

// wait returns the answer, why there is none, or the cause of ctx.
func (c *call) wait(ctx context.Context) (answer, error) {
	select {
	case <-c.done:
		return c.answer, c.err
	default:
	}
	select {
	case <-c.done:
		return c.answer, c.err
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}
