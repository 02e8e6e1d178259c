// Package mpmc provides channels between any number of senders and any number of
// receivers, bounded or unbounded, that do what Go's own channels do and also
// send and receive in batches, grow without limit, and take a context wherever
// they wait.
//
// # Operations
//
// An operation goes ahead when it can, waits or fails when it cannot:
//
//	operation    it goes ahead when    else                                when closed
//	-----------  --------------------  ----------------------------------  --------------------
//	Send         there is room         waits; context.Cause when ctx ends  ErrClosed
//	TrySend      there is room         ErrFull                             ErrClosed
//	SendAll      there is room for     waits for the rest; how many went,  how many went,
//	             every item            context.Cause when ctx ends         ErrClosed
//	Recv         an item is there      waits; context.Cause when ctx ends  ErrClosed once empty
//	TryRecv      an item is there      ErrEmpty                            ErrClosed once empty
//	RecvBatch    one or more items     waits; context.Cause when ctx ends  ErrClosed once empty
//	             are there
//	All          an item is there      waits; stops when ctx ends          stops once empty
//	<-Ready()    an item may be there  waits                               goes ahead
//	Len, Cap     always                                                    as before
//	Close        always                                                    does nothing
//
// In an unbounded channel there is always room.
//
// # Promises
//
// Items are received in the order in which they were sent, each of them once. The
// channel is linearizable: every operation takes effect at one moment between its
// call and its return, SendAll item by item in order, RecvBatch for all its items
// at once: as many as its buffer has room for of those that were there when it was
// called, and perhaps some that came later. What one goroutine did before it sent
// an item happens before what another does after it received that item.
//
// After Close nothing more goes in, and what is in can be received: no send
// succeeds that no receiver can see.
//
// A context counts only for waiting. An operation that can go ahead does, even
// under a context that has ended; one that returns an error has done nothing,
// but for what the count of SendAll says. So an item is never taken by a
// receiver that does not return it, and a wake-up is never used up by a
// goroutine that has left. A loop around Recv that must stop at once when its
// context ends, though items are there, checks the context itself; All does.
//
// A goroutine that waits is parked and costs no processor time; the package
// starts no goroutine of its own. What was received is not kept alive by the
// channel. Blocks of memory are used again, so that sending and receiving do not
// allocate once a channel has seen its usual load.
//
// # Limits
//
// Waiting goroutines are woken in the order in which they came, but one that
// comes along just then may be faster: no goroutine is promised its turn. A
// channel is in memory and in one process. What is left in a channel when it
// becomes unreachable is collected with it.
//
// Inside a bubble of [testing/synctest] a waiting goroutine is durably blocked. As
// a Go channel does, a Chan belongs to the bubble in which it was made, and one
// that was made outside must stay outside.
package mpmc
