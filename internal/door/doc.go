// Package door opens a broker to the network: NSQ's TCP protocol, version 2, and nsqd's
// HTTP API, so that any client or tool of NSQ can use it in place of nsqd v1.3.0.
//
// # What it promises
//
//   - The same bytes get the same answers as from nsqd: frames, error codes and texts, and
//     which of them end the connection.
//   - A message is acknowledged when it is as safe as the broker makes it.
//   - A connection that ends gives back at once what its client had in flight.
//   - Nothing waits for a timer: what is sent to a client is written when there is nothing
//     more to write with it.
//   - The memory of a connection is bounded by MaxBodySize and a few buffers; an idle one
//     costs a few kilobytes. No input crashes it or makes it wait for ever.
//
// # What it does not do
//
// It keeps no messages and no order of its own: all of that is the broker's.
//
// # Who does what on a TCP connection
//
// One goroutine reads commands, and does what they say before it reads the next; it also
// sends the heartbeats, because it is the one that waits. Commands that are already there
// are settled together: see conn_pending.go. When the client subscribes a second
// goroutine, the pump, receives from the broker and writes to the client. They share
// nothing but the turn to write.
package door
