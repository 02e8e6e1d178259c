// Package millrace is the vocabulary of Millrace: messages, deliveries, and the
// small interface that every broker is spoken to through. It holds no queue and
// starts no goroutine; the packages around it do.
//
// Millrace spreads heavy work over supervised workers and gets every answer back.
// This is the way of one task:
//
//	inputs                                                                    results
//	  │ gather.Map: id, reply topic, index                                       ▲ one per request,
//	  ▼                                                                          │ first value wins
//	Publish ─► Broker ─► topic: one log ─► channel: a cursor ─► lease ─► worker  │
//	                                                              │      │
//	                                                              ▼      │
//	                                       mpmc.Chan ─► replicas (supervised by heartbeats)
//	                                                       │             │
//	                                          fan-in ◄─────┘             │
//	                                             │                       │
//	                  publish the results in one batch, wait until       │
//	                  they are safe, then ack the tasks ─────────────────┘
//
// A client publishes a [Message] to a topic; each channel of the topic gets it,
// and the consumers of one channel compete for it. A consumer holds a [Delivery]
// under a lease: it acks it, nacks it, extends the lease, or loses it, and then the
// message is delivered again. Because a worker publishes the result before it acks
// the task, a crash anywhere means that a task runs again, never that its answer is
// lost; the gatherer drops the second answer to the same request.
//
// # Which package to use
//
//   - gather: split inputs into requests, get exactly one result for each.
//   - worker: answer requests with a Go function; task: with commands.
//   - broker and driver/embedded: the durable broker in this process.
//   - mpmc, supervise, fanin, replica: the building blocks, each usable alone.
//
// # What is not promised
//
// Delivery is at least once: a task may run more than once, also at the same time
// when its worker was silent past its lease, so work with effects outside its result
// must be safe to repeat. Order holds within what one publisher published to a topic
// until a message is redelivered or deferred. Nothing here replicates data between
// machines.
package millrace
