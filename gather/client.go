package gather

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/control"
)

// farewell bounds what a client still says to the broker when the context it was given
// has ended.
const farewell = 5 * time.Second

// Client asks the workers of one queue. Its methods, and the functions of this
// package that take it, may be called at the same time from several goroutines. It
// has a reply topic of its own and three goroutines, which all its jobs share.
type Client struct {
	broker  millrace.Broker
	queue   string
	id      string // unique among the clients that there ever are
	replyTo string
	cfg     Config
	common  millrace.Headers // of every request, after the id
	count   counters

	replies  millrace.Subscription
	ctx      context.Context // of what the client does by itself
	stop     context.CancelCauseFunc
	routines sync.WaitGroup

	mu    sync.Mutex // protects all below; never held while waiting or calling
	jobs  map[string]*job
	calls *job  // of Call and Submit; made when first needed
	err   error // why the client is over
}

// New returns a client for the queue's workers. The queue need not have any yet.
// Close ends it; so does the broker, but not ctx, which only bounds New. Returns an
// error that wraps millrace.ErrBadName for a bad name of a queue, or what the broker
// says.
func New(ctx context.Context, broker millrace.Broker, queue string, cfg Config) (*Client, error) {
	if err := millrace.CheckQueue(queue); err != nil {
		return nil, fmt.Errorf("gather: %w", err)
	}
	c := &Client{
		broker: broker, queue: queue, id: newID(),
		cfg: cfg.withDefaults(), jobs: make(map[string]*job),
	}
	c.replyTo = control.ReplyTopic(c.id)
	c.common = commonHeaders(c.replyTo, &c.cfg)

	// Before the first request is published: the first channel of a topic gets what
	// waits there, a later one does not.
	if err := broker.Declare(ctx, queue, millrace.WorkChannel); err != nil {
		return nil, fmt.Errorf("gather: declare queue %s: %w", queue, err)
	}
	if err := c.listen(ctx); err != nil {
		return nil, errors.Join(err, broker.Delete(context.WithoutCancel(ctx), c.replyTo, ""))
	}
	c.ctx, c.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	c.routines.Go(c.receive)
	c.routines.Go(c.lookForOverdue)
	c.routines.Go(c.attend)
	return c, nil
}

// Stats returns what the client did so far.
func (c *Client) Stats() Stats { return c.count.snapshot() }

// Close ends all that waits with ErrClosed, cancels the tasks that have no answer,
// and removes the reply topic. It returns when every goroutine of the client has
// ended, with an error when the broker could not be told, or ctx had ended.
func (c *Client) Close(ctx context.Context) error {
	c.fail(ErrClosed)
	c.routines.Wait()

	c.mu.Lock()
	calls := c.calls
	c.mu.Unlock()
	if calls != nil {
		calls.close(ErrClosed)
	}
	err := c.replies.Close()
	if errors.Is(err, millrace.ErrClosed) {
		err = nil // the broker was faster
	}
	if e := c.broker.Delete(ctx, c.replyTo, ""); e != nil && !errors.Is(e, millrace.ErrClosed) {
		err = errors.Join(err, fmt.Errorf("gather: delete reply topic %s: %w", c.replyTo, e))
	}
	return err
}

// fail ends the client and all its jobs. The first reason counts.
func (c *Client) fail(why error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = why
	}
	why = c.err
	jobs := make([]*job, 0, len(c.jobs))
	for _, j := range c.jobs {
		jobs = append(jobs, j)
	}
	c.mu.Unlock()
	c.stop(why)
	for _, j := range jobs {
		j.end(why)
	}
}

// forget takes a job from those that can get answers.
func (c *Client) forget(j *job) {
	c.mu.Lock()
	delete(c.jobs, j.id)
	c.mu.Unlock()
}

// find returns the job with that id, nil when there is none.
func (c *Client) find(id []byte) *job {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jobs[string(id)]
}

// callJob returns the job that all calls share.
func (c *Client) callJob() (*job, error) {
	c.mu.Lock()
	j := c.calls
	c.mu.Unlock()
	if j != nil {
		return j, nil
	}
	j, err := c.open(c.ctx, true)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	first := c.calls == nil
	if first {
		c.calls = j
	}
	kept := c.calls
	c.mu.Unlock()
	if !first {
		j.close(ErrClosed) // another call was faster
	}
	return kept, nil
}

// cancelTasks tells the workers that nobody waits any more for the task with that
// id, or for those of the job with it. It is a courtesy: what it does not reach runs
// in vain, and its answer is dropped.
func (c *Client) cancelTasks(id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), farewell)
	defer cancel()
	order := control.Order{Op: control.Cancel, Cancel: id}
	_ = c.broker.Publish(ctx, control.Topic(c.queue), order.Encode())
}
