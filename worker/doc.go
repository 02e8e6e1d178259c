// Package worker answers the tasks of a queue with supervised replicas of a
// [Handler], which may be a Go function: see [Func].
//
//	w, err := worker.New(broker, "resize", worker.Func(resize), worker.Config{})
//	…
//	err = w.Serve(ctx)
//
// It is the composition of the small packages around it:
//
//	subscription ─► mpmc channel ─► replicas, supervised ─► fan-in ─► publisher
//	  in batches     they compete     one task at a time               in batches:
//	                                                      publish, wait until safe, ack
//
// # What is promised
//
//   - A result is safe in the broker before its task is acked. A crash anywhere
//     means that a task runs again, never that its answer is lost.
//   - An error is tried again with a growing, jittered delay. What is out of
//     attempts becomes an error result and a dead letter, both safe before the ack.
//     Neither is sent once the lease of the task has ended: by then the task is
//     somebody else's, who may have an answer.
//   - A death burns no retry: only what a handler returned counts as a failure. A
//     task that keeps killing its workers is stopped by a limit of its own, the
//     number of its deliveries.
//   - The leases of all tasks that the worker holds are extended while the replicas
//     that run them are alive. A replica that is silent past its TTL is fenced: its
//     task is given back at once, the replica is replaced, and nothing it says later
//     is delivered.
//   - Memory is bounded: tasks are received ahead of need for a tenth of a second's
//     work, within limits of count and bytes. While the broker refuses results they
//     are held, their leases extended, and no new task is begun.
//
// # What it does not do
//
// A task may run more than once; handlers with effects outside their result must be
// safe to repeat. A goroutine cannot be killed: a handler that ignores its context is
// abandoned and counted, and Serve gives up with an error when there are too many.
// Results are published to the topics that tasks name; whether anybody still listens
// there is not known.
package worker
