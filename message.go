package millrace

import "time"

// Message is what is published: bytes, with optional headers.
//
// Publish does not keep a reference to Headers or Body after it returned.
type Message struct {
	// Headers is the message's list of key–value pairs; nil when it has none.
	Headers Headers
	// Body is the payload. It may be empty.
	Body []byte
	// Delay is how long after publishing the message is first delivered. Zero and
	// negative mean at once. It survives a restart. In a Delivery it is zero.
	Delay time.Duration
}

// Size is what the message counts against limits and windows: the bytes of its
// headers and its body.
func (m *Message) Size() int { return len(m.Headers) + len(m.Body) }

// Delivery is a message that a consumer holds under a lease.
//
// Headers and Body are read-only, and may share memory with other deliveries:
// whoever keeps a small part of one for long should copy it.
type Delivery struct {
	Message
	// Seq is the message's sequence number in its topic, from 1; 0 where the broker
	// has none.
	Seq uint64
	// Attempt says how often the broker has delivered the message, this time
	// included: 1 is the first delivery.
	Attempt uint32
	// Published is when the broker accepted the message, in nanoseconds since the
	// Unix epoch; 0 where the broker does not say.
	Published int64
	// Tag is the driver's own name for this lease. Only the subscription that
	// delivered it can read it.
	Tag uint64
}
