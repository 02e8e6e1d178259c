package gather

import (
	"context"
	"sync"

	"github.com/millrace/millrace"
)

// request is one that has to be published.
type request struct {
	index   int64
	payload []byte
	again   bool // it was published before
}

// answer is the result of a request, as it came.
type answer struct {
	index   int64
	payload []byte           // of the request
	headers millrace.Headers // of the result
	body    []byte
	failure *TaskError // set when there is no result, because it arose here
}

// size is what the answer counts against the window while it is not read.
func (a *answer) size() int64 { return int64(len(a.headers) + len(a.body)) }

// job is a set of requests of one client with one id. It owns all that is known
// about them; its goroutine publishes them, as many at a time as have come while the
// batch before was under way.
//
// A request uses one place of the window from admit, before it is published, until
// release, after its answer was read.
type job struct {
	client *Client
	id     string
	calls  bool            // answers go to the call that waits for each, not to a reader
	ctx    context.Context // of publishing; ends with the job
	cancel context.CancelCauseFunc

	mu      sync.Mutex // protects all below; never held while waiting or calling
	next    int64      // the index of the next request
	sent    int64      // the requests below were published
	window  window     // what is outstanding
	room    room
	pending []request // to be published
	ready   []answer  // to be read
	tick    uint32    // counts the looks of the client for what is overdue
	err     error     // why the job is over; nothing is admitted or answered then

	toSend  chan struct{} // there is something in pending, or the job is over
	toRead  chan struct{} // there is something in ready, or the job is over
	stopped chan struct{} // closed when the goroutine that publishes has returned
}

// open adds a job to the client and starts its goroutine. The job is over when ctx
// ends. Returns the client's error when it is closed or has failed.
func (c *Client) open(ctx context.Context, calls bool) (*job, error) {
	j := &job{
		client: c, id: newID(), calls: calls,
		window: newWindow(c.cfg.Window), room: newRoom(&c.cfg),
		toSend: make(chan struct{}, 1), toRead: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	j.ctx, j.cancel = context.WithCancelCause(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		j.cancel(c.err)
		return nil, c.err
	}
	c.jobs[j.id] = j
	go func() {
		defer close(j.stopped)
		j.send()
	}()
	return j, nil
}

// close ends the job, waits for its goroutine, and cancels what has no answer yet.
func (j *job) close(why error) {
	j.end(why)
	j.client.forget(j)
	<-j.stopped
	j.mu.Lock()
	open := j.window.count > 0
	j.mu.Unlock()
	if open {
		j.client.cancelTasks(j.id)
	}
}

// end makes everybody who waits for the job return why.
func (j *job) end(why error) {
	j.mu.Lock()
	if j.err == nil {
		j.err, j.pending = why, nil
		j.room.wakeAll()
		if j.calls {
			j.window.each(func(r *outstanding) { r.call.resolve(answer{}, why) })
		}
	}
	j.mu.Unlock()
	j.cancel(why)
	wake(j.toSend)
	wake(j.toRead)
}

// enter waits until there is room for a request of that size, takes it, and returns
// the request's index, with mu locked. It returns why the job is over, or the cause of
// ctx; then mu is not locked.
func (j *job) enter(ctx context.Context, size int) (int64, error) {
	j.mu.Lock()
	for j.err == nil && !j.room.fits(size) {
		turn := j.room.wait()
		j.mu.Unlock()
		select {
		case <-turn:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		j.mu.Lock()
	}
	if err := j.err; err != nil {
		j.mu.Unlock()
		return 0, err
	}
	j.room.take(size)
	index := j.next
	j.next++
	return index, nil
}

// admit has a request published, once there is room for it. payload must not change
// any more. The errors are those of enter.
func (j *job) admit(ctx context.Context, payload []byte, c *call) error {
	index, err := j.enter(ctx, len(payload))
	if err != nil {
		return err
	}
	if c != nil {
		c.index = index
	}
	j.window.put(outstanding{index: index, payload: payload, tick: j.tick, call: c})
	j.pending = append(j.pending, request{index: index, payload: payload})
	first := len(j.pending) == 1
	j.mu.Unlock()
	if first {
		wake(j.toSend)
	}
	return nil
}

// refuse answers an input that cannot be sent, in its turn.
func (j *job) refuse(ctx context.Context, kind string, why error) error {
	index, err := j.enter(ctx, 0)
	if err != nil {
		return err
	}
	j.window.put(outstanding{index: index})
	j.mu.Unlock()
	j.client.count.submitted.Add(1)
	j.fail(index, kind, why)
	return nil
}

// failure makes the error of a request that failed on this side.
func (j *job) failure(index int64, kind string, why error) *TaskError {
	return &TaskError{ID: requestID(j.id, index), Kind: kind, Message: why.Error(), ExitCode: -1, err: why}
}

// fail answers a request that could not be sent.
func (j *job) fail(index int64, kind string, why error) {
	j.mu.Lock()
	j.answerOne(answer{index: index, failure: j.failure(index, kind, why)})
	j.mu.Unlock()
	wake(j.toRead)
}

// answerOne passes an answer on to whoever waits for it, and reports false when its
// request is not outstanding: it has its answer, or there never was one, or nobody
// waits any more. The caller holds mu, and wakes the reader afterwards.
func (j *job) answerOne(a answer) bool {
	if j.err != nil {
		return false
	}
	r, ok := j.window.take(a.index)
	if !ok {
		return false
	}
	a.payload = r.payload
	j.client.count.answered.Add(1) // before anybody can see it
	j.room.answered(a.size())
	if r.call != nil {
		j.client.count.note(&a)
		j.room.release(1, len(a.payload), a.size())
		r.call.resolve(a, nil)
		return true
	}
	j.ready = append(j.ready, a)
	return true
}

// read returns the answers that are there, and takes the slice that the ones before
// came in, to be used again. When there are none it waits until it is worth to look
// again; then it may return none. Returns why the job is over once nothing is left to
// read, or the cause of ctx.
func (j *job) read(ctx context.Context, spare []answer) ([]answer, error) {
	clear(spare)
	j.mu.Lock()
	ready, err := j.ready, j.err
	if len(ready) > 0 {
		j.ready = spare[:0]
	}
	j.mu.Unlock()
	if len(ready) > 0 {
		return ready, nil
	}
	if err != nil {
		return nil, err
	}
	select {
	case <-j.toRead:
		return spare[:0], nil
	case <-ctx.Done():
		return spare[:0], context.Cause(ctx)
	}
}

// requests returns how many requests there were.
func (j *job) requests() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next
}

// release gives back the room of n answers that were read, with that many bytes of
// requests and of results.
func (j *job) release(n, requests int, results int64) {
	j.mu.Lock()
	j.room.release(n, requests, results)
	j.mu.Unlock()
}

// withdraw gives up the request of a call. It reports false when its answer, or
// another reason, came first.
func (j *job) withdraw(index int64, why error) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	r, ok := j.window.take(index)
	if !ok || j.err != nil {
		return false
	}
	j.room.withdrawn()
	j.room.release(1, len(r.payload), 0)
	r.call.resolve(answer{}, why)
	return true
}

// wake puts a token into a channel that has room for one.
func wake(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
