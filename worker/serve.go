package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/millrace/millrace/fanin"
	"github.com/millrace/millrace/replica"
	"github.com/millrace/millrace/supervise"
)

// serve runs the worker's goroutines, and ends them in the order in which tasks pass
// through them, so that each settles what the one before it has handed on.
func (w *Worker) serve(ctx context.Context) error {
	detached := context.WithoutCancel(ctx)
	receiving, stopReceiving := context.WithCancelCause(detached)
	replicating, stopReplicas := context.WithCancelCause(detached)
	extending, stopExtending := context.WithCancel(detached)
	heeding, stopHeeding := context.WithCancelCause(detached)
	defer stopReplicas(nil)

	var inputs, outputs, leases, controls sync.WaitGroup
	inputBroken, outputBroken := make(chan error, 2), make(chan error, 1)
	inputs.Go(func() { inputBroken <- w.receive(receiving) })
	controls.Go(func() { inputBroken <- w.heed(heeding) })
	controls.Go(func() { w.follow(heeding) })
	controls.Go(func() { w.watchClients(heeding) })
	leases.Go(func() { w.extendLeases(extending) })
	leases.Go(func() { w.giveUpStuck(extending) })
	outputs.Go(func() {
		if err := w.publish(); err != nil {
			outputBroken <- err
			w.discard()
		}
	})
	replicas := w.startReplicas(replicating, &outputs)

	var why error
	select {
	case <-ctx.Done():
		why = context.Cause(ctx)
	case why = <-inputBroken:
	case why = <-outputBroken:
	case <-replicas.ended:
	case <-w.drain:
	}
	w.ending.Store(true)
	w.flow.change(func(f *flow) { f.over = true })
	stopReceiving(ErrStopped)
	inputs.Wait()
	if why == nil {
		outputs.Go(func() { _ = w.replicas.Shutdown(detached) })
	}
	settled := make(chan struct{})
	go func() {
		outputs.Wait()
		close(settled)
	}()
	if why == nil {
		why = w.finishTasks(ctx, settled, outputBroken)
	}
	if why != nil {
		grace := time.AfterFunc(w.cfg.Grace, func() { w.leaveBroker(why) })
		defer grace.Stop()
	}
	stopReplicas(ErrStopped)
	<-settled
	stopExtending()
	leases.Wait()
	stopHeeding(ErrStopped) // only now: tasks that finish can be cancelled, and asked about
	controls.Wait()
	w.farewell()
	return errors.Join(why, replicas.err)
}

// replicaRun is the run of the replica set.
type replicaRun struct {
	ended chan struct{} // closed when it is over, and err is set
	err   error
}

// startReplicas runs the replicas as the one source of the merger, whose stream ends
// with them.
func (w *Worker) startReplicas(ctx context.Context, group *sync.WaitGroup) *replicaRun {
	run := &replicaRun{ended: make(chan struct{})}
	_, err := w.merger.Add("replicas", func(context.Context, fanin.Emit[outcome]) error {
		defer close(run.ended)
		if err := w.replicas.Serve(ctx); !isStop(err) {
			run.err = err
		}
		return nil
	})
	if err != nil {
		panic(err) // the merger is not closed yet
	}
	w.merger.Close()
	group.Go(func() { _ = w.merger.Serve(context.WithoutCancel(ctx)) })
	return run
}

// isStop says whether the replicas ended as they were told to.
func isStop(err error) bool {
	var abandoned *supervise.AbandonedError
	return err == nil || errors.Is(err, ErrStopped) && !errors.As(err, &abandoned)
}

// discard reads what the replicas still emit when the publisher has given up. Nothing
// of it is acked: it runs again elsewhere.
func (w *Worker) discard() {
	buf := make([]outcome, settleBatch)
	for {
		n, err := w.merger.RecvBatch(context.Background(), buf)
		if err != nil {
			return
		}
		clear(buf[:n])
	}
}

// finishTasks gives back what waits for a replica, and waits until those that run are
// finished and settled. It returns why they must stop at once, if so: also a broker that
// refuses results cannot keep a worker that has to end.
func (w *Worker) finishTasks(ctx context.Context, settled <-chan struct{}, outputBroken <-chan error) error {
	w.giveBackReady()
	select {
	case <-settled:
		select {
		case err := <-outputBroken:
			return err
		default:
			return nil
		}
	case err := <-outputBroken:
		return err
	case <-w.hurried.Done():
		return context.Cause(w.hurried)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Drain stops receiving, gives back what waits for a replica, and returns when what
// is running is finished and its results are safe; then Serve returns nil. When ctx
// ends first, the worker stops at once, as at the end of the context of Serve. Returns
// what Serve returns, or ErrNotServing when that was not called or has returned.
func (w *Worker) Drain(ctx context.Context) error {
	if err := w.isServing(); err != nil {
		return err
	}
	w.beginDrain()
	select {
	case <-w.done:
	case <-ctx.Done():
		w.hurry(context.Cause(ctx))
		<-w.done
	}
	return w.result
}

// beginDrain makes Serve drain, and does not wait for that.
func (w *Worker) beginDrain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.draining {
		w.draining = true
		close(w.drain)
	}
}

// Scale makes the worker have n replicas, and returns when the new ones are ready or
// those that are too many have left, each after the task it is on. With 0, tasks wait
// in the broker. Returns ErrNotServing when Serve was not called or has returned, or
// the cause of ctx; what was begun goes on then.
func (w *Worker) Scale(ctx context.Context, n int) error {
	if err := w.isServing(); err != nil {
		return err
	}
	if n < w.replicas.Size() {
		w.flow.scaled(n) // receive no more than those who stay can run
	}
	err := w.replicas.Scale(ctx, n)
	return w.scaled(err)
}

// Retire makes one replica leave after the task it is on, and returns when it has
// left; an idle one is preferred. Returns replica.ErrNoReplica when there is none, and
// otherwise the errors of Scale.
func (w *Worker) Retire(ctx context.Context) error {
	if err := w.isServing(); err != nil {
		return err
	}
	return w.scaled(w.replicas.Retire(ctx))
}

// scaled makes the flow of tasks fit the replicas that there are.
func (w *Worker) scaled(err error) error {
	if errors.Is(err, replica.ErrStopped) {
		return ErrNotServing
	}
	size := w.replicas.Size()
	w.flow.scaled(size)
	if size == 0 {
		w.giveBackReady()
	}
	return err
}

func (w *Worker) isServing() error {
	select {
	case <-w.done:
		return ErrNotServing
	default:
	}
	select {
	case <-w.begun:
		return nil
	default:
		return ErrNotServing
	}
}
