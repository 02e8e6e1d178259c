package gather

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/control"
)

// lookEvery is how often a client looks for requests that the broker has forgotten.
const lookEvery = 5 * time.Second

// lookForOverdue publishes requests again whose answer will not come, or is overdue
// by Config.Resend, until the client ends.
func (c *Client) lookForOverdue() {
	period := lookEvery
	if c.cfg.Resend > 0 {
		period = min(period, max(c.cfg.Resend/2, time.Millisecond))
	}
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-c.ctx.Done():
			return
		}
		err := c.resendOverdue(period)
		if errors.Is(err, millrace.ErrClosed) {
			c.fail(fmt.Errorf("gather: look for overdue requests: %w", err))
			return
		} // else it may be known the next time
	}
}

// resendOverdue looks once. Requests younger than one to two looks are left alone.
func (c *Client) resendOverdue(period time.Duration) error {
	jobs := c.openJobs()
	for _, j := range jobs {
		j.nextTick()
	}
	forgotten, err := c.brokerForgot(jobs)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		c.count.resent.Add(j.resend(forgotten, period))
	}
	return nil
}

// brokerForgot reports whether the broker holds fewer tasks and results than are
// unanswered. A request is first in the queue, then its result is in the reply topic
// (for a while both are), then it is answered. The places are looked at in the same
// order: so a request that is not forgotten is seen at least once, whatever it does
// meanwhile. The tasks of others count too, which can hide that some were forgotten,
// until the queue has become shorter.
func (c *Client) brokerForgot(jobs []*job) (bool, error) {
	if count(jobs) == 0 {
		return false, nil // most of the time: do not ask the broker
	}
	tasks, err := c.held(c.queue, millrace.WorkChannel)
	if err != nil {
		return false, err
	}
	results, err := c.held(c.replyTo, control.ReplyChannel)
	if err != nil {
		return false, err
	}
	return count(jobs) > tasks+results, nil
}

func (c *Client) held(topic, channel string) (int64, error) {
	d, err := c.broker.Depth(c.ctx, topic, channel)
	if errors.Is(err, millrace.ErrNotFound) {
		return 0, nil
	}
	return d.Ready + d.InFlight + d.Deferred, err
}

// isOld says whether the request has been out for at least a whole period.
func (j *job) isOld(r *outstanding) bool { return j.tick-r.tick >= 2 && r.index < j.sent }

// count returns how many requests are old.
func count(jobs []*job) (n int64) {
	for _, j := range jobs {
		j.mu.Lock()
		j.window.each(func(r *outstanding) {
			if j.isOld(r) {
				n++
			}
		})
		j.mu.Unlock()
	}
	return n
}

func (c *Client) openJobs() []*job {
	c.mu.Lock()
	defer c.mu.Unlock()
	jobs := make([]*job, 0, len(c.jobs))
	for _, j := range c.jobs {
		jobs = append(jobs, j)
	}
	return jobs
}

func (j *job) nextTick() {
	j.mu.Lock()
	j.tick++
	j.mu.Unlock()
}

// resend has requests published again: all old ones if the
// broker has forgotten some, and those that are overdue. It returns how many.
func (j *job) resend(forgotten bool, period time.Duration) (n int64) {
	overdue := uint32(0)
	if d := j.client.cfg.Resend; d > 0 {
		overdue = uint32((d + period - 1) / period) //nolint:gosec // a period is at least a third of d, or lookEvery
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return 0
	}
	j.window.each(func(r *outstanding) {
		age := j.tick - r.tick
		late := overdue > 0 && age > overdue<<min(r.resends, 16)
		if !j.isOld(r) || !forgotten && !late {
			return
		}
		r.tick = j.tick
		r.resends++
		j.pending = append(j.pending, request{r.index, r.payload, true})
		n++
	})
	if n > 0 {
		wake(j.toSend)
	}
	return n
}
