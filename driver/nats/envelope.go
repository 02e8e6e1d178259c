package nats

import (
	"bytes"
	"net/url"
	"strings"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/millrace/millrace"
)

const (
	// HeaderEnvelope is the NATS header that holds a message's headers, in order, as
	// in the query of a URL: key=value&key=value. Its name is the envelope's version.
	HeaderEnvelope = "MR1"
	// HeaderDelay is the NATS header of a message that is first delivered some time
	// after it was published: that time, as time.ParseDuration reads it.
	HeaderDelay = "MR1-Delay"
	// headerID is the one by which a stream knows a message again.
	headerID = "Nats-Msg-Id"
)

// encodeHeaders writes h as the value of HeaderEnvelope.
func encodeHeaders(h millrace.Headers) string {
	buf := make([]byte, 0, len(h)+len(h)/4+8)
	first := true
	for key, value := range h.All() {
		if !first {
			buf = append(buf, '&')
		}
		first = false
		buf = appendEscaped(buf, key)
		buf = append(buf, '=')
		buf = appendEscaped(buf, value)
	}
	return string(buf)
}

func appendEscaped(buf []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if plain(c) {
			buf = append(buf, c)
		} else {
			buf = append(buf, '%', hex[c>>4], hex[c&15])
		}
	}
	return buf
}

// plain says that a byte means itself in the query of a URL, whoever reads it.
func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("-._~/:,", c) >= 0
}

// decodeHeaders reads the value of HeaderEnvelope. What cannot be read is returned as
// headers that are malformed too, so that whoever gets the message sees that it is not
// one of ours, and what it said.
func decodeHeaders(text string) millrace.Headers {
	h := make(millrace.Headers, 0, len(text)+4)
	for text != "" {
		var pair string
		pair, text, _ = strings.Cut(text, "&")
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return malformed(pair)
		}
		key, err := unescape(key)
		if err != nil {
			return malformed(pair)
		}
		if value, err = unescape(value); err != nil {
			return malformed(pair)
		}
		h = h.Append(key, value)
	}
	return h
}

// unescape is url.QueryUnescape, which looks for nothing in most values.
func unescape(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s, nil
	}
	return url.QueryUnescape(s)
}

// malformed are headers whose Check fails: no length is as long as their first.
func malformed(text string) millrace.Headers {
	return append(bytes.Repeat([]byte{0xff}, 10), text...)
}

// enclose sets the NATS headers of a message, and returns how many bytes they take.
func enclose(h natsio.Header, m *millrace.Message, id string) int {
	clear(h)
	h[headerID] = []string{id}
	if len(m.Headers) > 0 {
		h[HeaderEnvelope] = []string{encodeHeaders(m.Headers)}
	}
	if m.Delay > 0 {
		h[HeaderDelay] = []string{m.Delay.String()}
	}
	size := len("NATS/1.0\r\n\r\n")
	for key, values := range h {
		size += len(key) + len(": ") + len(values[0]) + len("\r\n")
	}
	return size
}

// first returns a header's first value, and whether there is one.
func first(h natsio.Header, key string) (string, bool) {
	values := h[key]
	if len(values) == 0 {
		return "", false
	}
	return values[0], true
}

// arrival is a delivery as it comes from JetStream.
type arrival struct {
	millrace.Delivery
	// early is how long the message is still to wait.
	early time.Duration
}

// unwrap reads a message that came from a consumer. Returns false when it has not come
// from one.
func unwrap(m *natsio.Msg, now time.Time) (arrival, bool) {
	info, ok := parseAck(m.Reply)
	if !ok {
		return arrival{}, false
	}
	a := arrival{Delivery: millrace.Delivery{
		Message:   millrace.Message{Body: m.Data},
		Seq:       info.seq,
		Attempt:   info.delivered,
		Published: info.published,
	}}
	if text, ok := first(m.Header, HeaderEnvelope); ok {
		a.Headers = decodeHeaders(text)
	}
	if text, ok := first(m.Header, HeaderDelay); ok {
		if delay, err := time.ParseDuration(text); err == nil && delay > 0 {
			a.early = time.Unix(0, info.published).Add(delay).Sub(now)
			// The delivery that came too early is not one of the user's.
			a.Attempt = max(1, a.Attempt-1)
		}
	}
	return a, true
}
