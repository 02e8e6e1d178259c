// Package ledger is what a channel knows about the messages of its topic's log:
// which are done, who holds which under a lease until when, which wait for a time,
// and which come next. It is pure data: it starts no goroutine, reads no clock and
// touches no file. It is told the time, and hands its journal to whoever stores it.
//
// Every message is in one of these states, and only moves along the arrows:
//
//	                  Deliver                    Ack
//	not delivered ───────────────► in flight ───────────► done
//	 │ │                           │    │  ▲               ▲
//	 │ │                 Nack with │    │  │ Redeliver     │ Empty,
//	 │ │                    a time │    ▼  │               │ from any
//	 │ │                           │   ready again         │ state
//	 │ │                           │       ▲               │
//	 │ │    Defer, DeferAhead      ▼       │ NextRedelivery, when
//	 │ └───────────────────────► deferred ─┘ its time has come
//	 │                                                     │
//	 └─────────────────────────────────────────────────────┘
//	       Skip, and the holes before what is delivered
//
// From in flight to ready again it comes by Nack, Expire or Release. All below the floor
// are done, and nothing at or above the cursor was delivered yet but what DeferAhead has
// taken, which goes its way wherever the cursor is. Against all arrows, Rewind
// takes whatever is behind a sequence number back to where it was not delivered.
//
// # Promises
//
//   - A message that is not done is delivered again: when its lease was given back,
//     ran out or lost its owner, when its time has come, and after a restart.
//   - A lease is a sequence number and an attempt. Whoever comes with an attempt that
//     is not the present one is told so and changes nothing.
//   - The journal may be cut after any entry. What was lost of it is only that some
//     messages are delivered again, and counts of attempts that are too low.
//   - Memory is one bit for each message between floor and cursor, where they are not
//     all done, next to nothing where they are, and a few words for each message that
//     is in flight, ready again, or deferred and near; one bit for one that is far, because
//     whoever keeps the ledger has written it into a run. Deliver and Ack allocate nothing
//     in the long run.
//
// It does not know what the log holds. Whoever feeds it the log's sequence numbers
// says with the next one that there are holes before it, and what it is asked to
// redeliver may have been damaged meanwhile: then it is to be acked. Nothing here is
// safe for concurrent use.
package ledger
