// Package nsqwire is the wire format of NSQ's TCP protocols: of version 2, which clients
// speak with nsqd, the command lines, the frames, the batches of MPUB and the framing of
// snappy; of version 1, which nsqd speaks with nsqlookupd, what nsqd says and hears. And one
// thing that is Millrace's own: how headers travel in a message of NSQ's, which has none.
//
// It takes bytes apart and puts them together. It does no I/O, keeps no state, and what it
// returns shares memory with what it was given. Whatever the bytes are, it does not panic
// and allocates no more than what stands there needs.
//
// Sources: nsq.io/clients/tcp_protocol_spec.html, and where that is silent the source of
// nsqd v1.3.0; for snappy, framing_format.txt and format_description.txt of
// github.com/google/snappy.
package nsqwire
