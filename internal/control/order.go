package control

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/millrace/millrace"
)

// Version is that of orders and answers. Another one means that they cannot be understood.
const Version = 1

// Op is what is to be done.
type Op string

// The operations.
const (
	// Cancel ends the tasks that Order.Cancel names. It is not answered.
	Cancel Op = "cancel"
	// Report is answered with what the worker does.
	Report Op = "report"
	// Scale makes a worker have Order.Size replicas, if it has Order.From.
	Scale Op = "scale"
	// Retire makes one replica of a worker leave after its task: the one with the number
	// Order.Replica, if it is still that with the serial Order.Serial.
	Retire Op = "retire"
	// Drain makes a worker finish what it has begun, give back the rest, and end.
	Drain Op = "drain"
	// Attend says that the client whose reply topic is Order.ReplyTo has come. It is not
	// answered.
	Attend Op = "attend"
	// Pause and Resume make workers look whether the queue is paused, and say what to
	// believe if they cannot see it.
	Pause  Op = "pause"
	Resume Op = "resume"
)

// Order is what is said to the workers of a queue.
type Order struct {
	Version int `json:"v"`
	// ID is the order's own; a repeat has the same.
	ID string `json:"id,omitempty"`
	Op Op     `json:"op"`
	// To is the id of the one worker that is meant; "" means all.
	To string `json:"to,omitempty"`
	// ReplyTo is the topic, and AnswerChannel its channel, to which answers go; "" means
	// that nobody wants any.
	ReplyTo string `json:"reply_to,omitempty"`
	// Before is the age of the worker, in milliseconds, from which on it refuses the
	// order; 0 means never.
	Before int64 `json:"before_ms,omitempty"`

	Cancel  string `json:"cancel,omitempty"` // the id of a request, or of a job
	Size    int    `json:"size,omitempty"`
	From    int    `json:"from,omitempty"`
	Replica int    `json:"replica,omitempty"`
	Serial  uint64 `json:"serial,omitempty"`
}

// Encode returns the message that says o. It shares no memory with o.
func (o Order) Encode() millrace.Message {
	o.Version = Version
	return encode(o)
}

// ReadOrder reads what somebody has published. It is false for what is no order that this
// version knows.
func ReadOrder(body []byte) (o Order, ok bool) {
	if json.Unmarshal(body, &o) != nil || o.Version != Version {
		return Order{}, false
	}
	switch o.Op {
	case Cancel:
		return o, o.Cancel != ""
	case Attend:
		_, ok := ClientOf(o.ReplyTo)
		return o, ok
	case Report, Scale, Retire, Drain, Pause, Resume:
		return o, o.ID != "" && (o.ReplyTo == "" || millrace.CheckName(o.ReplyTo) == nil)
	}
	return Order{}, false
}

// Topic is the control topic of a queue.
func Topic(queue string) string { return queue + millrace.ControlSuffix }

// WorkerChannel is the channel of the control topic that the worker with that id has.
func WorkerChannel(id string) string { return "worker." + id + millrace.EphemeralSuffix }

// AskerChannel is the channel of the control topic that an asker with that id has. It
// keeps what is said while no worker is there from waiting for the first one that comes.
func AskerChannel(id string) string { return "asker." + id + millrace.EphemeralSuffix }

// AnswerTopic is the topic to which an asker with that id has its answers sent.
func AnswerTopic(id string) string { return "answers." + id + millrace.EphemeralSuffix }

// AnswerChannel is the one channel of an asker's topic.
const AnswerChannel = "asker" + millrace.EphemeralSuffix

// PausedChannel is the channel of PausedTopic.
const PausedChannel = "paused"

// PausedTopic is the topic that exists, with its channel, while the queue is paused.
func PausedTopic(queue string) string { return queue + ".paused" }

// Millis is a duration as it is written.
func Millis(d time.Duration) int64 { return int64(max(0, d) / time.Millisecond) }

// Duration is what Millis has written. Nonsense becomes something that can be added up.
func Duration(ms int64) time.Duration {
	return time.Duration(min(max(0, ms), int64(maxDuration/time.Millisecond))) * time.Millisecond
}

const maxDuration = 50 * 365 * 24 * time.Hour

func encode(v any) millrace.Message {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers and strings can be encoded
	}
	return millrace.Message{Body: body}
}

// Clip returns a name that came from outside in so few bytes that many fit into a message.
func Clip(name string) string {
	if len(name) <= maxName {
		return name
	}
	return strings.ToValidUTF8(name[:maxName], "") + "…"
}

const maxName = 100
