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
//   - Creating, deleting and pausing topics and channels survives power loss when it has
//     returned; emptying them, and a deferral, by Publish or Nack, are as durable as a publish. Acks are written a
//     moment later, many together: a crash in between means that a few messages are
//     delivered again.
//   - Memory is bounded whatever the backlog: recent messages are served from memory,
//     older ones from the files. What is deferred counts as deferred at once, and is on the
//     disk until its time comes near: a channel has some 64 Ki such messages in memory, and
//     of the others a bit each. In a broker without files all stays in memory.
//   - A full disk, or one with less free than DiskLowWater, refuses publishing with
//     millrace.ErrNoSpace; consuming goes on, and makes room. No ack needs room of its own:
//     a segment goes when all channels are done with it, whatever their journals say.
//   - With Retain, consumed segments stay for that time, whole, and a full disk does not end
//     it. Replay delivers to a channel again what the log holds, and is as durable as a
//     publish; Peek shows what a channel is not done with, and changes nothing.
//   - With MaxAttempts, a message that was delivered so often and never acked becomes a dead
//     letter in TOPIC.dead, which is safe there before the message is acked: see dead.go. A
//     crash in between makes a second letter.
//   - Damage on the disk is reported to the Logger and costs no more than the messages
//     whose bytes it hit.
//
// # What it does not do
//
// It keeps no order between a message that is given back and those behind it, counts
// deliveries and not failures, and copies nothing to another machine.
//
// # How it is locked
//
// Broker.mu guards the set of topics; Topic.mu the set of channels and the released
// cursor; Channel.mu the ledger and the consumers; housekeeper.mu its list. They are
// taken in this order, held for memory operations only, and never while reading,
// writing or waiting.
//
// What takes longer is done in turns, each of which is a channel or a flag that one
// goroutine holds at a time. Topic.turn: making and deleting a topic's channels, and all
// its files but the records of its log. Channel.reading: reading the log for a channel's
// consumers. Consumer.receiving: the one Receive that runs. A turn may be waited for with
// no lock held, and with no turn held but one that stands before it here:
// Consumer.receiving, Topic.turn; nobody waits for Channel.reading, but is woken when it
// is given back. Dead letters are written by goroutines of their own, at most eight at a
// time, with no lock and no turn; a consumer that comes upon more waits for one of them,
// holding Consumer.receiving.
package broker
