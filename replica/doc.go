// Package replica runs replica sets: workers that compete for the messages of
// one [mpmc.Chan], each of them supervised, in a number that changes while they
// run.
//
// A replica handles one message at a time, by calling the [Handler]. A [Set]
// starts with [Config.Replicas] of them; [Set.Scale] starts and retires them,
// [Set.Retire] retires one, and so does a message for which the handler returns
// [ErrRetire]: a poison pill, in order between the messages. With no replica the
// messages wait in the queue.
//
// # What becomes of a message
//
// A message that a replica has received is never swallowed. It has exactly one
// of three ends:
//
//   - It is handled: the handler returned nil or ErrRetire, or one of the values
//     that it emitted for the message through [Emit] was delivered. What happens
//     to the replica after that changes nothing.
//   - It failed: the handler returned another error. [Config.Failed] is called.
//   - It is lost: its replica panicked, was silent for its TTL, or did not stop in
//     time, or a value emitted for it was refused. [Config.Lost] is called; without
//     one the message goes to the next replica that is free, ahead of the queue.
//
// So where a result is published through Emit, a message either has its result
// delivered or is handed to Lost or Failed, never both and never neither, and
// each of these once. A replica that was replaced may still be running its
// handler: what it emits is fenced, what it returns is ignored.
//
// # Supervision
//
// Each replica is a worker of package supervise. Waiting for a message never
// counts as silence, nor does an emission that is blocked by a slow consumer. The
// TTL runs while the handler works; it shows progress by [supervise.Beat].
// A replica is started again after a panic or silence, not after it has retired,
// and not because its handler returned an error.
//
// # What it does not do
//
// It does not count attempts: without Config.Lost, a message that kills every
// replica goes round until one replica passes its restart intensity, which ends
// the set with an error. It acknowledges nothing; that is for the handler, or for
// whoever takes what the handler emits.
package replica
