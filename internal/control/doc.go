// Package control is what is said on the control topic of a queue, and what workers answer:
// JSON, so that other programs can take part.
//
// An [Order] is published to the topic [Topic] of the queue, where every worker has an
// ephemeral channel of its own, so that all of them hear it. Whoever wants to know what
// became of it names a topic to reply to, and gets an [Answer] from each worker concerned.
//
//	asker                                   workers
//	  │ Order ─► QUEUE.control ─┬─► channel worker.ID#ephemeral ─► obeys, once
//	  │                         └─► …                               │
//	  ◄──────── Answer ◄── answers.ASKER#ephemeral ◄────────────────┘
//
// Messages may be lost, doubled and late, so that nothing rests on a single one. An asker
// says the same order, with the same id, again until it is answered; a worker remembers the
// last ids and answers a repeat without obeying it again. An order that would do harm when
// it comes late names its worker, what it expects to find there, and until when it holds in
// that worker's own time: clocks of different machines are never compared.
//
// Whether a queue is paused is not said but kept: it is while the channel [PausedChannel]
// of the topic [PausedTopic] exists, in which nothing is ever published. Every broker can
// keep that, and those who join later find it.
//
// Both sides ignore fields and operations that they do not know, and messages of another
// version.
package control
