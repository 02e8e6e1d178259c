// Package node starts what the tests and benchmarks of this module speak to: nsqd,
// nsqlookupd, nsqadmin, nats-server, RabbitMQ of Debian's package, and Millrace, in this
// process or as processes of their own. They listen on ports of loopback that the system picks.
//
// It promises that whoever starts nsqd and Millrace with the same Options has told both
// the same, and that Stop returns when the node has let go of its ports and its files.
// It does not look at what they answer: that is the tests' business.
package node
