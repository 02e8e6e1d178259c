package gather

import (
	"context"
	"errors"
	"iter"

	"github.com/millrace/millrace"
)

// Result is what became of one input.
type Result[O any] struct {
	// Index is the position of the input among all, from 0; -1 with an error that is
	// not about one input.
	Index int64
	// Value is the output; the zero value with an error. A []byte shares memory with
	// other results: clone a small one that is kept for long.
	Value O
	// Input is the payload that was sent for the input. It is read-only.
	Input []byte
	// Attempts is how often the task was run; 0 when it was not.
	Attempts int
	// Headers are those of the result. They are read-only.
	Headers millrace.Headers
}

// Map sends every input to the workers of the client's queue and yields the results
// as they come, one for each input.
//
// A task that failed for good is yielded with a *TaskError; the loop goes on. Any
// other error is about the whole stream and is the last thing that is yielded: the
// broker's, ErrClosed, or the cause of ctx. Leaving the loop early, and such an
// error, cancels the tasks that have no result yet.
//
// The inputs are read by a goroutine of Map's, as fast as the window allows, and may
// be changed by their iterator as soon as it is called for the next one. The
// goroutine has ended when Map ends because all inputs have their result. When it ends
// early, the iterator is told by its next yield; one that is blocked for good keeps
// its goroutine. A panic of the iterator is raised again in the loop.
func Map[O, I any](ctx context.Context, c *Client, inputs iter.Seq[I]) iter.Seq2[Result[O], error] {
	return stream[O](ctx, c, inputs, false)
}

// MapOrdered is Map with the results in the order of the inputs. A slow task holds
// back the results after it, up to the client's window.
func MapOrdered[O, I any](ctx context.Context, c *Client, inputs iter.Seq[I]) iter.Seq2[Result[O], error] {
	return stream[O](ctx, c, inputs, true)
}

func stream[O, I any](ctx context.Context, c *Client, inputs iter.Seq[I], ordered bool) iter.Seq2[Result[O], error] {
	return func(yield func(Result[O], error) bool) {
		j, err := c.open(ctx, false)
		if err != nil {
			yield(Result[O]{Index: -1}, err)
			return
		}
		f := startFeed(j, inputs)
		defer func() {
			j.close(errLeft)
			f.leave()
		}()
		r := reader[O]{job: j, feed: f, decode: decoderFor[O](), yield: yield}
		if ordered {
			r.order = &sequencer{}
		}
		err = r.readAll(ctx)
		if err == nil && f.panicked != nil {
			panic(f.panicked)
		}
		if err != nil {
			yield(Result[O]{Index: -1}, err)
		}
	}
}

// errLeft ends a job whose loop was left, or is over.
var errLeft = errors.New("gather: the loop is over")

// releaseBatch is how many answers are read before their room is given back.
const releaseBatch = 64

// reader yields the answers of one job.
type reader[O any] struct {
	job    *job
	feed   *feed
	order  *sequencer // nil when results are yielded as they come
	decode decoder[O]
	yield  func(Result[O], error) bool

	read     int64 // answers that were yielded
	requests int   // bytes of those that are not given back yet, as the next two
	results  int64
	unpaid   int // and their number
}

// readAll yields results until all inputs have theirs or the loop is left, and
// returns why it ended earlier.
func (r *reader[O]) readAll(ctx context.Context) error {
	var batch []answer
	for !r.feed.allRead(r.read) {
		var err error
		if batch, err = r.job.read(ctx, batch); err != nil {
			if r.feed.allRead(r.read) {
				return nil
			}
			return err
		}
		for i := range batch {
			if r.order != nil {
				r.order.put(batch[i])
				continue
			}
			if more, err := r.pass(ctx, &batch[i]); !more {
				return err
			}
		}
		for r.order != nil {
			a, ok := r.order.next()
			if !ok {
				break
			}
			if more, err := r.pass(ctx, &a); !more {
				return err
			}
		}
		r.pay()
	}
	return nil
}

// pass yields one answer. It returns false when the loop was left, or with the cause
// when ctx has ended.
func (r *reader[O]) pass(ctx context.Context, a *answer) (more bool, err error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	result, err := resultOf(r.job, a, r.decode)
	r.job.client.count.note(a)
	r.read++
	r.unpaid++
	r.requests += len(a.payload)
	r.results += a.size()
	if !r.yield(result, err) {
		return false, nil
	}
	if r.unpaid >= releaseBatch {
		r.pay()
	}
	return true, nil
}

// pay gives back the room of what was yielded.
func (r *reader[O]) pay() {
	if r.unpaid > 0 {
		r.job.release(r.unpaid, r.requests, r.results)
		r.unpaid, r.requests, r.results = 0, 0, 0
	}
}

// resultOf makes of an answer what is yielded for it.
func resultOf[O any](j *job, a *answer, decode decoder[O]) (Result[O], error) {
	result := Result[O]{Index: a.index, Input: a.payload, Headers: a.headers, Attempts: attempts(a.headers)}
	failed := taskError(j.id, a)
	if failed == nil {
		var err error
		if result.Value, err = decode(a.body); err == nil {
			return result, nil
		}
		failed = j.failure(a.index, KindDecode, err)
		failed.Attempts = result.Attempts
	}
	result.Attempts = failed.Attempts
	return result, failed
}

// sequencer puts answers in the order of their requests. It holds no more than the
// window, as the room of an answer is not given back before it was yielded.
type sequencer struct {
	ring []answer // its length is a power of two
	full []bool   // the places that are taken
	from int64    // the index that is yielded next
}

func (s *sequencer) put(a answer) {
	for a.index-s.from >= int64(len(s.ring)) {
		s.grow()
	}
	at := a.index & int64(len(s.ring)-1)
	s.ring[at], s.full[at] = a, true
}

// next returns the answer whose turn it is, if it is there.
func (s *sequencer) next() (answer, bool) {
	if len(s.ring) == 0 {
		return answer{}, false
	}
	at := s.from & int64(len(s.ring)-1)
	if !s.full[at] {
		return answer{}, false
	}
	a := s.ring[at]
	s.ring[at], s.full[at] = answer{}, false
	s.from++
	return a, true
}

func (s *sequencer) grow() {
	old := *s
	size := max(minTable, 2*len(old.ring))
	s.ring, s.full = make([]answer, size), make([]bool, size)
	for i, full := range old.full {
		if full {
			at := old.ring[i].index & int64(size-1)
			s.ring[at], s.full[at] = old.ring[i], true
		}
	}
}
