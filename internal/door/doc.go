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
// # Where it is not like nsqd, on purpose
//
// The tests of peers/differ send the same bytes to the real nsqd, look up the lines below
// by the words before the colon, and fail when the two no longer differ so.
//
//   - a client that is gone: what it had in flight is delivered to others at once; nsqd
//     waits until it has timed out.
//   - a client whose lease ended: is sent nothing more until it speaks, because it may be
//     dead; nsqd sends it the same message again.
//   - a client that does not read: is closed when it has taken nothing for a heartbeat
//     interval; nsqd sends it nothing more, but counts it as a consumer while it speaks.
//   - a client that does not begin: is closed after the client timeout; nsqd keeps it for
//     ever.
//   - a second IDENTIFY: counts as a whole, but for TLS, which is there already; nsqd tells
//     the client so, but delivers by the first one's msg_timeout, and begins TLS again.
//   - a delay beyond 64 bits: is too long, as any other that is; nsqd multiplies the
//     milliseconds, and takes what is left when they have wrapped.
//   - a deferral without a channel: counts from the publish; nsqd's begins when the topic
//     hands the message to a channel.
//   - a deferral that overflows: is kept, whatever the number of messages, and through a
//     restart; nsqd forgets it for those beyond mem-queue-size and for all when it stops, and
//     delivers them at once.
//   - an ephemeral topic or channel that overflows: keeps what was acknowledged, until the
//     broker's memory is full and publishing is refused; nsqd drops what is beyond
//     mem-queue-size, and says OK.
//   - a batch larger than it says: is refused when its messages exceed max-body-size; nsqd
//     believes the size that was said, and takes all of them.
//   - a body that nobody asked for: is not read; nsqd reads it to its end, and says
//     INVALID_REQUEST if it is broken.
//   - a slow HTTP client: has 10 seconds for the head of its request, a minute for the body,
//     and two minutes to take the answer; nsqd waits for ever.
//   - a large header: beyond 64 KiB is refused; nsqd takes 1 MiB.
//   - a page from elsewhere: cannot make a browser change anything here, and gets
//     CROSS_ORIGIN; nsqd obeys it.
//   - paths that nsqd has not: are /metrics, /peek, /channel/replay, and what nsqlookupd would
//     answer for this one node: /lookup, /nodes, /topics, /channels.
//   - setblockrate and freememory: say that they did it; nsqd does it, and says
//     INTERNAL_ERROR.
//   - TLS before 1.2: is refused unless tls-min-version allows it; nsqd begins at 1.0.
//   - pub_counts: names every topic that a client has published to; nsqd names one of them.
//   - backend_depth: is the depth, because every message is on the disk from the beginning,
//     but for ephemeral ones; nsqd counts what did not fit into its memory.
//   - message_bytes: is without a first line of headers (MR1 and JSON), which is stored as
//     headers, and delivered as it was published; to nsqd it is a part of the body.
//   - e2e_processing_latency: is not measured; the age of the oldest message is under
//     /metrics.
//   - tls_cipher_suite: has the names of TLS 1.3 too; nsqd says Unknown.
//
// # Who does what on a TCP connection
//
// One goroutine reads commands, and does what they say before it reads the next; it also
// sends the heartbeats, because it is the one that waits. Commands that are already there
// are settled together: see conn_pending.go. When the client subscribes a second
// goroutine, the pump, receives from the broker and writes to the client. They share
// nothing but the turn to write.
package door
