// Package jobs holds what is promised of a job to be true on each kind of broker, with
// clients, workers and brokers as processes of their own: millrace serve, two nsqds that
// nsqlookupds know of, RabbitMQ and nats-server. They are killed, stopped, drained and cut off.
//
// It has no code but its tests. Which promises a driver keeps by itself is shown in
// package drivers.
package jobs
