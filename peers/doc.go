// Package peers is the module of everything that Millrace is compared with: the real
// nsqd, RabbitMQ and NATS, and clients and tools that nobody here wrote. It is a module of its own so that
// what they need never reaches the go.sum of somebody who imports Millrace.
//
// It promises nothing to anybody: it holds Millrace to its promises.
//
//   - node starts the brokers: nsqd, nsqlookupd, nsqadmin, nats-server, RabbitMQ and
//     Millrace, in this process or as processes of their own.
//   - differ sends the same bytes to nsqd and to Millrace and compares what comes back.
//   - clients runs go-nsq, nsqjs and NSQ's tools against both.
//   - drivers holds each driver to driver/drivertest, against the real broker.
//   - jobs runs jobs on each broker through the deaths of workers, clients and brokers.
//   - crash kills Millrace under load, and counts.
//   - bench prints the table of speeds, side by side: go run ./bench
package peers
