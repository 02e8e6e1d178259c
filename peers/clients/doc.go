// Package clients holds only tests: clients and tools that nobody here wrote do their
// work with nsqd and with Millrace. What a test expects of Millrace it has thereby seen
// nsqd do.
package clients
