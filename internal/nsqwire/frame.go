package nsqwire

import (
	"encoding/binary"
	"encoding/hex"
)

// Magic is what a client of protocol version 2 sends first.
const Magic = "  V2"

// FrameType says what a frame from the broker holds.
type FrameType uint32

// The types of frames.
const (
	FrameResponse FrameType = 0
	FrameError    FrameType = 1
	FrameMessage  FrameType = 2
)

// Responses that stand for more than text.
const (
	OK        = "OK"
	Heartbeat = "_heartbeat_"
	CloseWait = "CLOSE_WAIT"
)

const (
	frameHeader = 8 // size and type
	// IDLen is the length of a message id.
	IDLen = 16
	// messageHeader is what stands before the body in the data of a message's frame.
	messageHeader = 8 + 2 + IDLen
)

// A frame; the size counts the type and the data:
//
//	0      4      8
//	┌──────┬──────┬──────┐
//	│ size │ type │ data │   integers big-endian
//	│ u32  │ u32  │      │
//	└──────┴──────┴──────┘

// AppendFrame appends a frame with that data.
func AppendFrame(dst []byte, t FrameType, data string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+len(data))) //nolint:gosec // bounded by the limit on messages
	dst = binary.BigEndian.AppendUint32(dst, uint32(t))
	return append(dst, data...)
}

// CutFrame takes the first frame off b. need is 0 when there is one; else it is the length
// that b must have before it is worth to call CutFrame again, or -1 when b begins with
// nothing that a broker would send.
func CutFrame(b []byte) (t FrameType, data, rest []byte, need int) {
	if len(b) < frameHeader {
		return 0, nil, nil, frameHeader
	}
	size := binary.BigEndian.Uint32(b)
	if size < 4 || size > MaxFrame {
		return 0, nil, nil, -1
	}
	end := 4 + int(size)
	if len(b) < end {
		return 0, nil, nil, end
	}
	return FrameType(binary.BigEndian.Uint32(b[4:])), b[frameHeader:end:end], b[end:], 0
}

// MaxFrame is the largest size of a frame that CutFrame believes in.
const MaxFrame = 1 << 30

// Message is what the data of a message's frame says:
//
//	┌───────────┬──────────┬────┬─────────┐
//	│ timestamp │ attempts │ id │ payload │
//	│ i64 ns    │ u16      │ 16 │         │
//	└───────────┴──────────┴────┴─────────┘
type Message struct {
	// Timestamp is when the broker took the message, in nanoseconds since the Unix epoch.
	Timestamp int64
	// Attempts says how often the broker has sent the message, this time included.
	Attempts uint16
	// ID names the message.
	ID [IDLen]byte
	// Payload shares the memory of the data.
	Payload []byte
}

// ParseMessage takes the data of a message's frame apart; false when it is too short.
func ParseMessage(data []byte) (m Message, ok bool) {
	if len(data) < messageHeader {
		return m, false
	}
	m.Timestamp = int64(binary.BigEndian.Uint64(data)) //nolint:gosec // two's complement
	m.Attempts = binary.BigEndian.Uint16(data[8:])
	copy(m.ID[:], data[10:])
	m.Payload = data[messageHeader:]
	return m, true
}

// MessageSize is how many bytes the frame of a message with a payload of that length has.
func MessageSize(payload int) int { return frameHeader + messageHeader + payload }

// AppendMessageHeader appends the frame of a message but for its payload, which is so many
// bytes and has to follow. The id is seq in hexadecimal. Attempts beyond 65535 are told as
// 65535.
func AppendMessageHeader(dst []byte, timestamp int64, attempts uint32, seq uint64, payload int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+messageHeader+payload)) //nolint:gosec // bounded by the limit on messages
	dst = binary.BigEndian.AppendUint32(dst, uint32(FrameMessage))
	dst = binary.BigEndian.AppendUint64(dst, uint64(timestamp))              //nolint:gosec // two's complement
	dst = binary.BigEndian.AppendUint16(dst, uint16(min(attempts, 1<<16-1))) //nolint:gosec // just bounded
	return AppendID(dst, seq)
}

// AppendID appends the message id that stands for seq: 16 hexadecimal digits.
func AppendID(dst []byte, seq uint64) []byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], seq)
	return hex.AppendEncode(dst, b[:])
}

// ParseID returns the sequence number that an id stands for; false when it is no id
// that AppendID has made.
func ParseID(id []byte) (seq uint64, ok bool) {
	if len(id) != IDLen {
		return 0, false
	}
	for _, c := range id {
		v := unhex[c]
		if v == notHex {
			return 0, false
		}
		seq = seq<<4 | uint64(v)
	}
	return seq, true
}

const notHex = 0xff

// unhex maps lower-case hexadecimal digits to their values.
var unhex = func() (t [256]byte) {
	for i := range t {
		t[i] = notHex
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i)
	}
	return t
}()
