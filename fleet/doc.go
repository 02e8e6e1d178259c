// Package fleet sees and steers the workers of a queue, on whatever machines they are and
// whatever broker is between.
//
//	f, err := fleet.Open(ctx, broker, "resize")
//	…
//	report, err := f.Report(ctx)              // every replica: host, task, last heartbeat
//	scaled, err := f.Scale(ctx, fleet.By(+2)) // where there is the most room
//	retired, err := f.Retire(ctx)             // one, somewhere: the poison pill
//	err = f.Close(ctx)
//
// It uses nothing but topics: what is said goes to the queue's control topic, where every
// worker listens, and what they answer comes back to a topic of the asker's own. Nobody
// keeps a list of workers; whoever answers is there.
//
// # What is promised
//
//   - A command changes something once, though what is said is repeated until it is
//     answered: it has an id, by which a worker knows it again.
//   - What changes a worker is said to that worker alone, in absolute numbers, together
//     with what it was when it was looked at. One that has changed meanwhile refuses, and
//     is looked at again; so two who scale at the same time do not undo each other's work.
//   - A worker that has not confirmed within five seconds is named in an
//     [UnconfirmedError], and will not obey later, when nobody counts on it any more. It may
//     have obeyed, and then died before it could say so.
//   - Replicas that leave finish their tasks. A task is never cut off by any of this.
//   - A paused queue is paused in the broker, and stays it until Resume, through restarts of
//     workers and of the broker: workers that come later find it. See [Fleet.Pause].
//
// # What is not
//
// Who is there is known by who answers: a worker that is too slow, by default half a second
// slower than the one before it, is missed by the first roll call, and then not counted. A
// worker that was never heard is not known to be missing. The numbers that Scale has made
// are not kept: a worker that is started again has the replicas that it is started with.
// Workers that begin while Drain waits are not drained. Anybody who may publish to the
// broker may steer its workers.
package fleet
