package supervise

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Func is the worker: the work of one generation. It should return soon after
// ctx ends, whose cause (context.Cause) tells why: a *SilentError, or the cause
// of the context that Serve was given.
type Func func(ctx context.Context, p *Pulse) error

// Supervisor runs a worker and replaces it when it fails or is silent.
type Supervisor struct {
	work Func
	cfg  Config

	mu         sync.Mutex // protects all below; never held while calling or waiting
	serving    bool
	state      State // Running stands for whatever the current pulse says
	current    *generation
	generation uint64
	restarts   uint64
	err        error
	stuck      []Stuck
}

// New returns a Supervisor of work. Nothing runs until Serve is called.
func New(work Func, cfg Config) *Supervisor {
	return &Supervisor{work: work, cfg: cfg.WithDefaults()}
}

// Serve runs the worker, generation after generation, until ctx ends or the
// worker is not to be started again. It returns
//
//   - nil when a Transient or Temporary worker has returned nil;
//   - the worker's error when a Temporary worker has failed;
//   - context.Cause(ctx) when ctx has ended;
//   - an *IntensityError when the worker was restarted too often;
//   - an *AbandonedError, wrapping one of the above, when goroutines that ignore
//     their cancelled context are left behind, or when there are too many of them;
//   - ErrServing when Serve is already running.
//
// It may be called again after it has returned, as by another supervisor.
func (s *Supervisor) Serve(ctx context.Context) error {
	s.mu.Lock()
	if s.serving {
		s.mu.Unlock()
		return ErrServing
	}
	s.serving = true
	s.mu.Unlock()

	r := &run{Supervisor: s, ctx: ctx, returned: make(chan uint64), over: make(chan struct{})}
	err := r.serve()
	close(r.over) // from now on, what was abandoned returns without a word

	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving, s.state = false, Stopped
	if len(s.stuck) > 0 && !r.tooMany {
		err = &AbandonedError{Name: s.cfg.Name, Stuck: slices.Clone(s.stuck), Cause: err}
	}
	return err
}

// Status returns what the worker is doing now.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Name: s.cfg.Name, State: s.state, Generation: s.generation, Restarts: s.restarts,
		Err: s.err, Abandoned: slices.Clone(s.stuck),
	}
	if s.current != nil {
		st.Age = time.Since(s.current.start)
		st.LastBeat = s.current.sinceBeat()
		if st.State == Running {
			st.State = s.current.state()
		}
	}
	return st
}

// run is one call of Serve. Its methods are called by that goroutine alone,
// which owns the policy's state.
type run struct {
	*Supervisor
	ctx      context.Context
	returned chan uint64   // abandoned generations that have returned
	over     chan struct{} // closed when nobody receives from returned any more

	inARow  int         // restarts since the last healthy generation
	recent  []time.Time // restarts within the intensity window
	reasons []error     // of the last exits
	tooMany bool        // abandoned: serve returns an *AbandonedError already
}

func (r *run) serve() error {
	for {
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		g := r.start()
		err := r.watch(g)
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		if restart, err := r.judge(err); !restart {
			return err
		}
		if err := r.wait(r.delay(g)); err != nil {
			return err
		}
	}
}

// start starts the next generation.
func (r *run) start() *generation {
	r.mu.Lock()
	if r.generation > 0 {
		r.restarts++
	}
	r.generation++
	g := newGeneration(r.ctx, r.generation, r.cfg.TTL)
	r.current, r.state = g, Running
	r.mu.Unlock()

	r.tell(Event{Kind: Started, Generation: g.Generation()})
	go r.runGeneration(g)
	return g
}

// runGeneration is the generation's goroutine. It ends after the generation's
// last emission: a goroutine that the worker left behind cannot deliver a value
// into the time of the next generation.
func (r *run) runGeneration(g *generation) {
	g.goroutine <- goroutineHeader()
	err := ErrGoexit // stays, if the worker unwinds this goroutine
	defer func() {
		g.fence()
		g.cancel(nil)
		g.waitQuiet()
		if r.ended(g) {
			select {
			case r.returned <- g.Generation():
			case <-r.over:
			}
			return
		}
		g.done <- err
	}()
	err = call(g.ctx, g.Pulse, r.work)
}

// ended records that the generation's goroutine has returned, and reports
// whether it had been abandoned before.
func (r *run) ended(g *generation) (abandoned bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g.ended = true
	if g.abandoned {
		r.stuck = slices.DeleteFunc(r.stuck, func(s Stuck) bool { return s.Generation == g.Generation() })
	}
	return g.abandoned
}

// watch waits until the generation has returned or is abandoned, and returns
// why it ended: nil after a normal exit. It is the monitor: beats only store the
// time, and the one timer here is armed again for what is left of the TTL.
func (r *run) watch(g *generation) error {
	var look <-chan time.Time
	var timer *time.Timer
	if r.cfg.TTL > 0 {
		timer = time.NewTimer(r.cfg.TTL)
		defer timer.Stop()
		look = timer.C
	}
	for {
		select {
		case err := <-g.done:
			return r.exited(g, err)
		case n := <-r.returned:
			r.tell(Event{Kind: Returned, Generation: n})
		case <-r.ctx.Done():
			return r.reap(g, context.Cause(r.ctx))
		case <-look:
			silent, next := g.fenceIfSilent()
			if !silent {
				timer.Reset(next)
				continue
			}
			err := &SilentError{
				Name: r.cfg.Name, Generation: g.Generation(), TTL: r.cfg.TTL, LastBeat: g.lastBeat(),
			}
			r.tell(Event{Kind: Silent, Generation: g.Generation(), Err: err})
			g.cancel(err)
			return r.reap(g, err)
		case why := <-g.given:
			g.cancel(why)
			return r.giveUp(g, why)
		}
	}
}

// reap waits for a generation whose context was cancelled, and abandons it when
// the grace is over. It returns why the generation ended.
func (r *run) reap(g *generation, why error) error {
	r.setState(Stopping)
	grace := time.NewTimer(r.cfg.Grace)
	defer grace.Stop()
	for {
		select {
		case err := <-g.done:
			if errors.Is(why, ErrSilent) {
				err = why // whatever it says now, this is why it was stopped
			}
			return r.exited(g, err)
		case n := <-r.returned:
			r.tell(Event{Kind: Returned, Generation: n})
		case <-grace.C:
			return r.giveUp(g, why)
		}
	}
}

// giveUp leaves behind a generation that does not return.
func (r *run) giveUp(g *generation, why error) error {
	g.fence()
	stack := g.stack()
	if !r.abandon(g, stack) {
		return r.exited(g, <-g.done) // it returned at this very moment
	}
	r.setErr(why)
	r.tell(Event{Kind: Abandoned, Generation: g.Generation(), Err: why, Stack: stack})
	return why
}

// abandon counts the generation as abandoned unless it has ended.
func (r *run) abandon(g *generation, stack []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.ended {
		return false
	}
	g.abandoned = true
	r.stuck = append(r.stuck, Stuck{Generation: g.Generation(), Since: time.Now(), Stack: stack})
	return true
}

func (r *run) exited(g *generation, err error) error {
	r.setErr(err)
	r.tell(Event{Kind: Exited, Generation: g.Generation(), Err: err})
	return err
}

// judge decides whether the worker is started again after it ended for the
// reason err. If not, it returns what Serve returns.
func (r *run) judge(err error) (restart bool, _ error) {
	r.mu.Lock()
	stuck := slices.Clone(r.stuck)
	r.mu.Unlock()
	if len(stuck) > max(0, r.cfg.MaxAbandoned) {
		r.tooMany = true
		return false, &AbandonedError{Name: r.cfg.Name, Stuck: stuck, Cause: err}
	}
	if r.cfg.Restart == Temporary || r.cfg.Restart == Transient && err == nil {
		return false, err
	}
	if err == nil {
		err = ErrReturned
	}
	if len(r.reasons) == maxCausesKept {
		r.reasons = slices.Delete(r.reasons, 0, 1)
	}
	r.reasons = append(r.reasons, err)

	now := time.Now()
	r.recent = slices.DeleteFunc(r.recent, func(t time.Time) bool { return now.Sub(t) >= r.cfg.Intensity.Window })
	r.recent = append(r.recent, now)
	if len(r.recent) > max(0, r.cfg.Intensity.Max) {
		return false, &IntensityError{
			Name: r.cfg.Name, Restarts: len(r.recent), Window: r.cfg.Intensity.Window,
			Causes: slices.Clone(r.reasons),
		}
	}
	return true, nil
}

// delay returns how long to wait before the restart that follows g.
func (r *run) delay(g *generation) time.Duration {
	if time.Since(g.start) >= r.cfg.Backoff.Healthy {
		r.inARow = 0
	}
	d := r.cfg.Backoff.wait(r.inARow, r.cfg.Random)
	r.inARow++
	return d
}

// wait waits before a restart. It returns an error if Serve is to end instead.
func (r *run) wait(delay time.Duration) error {
	r.setState(Waiting)
	r.tell(Event{Kind: Restarting, Generation: r.generation + 1, Delay: delay})
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return nil
		case n := <-r.returned:
			r.tell(Event{Kind: Returned, Generation: n})
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		}
	}
}

func (r *run) tell(e Event) {
	e.Name, e.Time = r.cfg.Name, time.Now()
	r.cfg.OnEvent(e)
}

func (r *run) setState(s State) {
	r.mu.Lock()
	r.state = s
	r.mu.Unlock()
}

func (r *run) setErr(err error) {
	r.mu.Lock()
	r.err = err
	r.mu.Unlock()
}
