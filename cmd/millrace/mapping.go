package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/millrace/millrace"
	_ "github.com/millrace/millrace/driver/embedded" // mem: and file:
	"github.com/millrace/millrace/gather"
	"github.com/millrace/millrace/worker"
)

// Why a job ends before all its inputs have a result.
var (
	errInterrupted  = errors.New("interrupted")
	errHalted       = errors.New("halted")
	errStdoutClosed = errors.New("nobody reads standard output any more")
	errSettled      = errors.New("what was running is finished")
)

const (
	// farewell bounds how long the broker may take to say goodbye.
	farewell = 10 * time.Second
	// windowBytes bounds what is read ahead and what waits to be written. Commands
	// take their time: they are not kept waiting by less than gather's default.
	windowBytes = 16 << 20
	// maxRetryDelay bounds the delay before a task is tried again: a user waits.
	maxRetryDelay = 5 * time.Second
	// maxDeliveries is how often a command may be killed by others, or not be started,
	// before its task fails: after about a quarter of a minute.
	maxDeliveries = 10
	// maxFailures is the highest exit status that counts failed tasks.
	maxFailures = 101
)

// mapping is one run of map. Its conductor owns what happens when; the rest are
// goroutines that it waits for.
type mapping struct {
	mapOptions
	in     *inputs
	screen *screen
	broker millrace.Broker
	worker *worker.Worker // nil when the workers are elsewhere
	client *gather.Client

	unnamed bool // the queue is this job's alone

	counting          sync.WaitGroup
	total             atomic.Int64 // inputs there will be; -1: not known
	succeeded, failed atomic.Int64 // results that were shown
	showing           atomic.Bool  // a result is being shown
	halted            chan struct{}
}

// runMap does the job, and returns a status when tasks failed.
func runMap(ctx context.Context, o mapOptions) error {
	m := &mapping{mapOptions: o, in: o.newInputs(), screen: newScreen(), halted: make(chan struct{}, 1)}
	m.total.Store(-1)
	signals := catchSignals()
	defer signals.release()
	if err := m.open(ctx, signals); err != nil {
		return err
	}
	typed := m.sources[0].file == "-" && term.IsTerminal(syscall.Stdin)
	if typed {
		m.say("the inputs are read from the terminal, a line each; Ctrl-D ends them")
	}
	if m.bar || m.screen.errIsTTY && !typed { // which it would be drawn over
		m.startBar()
	}
	why := m.conduct(ctx, signals)
	m.in.end()
	m.counting.Wait()
	m.screen.close()
	err := errors.Join(m.close(), m.in.err())
	return m.verdict(why, err)
}

// open gets everything ready, and changes nothing before all that can be checked was.
func (m *mapping) open(ctx context.Context, signals *signals) (err error) {
	var handler worker.Handler
	if len(m.command) > 0 {
		command, err := m.newCommand()
		if err != nil {
			return err
		}
		if err := command.Check(); err != nil {
			return errors.New(explainStart(m.command[0], err.Error()))
		}
		handler = command
		if m.halt.why != "" && !m.halt.now {
			handler = &halting{Handler: command, rule: m.halt, retries: m.retries, halt: m.haltSoon}
		}
	}
	url := m.mapOptions.broker
	if url == "" {
		url = "mem:"
	}
	logDrivers(func(_ slog.Record, line string) { m.say("%s", line) })
	if m.broker, err = openOrStop(ctx, url, signals); err != nil {
		return err
	}
	switch m.unnamed = m.queue == ""; {
	case m.unnamed && m.brokerIsOurs():
		m.queue = localQueue
	case m.unnamed: // others do this at the same time
		m.queue = localQueue + "." + strings.ToLower(rand.Text()[:16])
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.broker.Close())
		}
	}()
	cfg := gather.Config{Timeout: m.timeout, Retries: max(0, m.retries), WindowBytes: windowBytes}
	if m.retries == 0 || m.retries < 0 && handler != nil {
		cfg.Retries = -1 // gather's word for never; 0 leaves it to workers elsewhere
	}
	if handler != nil {
		if m.worker, err = worker.New(m.broker, m.queue, handler, m.workerConfig()); err != nil {
			return err
		}
		if m.brokerIsOurs() {
			if err := m.dropLeftovers(ctx); err != nil {
				return err
			}
		}
	}
	m.client, err = gather.New(ctx, m.broker, m.queue, cfg)
	return err
}

// haltSoon has the job end when the running tasks have finished.
func (m *mapping) haltSoon() {
	select {
	case m.halted <- struct{}{}:
	default: // it was said before
	}
}

func (m *mapping) workerConfig() worker.Config {
	return worker.Config{
		Replicas: m.jobs, Timeout: m.timeout, Lease: m.ttl,
		MaxRetryDelay: maxRetryDelay, MaxDeliveries: maxDeliveries,
		OnEvent: func(e worker.Event) {
			switch e.Kind {
			case worker.BrokerRefuses:
				m.say("the broker takes no results, which are held until it does: %v", e.Err)
			case worker.BrokerAccepts:
				m.say("the broker takes results again")
			case worker.ReplicaAbandoned:
				m.say("%v, replica %d: %v", e.Kind, e.Replica, e.Err)
			}
		},
	}
}

// close takes leave of the broker. Nothing else runs any more.
func (m *mapping) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	err := m.client.Close(ctx)
	switch {
	case m.worker == nil:
	case m.unnamed:
		// The queue was this job's alone. Its dead letters are kept where they can be found: in
		// a directory, in which such a queue always has the same name.
		topics := []string{m.queue, m.queue + millrace.ControlSuffix}
		if !m.brokerIsOurs() {
			topics = append(topics, m.queue+millrace.DeadSuffix)
		}
		for _, topic := range topics {
			err = errors.Join(err, m.broker.Delete(ctx, topic, ""))
		}
	case m.brokerIsOurs():
		// What was not finished is cancelled, as is said. What is deferred for longer
		// than that takes is left to the next run.
		if _, _, e := m.sweep(ctx); !errors.Is(e, context.DeadlineExceeded) {
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, m.broker.Close())
}

// verdict says why the job ended, unless all went well, and how map exits.
func (m *mapping) verdict(why, err error) error {
	done := m.succeeded.Load() + m.failed.Load()
	left := m.client.Stats().Submitted - done
	account := fmt.Sprintf("%d done, %d of them failed, %d not finished", done, m.failed.Load(), left)
	if left > 0 {
		account += " and cancelled"
	}
	halted := errors.Is(why, errHalted)
	switch {
	case errors.Is(why, errStdoutClosed):
		return status(exitPipe) // as is usual, without a word
	case errors.Is(why, errInterrupted):
		m.say("interrupted: %s", account)
		return status(exitOther)
	case halted:
		m.say("ended by --halt %s: %s", m.haltText, account)
		why = nil
	}
	switch {
	case why != nil:
		return fmt.Errorf("%w (%s)", why, account)
	case err != nil:
		return err
	case m.failed.Load() > 0:
		if done > 1 && !halted {
			m.say("%d of %d tasks failed", m.failed.Load(), done)
		}
		return status(min(m.failed.Load(), maxFailures))
	}
	return nil
}

// say writes one line to standard error.
func (m *mapping) say(format string, args ...any) {
	line := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")
	m.screen.message([]byte("millrace: " + line + "\n"))
}

// newScreen is that of this process.
func newScreen() *screen {
	return &screen{
		out: os.Stdout, err: os.Stderr,
		outIsTTY: term.IsTerminal(syscall.Stdout), errIsTTY: term.IsTerminal(syscall.Stderr),
	}
}

// knownTotal is how many inputs there are: as many as were read once all are, whatever
// they came from; before that, what was counted. -1 when it is not known.
func (m *mapping) knownTotal() int64 {
	if n, all := m.in.allRead(); all {
		return n
	}
	return m.total.Load()
}

// startBar shows the progress bar, and begins to count the inputs if that is possible.
func (m *mapping) startBar() {
	m.counting.Go(func() {
		if total, known := m.in.count(); known {
			m.total.Store(total)
		}
	})
	pace := newPace(time.Now())
	m.screen.start(func() string {
		t := tally{total: m.knownTotal(), read: m.client.Stats().Submitted, failed: m.failed.Load()}
		t.done = m.succeeded.Load() + t.failed
		if m.worker != nil {
			s := m.worker.Status()
			t.busy, t.workers = s.Busy, len(s.Replicas)
		}
		width, _, err := term.GetSize(syscall.Stderr)
		if err != nil || width <= 0 {
			width = 80
		}
		// The last column is left free: some terminals go to the next line after it.
		return statusLine(t, pace, time.Now(), width-1)
	})
}
