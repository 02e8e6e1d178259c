// Package nats is the driver for NATS JetStream, one server or a cluster. Importing it
// makes URLs like these known to millrace.Open:
//
//	nats://localhost:4222
//	nats://user:password@a:4222,b:4222,c:4222?replicas=3
//	nats://token@host?ca=ca.pem
//
// The options are
//
//	replicas    on how many servers of a cluster each topic is kept, 1 to 5; 1 by default.
//	            It holds for topics that are created from now on.
//	tls         true: refuse a server without TLS. A server that wants TLS gets it anyway.
//	ca          a file with the authorities that may have signed the server's certificate
//	cert, key   files with the client's own certificate and its key
//	creds       a file with credentials, as nsc and Synadia Cloud make them
//
// # How it maps
//
// A topic is a stream, MILLRACE_ and its name, of the one subject millrace. and its name;
// a channel is a durable pull consumer of it. A dot in a name is written "=", because NATS
// gives dots a meaning of their own: topic a.b is stream MILLRACE_a=b, subject millrace.a=b.
//
//	publish       acknowledged by the stream; each message has an id, by which the stream
//	              knows it again for 20 s, so that a retry does not double it
//	headers       one NATS header, MR1: id=7&reply-to=x, encoded as in a URL's query
//	lease         AckWait; where subscriptions of a channel have leases of different
//	              lengths, a delayed negative acknowledgement for each delivery. Who changes
//	              AckWait says "lease" to the subject millrace.TOPIC.CHANNEL
//	Ack, Nack, Extend    +ACK, -NAK with its delay, +WPI
//	delay         header MR1-Delay; whoever gets the message early gives it back until then
//
// Anybody may publish to millrace.TOPIC: a message without our header is one without
// headers. A program that is not ours takes part by these headers and subjects alone.
//
// The stream keeps a message until every channel is done with it (interest retention).
// While a topic has no channel, a consumer that nobody reads, named ~ and some letters,
// keeps what is published for the first one.
//
// # What is promised
//
// Publish returns when the stream, with replicas most of its servers, has the message.
// JetStream syncs its files every two minutes unless the server's sync_interval says
// otherwise: the death of a server process loses nothing, that of one machine without
// replicas may. Connections are made again for ever; what was asked meanwhile waits with
// its context.
//
// # What differs
//
//   - A message may be as large as the server's max_payload says, 1 MiB by default and
//     with its headers; more is millrace.ErrTooLarge.
//   - A message that was given back or deferred counts as in flight, never as ready or
//     deferred, until it is delivered again: JetStream does not tell them apart.
//   - A server remembers when a delivery was made, in whole seconds, but not that it was
//     given back: after its restart, what had been given back and not been delivered again
//     comes when its lease is over, and what was deferred may come a second early.
//   - A consumer that dies is noticed when its leases end, not when its connection does.
//   - An ephemeral channel whose last consumer dies goes some seconds later. If it was the
//     last channel of its topic, what is published then is not kept for the next.
//   - An ephemeral topic is in memory, and goes when its last channel is deleted.
//   - Acks are not acknowledged: what was acked just before a connection broke may be
//     delivered again.
package nats
