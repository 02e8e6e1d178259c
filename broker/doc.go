// Package broker is the durable broker: topics, each one log; channels, each a ledger
// over it; consumers that compete for a channel's messages under leases.
//
// It runs inside the program that opens it. A message is encoded and written once,
// whatever the number of channels; what a channel adds is its ledger, which knows what
// was acked, is in flight, is deferred, or was given back.
//
// # What it promises
//
//   - When Publish returns, the messages survive the death of the process, and with
//     SyncAlways, the default, power loss too. In memory (no Dir) they live as long as
//     the broker.
//   - Every message is delivered to one consumer of each channel at least once, and again
//     until it is acked: at once when its consumer closes, else when its lease ends.
//   - Creating and deleting topics and channels is as durable as a publish. Acks and
//     deferrals are written a moment later, many together; a crash in between means that
//     a few messages are delivered again.
//   - Memory is bounded whatever the backlog: recent messages are served from memory,
//     older ones from the files.
//   - A full disk refuses publishing with ErrNoSpace; consuming goes on.
//
// # How it is locked
//
// Broker.mu guards the set of topics, Topic.mu the set of channels and the released
// cursor, Channel.mu the ledger and the consumers. They are taken in this order, held for
// memory operations only, and never while reading, writing, or waiting. Who reads a
// channel's log holds its reading turn; who writes its journal holds the journal's turn.
package broker
