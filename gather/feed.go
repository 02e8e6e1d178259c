package gather

import (
	"errors"
	"iter"
	"sync/atomic"
)

// feed takes the inputs of one Map from their iterator, in a goroutine of its own: an
// iterator that blocks holds back no result.
type feed struct {
	job      *job
	total    atomic.Int64  // how many inputs there are; -1 while that is not known
	ended    chan struct{} // closed when the goroutine is about to end
	panicked any           // what the iterator panicked with; read it after ended

	state atomic.Uint32 // feedInside and feedLeft
}

const (
	feedInside uint32 = 1 << iota // the goroutine is in this package's code, not in the iterator's
	feedLeft                      // nobody wants more inputs
)

// errGoexit is why a stream ends whose iterator called runtime.Goexit.
var errGoexit = errors.New("gather: the iterator of the inputs called runtime.Goexit")

func startFeed[I any](j *job, inputs iter.Seq[I]) *feed {
	f := &feed{job: j, ended: make(chan struct{})}
	f.total.Store(-1)
	go func() {
		completed := false
		defer func() {
			if !completed {
				if f.panicked = recover(); f.panicked == nil {
					j.end(errGoexit)
				}
			}
			f.total.Store(j.requests())
			close(f.ended)
			wake(j.toRead)
		}()
		feedInputs(f, inputs)
		completed = true
	}()
	return f
}

// feedInputs admits the inputs until there are no more or the job is over.
func feedInputs[I any](f *feed, inputs iter.Seq[I]) {
	encode := encoderFor[I]()
	var memory arena
	for input := range inputs {
		if !f.enter() {
			break
		}
		payload, err := encode(memory.spare(), input)
		if err != nil {
			err = f.job.refuse(f.job.ctx, KindEncode, err)
		} else {
			err = f.job.admit(f.job.ctx, memory.keep(payload), nil)
		}
		if !f.exit() || err != nil {
			break
		}
	}
}

// enter and exit bracket what is done with an input. They return false when no more
// are wanted.

func (f *feed) enter() bool { return f.state.Or(feedInside)&feedLeft == 0 }
func (f *feed) exit() bool  { return f.state.And(^feedInside)&feedLeft == 0 }

// leave says that no more inputs are wanted, and waits for the goroutine, unless it
// is in the iterator, which may be blocked for good.
func (f *feed) leave() {
	inside := f.state.Or(feedLeft)&feedInside != 0
	if inside || f.total.Load() >= 0 {
		<-f.ended
	}
}

// allRead says whether so many results are those of all inputs.
func (f *feed) allRead(read int64) bool { return f.total.Load() == read }

// arena is memory for payloads that are made one after the other. A block serves many
// of them, and goes when none of them is needed any more.
type arena struct{ block []byte }

const (
	arenaBlock = 16 << 10
	arenaLeast = 1 << 10 // what is left of a block is not used when it is less
)

// spare returns an empty slice to append a payload to.
func (a *arena) spare() []byte {
	if cap(a.block)-len(a.block) < arenaLeast {
		a.block = make([]byte, 0, arenaBlock)
	}
	return a.block[len(a.block):]
}

// keep takes what was appended to the spare slice. A payload that did not fit has
// memory of its own already.
func (a *arena) keep(payload []byte) []byte {
	n := len(a.block) + len(payload)
	if n <= cap(a.block) && len(payload) > 0 && &payload[0] == &a.block[:n][len(a.block)] {
		a.block = a.block[:n]
	}
	return payload[:len(payload):len(payload)]
}
