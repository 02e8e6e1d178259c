package nsqwire

import (
	"encoding/binary"
	"fmt"
)

// What a broker and nsqlookupd say to each other. The broker opens with LookupMagic and
// sends commands; the answer to each is its size, u32 big-endian, and so many bytes.
const (
	LookupMagic = "  V1"
	LookupPing  = "PING\n"
)

// AppendLookupIdentify appends the command that tells nsqlookupd who the broker is:
// body is a JSON object.
func AppendLookupIdentify(dst, body []byte) []byte {
	dst = append(dst, "IDENTIFY\n"...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body))) //nolint:gosec // the caller's own few bytes
	return append(dst, body...)
}

// AppendRegister appends the command that tells nsqlookupd of a topic, or of a channel
// unless channel is "".
func AppendRegister(dst []byte, topic, channel string) []byte {
	return appendLookup(dst, "REGISTER ", topic, channel)
}

// AppendUnregister appends the command that makes nsqlookupd forget the topic, or the
// channel unless channel is "".
func AppendUnregister(dst []byte, topic, channel string) []byte {
	return appendLookup(dst, "UNREGISTER ", topic, channel)
}

func appendLookup(dst []byte, command, topic, channel string) []byte {
	dst = append(append(dst, command...), topic...)
	if channel != "" {
		dst = append(append(dst, ' '), channel...)
	}
	return append(dst, '\n')
}

// ParseAnswer returns the answer that b begins with, and how many bytes it takes with
// its size; n is 0 while it is not complete. Returns an error when the answer is larger
// than most.
func ParseAnswer(b []byte, most int) (data []byte, n int, err error) {
	if len(b) < sizeSize {
		return nil, 0, nil
	}
	size := int32(binary.BigEndian.Uint32(b)) //nolint:gosec // negative is an error, next
	if size < 0 || int(size) > most {
		return nil, 0, fmt.Errorf("nsqwire: an answer of %d bytes, the limit is %d", size, most)
	}
	if n = sizeSize + int(size); n > len(b) {
		return nil, 0, nil
	}
	return b[sizeSize:n:n], n, nil
}
