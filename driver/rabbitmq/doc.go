// Package rabbitmq is the driver for RabbitMQ, 3.10 or later. Importing it makes two kinds
// of URL known to millrace.Open:
//
//	amqp://user:password@host:5672/vhost
//	amqps://user:password@host:5671/vhost?ca=FILE
//	amqp://user:password@one:5672,two:5672,three:5672/vhost     a cluster
//
// A vhost that is left out is "/"; user and password are guest when both are left out. Parameters:
//
//	ca=FILE                 the authorities, in PEM, that may have signed the server's certificate
//	cert=FILE&key=FILE      the certificate and key that this client shows; without a user in
//	                        the URL it is what the server knows it by (EXTERNAL)
//	consumer_timeout=30m    the server's consumer_timeout, where it is not RabbitMQ's own 30m
//	transient_queues=false  the server permits none (deprecated_features.permit.transient_nonexcl_queues),
//	                        as RabbitMQ does by default from 4.3 on; true where that was changed
//
// # What is where on the server
//
// A topic is a durable fanout exchange of its name, and a durable quorum queue of its name, in
// which messages wait until the topic has a channel. The first durable channel takes that queue
// over, with all that waits in it; any other has a queue named TOPIC/CHANNEL. A message that
// RabbitMQ cannot route makes the topic again, so none is lost between a channel and the next.
// The queue of an ephemeral channel is a classic one that goes with its last consumer; where no
// transient queues are permitted it is a quorum queue, which goes ten seconds after its last consumer has
// died. Names with two
// slashes are the driver's own: what notes which channel was the first, the delays, the long tasks.
// Queues that are there already are used as they are, whatever their arguments.
//
// # Workers and clients in other languages
//
// They need an AMQP library and nothing of ours, because this is AMQP's own convention for RPC:
//
//   - a worker consumes the queue whose name is that of the Millrace queue, publishes each
//     answer to the default exchange with the request's reply-to as routing key and the
//     request's correlation-id, then acks the request;
//   - a client publishes requests, with a reply-to and a correlation-id, to the default exchange
//     with the queue's name as routing key, and gets its answers in the queue that reply-to names,
//     or by direct reply-to (amq.rabbitmq.reply-to). What has failed has a header named error.
//
// The headers id and reply-to of a message are its properties correlation-id and reply-to,
// content-type is that property, and the others are in its headers. An answer goes to the
// queue that reply-to names; when that has gone, so has whoever asked, and the answer goes nowhere.
// (So whoever wants the answers of one queue to be the tasks of another declares that first.)
// Other channels of a reply topic than the first get no answers. A name that begins with "amq."
// cannot be a topic's, but a reply-to may be any queue's.
//
// # What is promised, and what is not
//
// Publish returns when the server has confirmed all messages, which are persistent; what was not
// confirmed when a connection broke is published again, so that it may be there twice. All
// connections come back by themselves, with backoff and jitter, through restarts of the server and through
// blocked connections; what waits for them says why when its context ends.
//
// In a cluster a quorum queue is on three nodes. When one of them dies, whoever was connected to it
// goes on with another node of the URL, which is tried when one has failed or has kept silent for a
// second; each connection begins with any of them. What RabbitMQ refuses to keep, because a queue has no
// leader or is full, is offered again for half a minute. To delete a quorum queue takes RabbitMQ
// five seconds while one of its nodes is down, and so long Depth tells by ErrUncounted that consumers
// died with it. Queues that are made before all nodes are there stay on those that were.
//
// After the death of a queue's leader RabbitMQ may count messages as delivered that got lost on their
// way (rabbitmq-server issue 15473; seen with 3.10.8). So a subscription that gets nothing asks again
// over a new connection, after ten seconds, then after twice as long, up to a minute: where the URL
// names several hosts, and while it holds nothing. The same release may go on to count consumers
// that died with their node: then Depth tells by ErrUncounted that it does not know.
//
// RabbitMQ has no leases. The driver keeps them by its own clock: it gives back what was not
// settled in time. When the process hangs or its network is gone, the server notices by heartbeats, a
// third of the lease apart but at least a second, and delivers again. A delivery that is held for
// longer than a third of consumer_timeout is moved, by publishing a confirmed copy to a queue
// which only this subscription consumes, and whose messages go back when it dies: so a
// long task whose lease is extended is never cut off.
//
// A delay is rounded up to a multiple of 32 ms and by at most an eighth: messages
// wait in a fixed set of queues, one for each power of two. Delayed messages survive a restart.
//
// What differs from other drivers: the sequence number of a delivery is 0; Delivery.Published is the
// publisher's clock, in seconds. Attempt also counts deliveries that were prefetched and given
// back unseen; on an ephemeral channel, whose queue does not count, it is 1 or 2. An ephemeral
// channel that is paused holds up to one message. Depth counts as deferred what this process, and
// those that subscribe to the channel, have delayed, and tells by ErrUncounted that programs in
// other languages hold messages, whose number RabbitMQ does not tell.
package rabbitmq
